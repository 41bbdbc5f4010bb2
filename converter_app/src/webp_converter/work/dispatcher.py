"""Takes jobs from the queue and hands them to workers."""

from __future__ import annotations

import itertools
import threading
import time

import redis

from webp_converter.base import log
from webp_converter.config import Config
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Jobs
from webp_converter.queue.state import QueueState
from webp_converter.variants.disk import Disk
from webp_converter.work.pool import Pool

_TICK_S = 0.5
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Dispatcher:
    """It alone reaches for Redis after an outage, and takes up what this daemon had begun before."""

    def __init__(
        self, config: Config, jobs: Jobs, queue: QueueState, in_hand: InHand, disk: Disk, pool: Pool
    ) -> None:
        self._config = config.queue
        self._jobs = jobs
        self._queue = queue
        self._in_hand = in_hand
        self._disk = disk
        self._pool = pool

    def run(self, stopping: threading.Event) -> None:
        """Takes jobs until `stopping` is set."""
        signs_of_life = 0.0
        while not stopping.is_set():
            try:
                if self._queue.problem:
                    self._connect(stopping)
                    continue
                if time.monotonic() >= signs_of_life:
                    signs_of_life = time.monotonic() + self._config.claim_idle_s / 4
                    begun = self._in_hand.jobs()
                    self._jobs.keep_alive(begun.values())
                    self._in_hand.take(self._jobs.claim(set(begun)))
                next_due_s = self._jobs.queue_due()
                if self._disk.problem:
                    stopping.wait(_TICK_S)
                    continue
                if not self._in_hand.waiting:
                    wait_s = min(_TICK_S, _TICK_S if next_due_s is None else next_due_s)
                    self._in_hand.take(self._jobs.fetch(self._config.batch, max(0.001, wait_s)))
                self._submit(stopping)
            except redis.RedisError as error:
                self._queue.lost(error)

    def _connect(self, stopping: threading.Event) -> None:
        for pause_s in itertools.chain(_PAUSES_S, itertools.repeat(_PAUSES_S[-1])):
            losses = self._queue.losses
            try:
                self._jobs.ensure_group()
                backlog = self._jobs.unfinished(set(self._in_hand.jobs()))
            except redis.RedisError as error:
                self._queue.lost(error)
                if stopping.wait(pause_s):
                    return
                continue
            self._in_hand.take(backlog)
            if self._queue.reached(losses):
                log.info("queue reached", unfinished=len(backlog))
                return

    def _submit(self, stopping: threading.Event) -> None:
        waiting = self._in_hand.waiting
        while waiting and not stopping.is_set():
            count = self._pool.wait_for_room(len(waiting), _TICK_S)
            if not count:
                return
            self._pool.submit(waiting[:count])
            del waiting[:count]

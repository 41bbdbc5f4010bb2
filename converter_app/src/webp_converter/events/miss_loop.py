"""Turns misses, requests that got less than the best variant, into jobs."""

from __future__ import annotations

import os
import threading
import time

from webp_converter.base import log
from webp_converter.config import Config
from webp_converter.events.long_names import LongNames
from webp_converter.events.misses import MissLog, Places
from webp_converter.metrics import Metrics
from webp_converter.queue.jobs import Job, Jobs, Priority
from webp_converter.queue.latest_jobs import LatestJobs
from webp_converter.queue.state import QueueState
from webp_converter.variants.originals import Originals, OriginAwayError, OriginStatus
from webp_converter.variants.statistics import Statistics

_TICK_S = 0.5


class MissLoop:
    """Reads the miss log. An original that has its decision is compared with it."""

    def __init__(
        self,
        config: Config,
        misses: MissLog,
        originals: Originals,
        origin: OriginStatus,
        jobs: Jobs,
        queue: QueueState,
        statistics: Statistics,
        latest_jobs: LatestJobs,
        metrics: Metrics,
        long_names: LongNames,
    ) -> None:
        extensions = frozenset(config.watch.extensions)
        self._places = Places(os.fsencode(config.store.root), originals.root, extensions)
        self._misses = misses
        self._originals = originals
        self._origin = origin
        self._jobs = jobs
        self._queue = queue
        self._statistics = statistics
        self._latest_jobs = latest_jobs
        self._metrics = metrics
        self._long_names = long_names

    def run(self, stopping: threading.Event) -> None:
        """Reads until `stopping` is set. What can't be queued, whoever asks next says again."""
        while not stopping.is_set():
            jobs = []
            for miss in self._misses.read(_TICK_S):
                path = self._places.of(miss.path)
                if path is None or not self._long_names.has_room(path):
                    continue
                if miss.pending or self._is_stale(path):
                    jobs.append(Job(path, time.time_ns(), Priority.HIGH))
            self._metrics.asked.inc(self._queue.attempt(self._jobs.ask, jobs))

    def _is_stale(self, path: bytes) -> bool:
        """Whether a decided original has changed; what was made of it is gone then."""
        if not self._originals.holds(path):
            return False
        try:
            is_stale = self._originals.revalidate(path)
            self._origin.tried()
            if not is_stale and self._originals.mark_of(path) is None:
                self._statistics.forget([path])
                self._latest_jobs.forget(path)
            return is_stale
        except OriginAwayError as error:
            self._origin.tried(str(error))
            log.debug("not compared", path=path, reason=str(error))
            return False

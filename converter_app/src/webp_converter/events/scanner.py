"""Runs reconcile scans: on request, and at regular times."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from webp_converter.base import log
from webp_converter.base.fact import Fact
from webp_converter.base.processes import child
from webp_converter.config import Config
from webp_converter.events.long_names import LongNames
from webp_converter.events.scan import Tally, scan_share
from webp_converter.metrics import Metrics
from webp_converter.queue.state import QueueState

_TICK_S = 0.5
_PAUSE_S = 5.0


class LastScan(Fact):
    """What the last reconcile scan did."""

    finished_at: float
    """Unix time."""

    originals: int
    queued: int
    removed: int
    """Stale variants, and those without an original."""

    complete: bool
    """Whether all that was found could be queued; otherwise there is another scan."""

    seconds: float


class Scanner:
    """Scans in separate processes: a walk through a million files must not hold up the rest."""

    def __init__(
        self,
        config: Config,
        queue: QueueState,
        metrics: Metrics,
        long_names: LongNames,
        wanted: threading.Event,
    ) -> None:
        """Whoever sets `wanted` asks for a scan."""
        self._config = config
        self._queue = queue
        self._metrics = metrics
        self._long_names = long_names
        self._processes: list[BaseProcess] = []
        self.wanted = wanted
        self.running = False
        self.last: LastScan | None = None
        """None: there was none yet."""

    def run(self, stopping: threading.Event) -> None:
        """Scans until `stopping` is set."""
        every_s = self._config.watch.scan_every_s
        due = time.monotonic() + every_s
        while not stopping.is_set():
            if not self.wanted.wait(_TICK_S) and not (every_s and time.monotonic() >= due):
                continue
            due = time.monotonic() + every_s
            self.wanted.clear()
            self.running = True
            total = self._scan(stopping)
            self.running = False
            self._queue.full &= total.missed
            if total.missed:
                # The queue's return requests another scan; after a moment's refusal nothing else does.
                stopping.wait(_PAUSE_S)
                if not self._queue.problem:
                    self.wanted.set()

    def stop(self) -> None:
        """Ends what is running; `run` doesn't go on after that once its `stopping` is set."""
        for process in self._processes:
            process.kill()

    def _scan(self, stopping: threading.Event) -> Tally:
        started = time.monotonic()
        total = Tally()
        pipes = self._start(total)
        for pipe, process in zip(pipes, self._processes, strict=True):
            try:
                tally: Tally = pipe.recv()
            except (EOFError, OSError):  # it was killed, perhaps amid its answer
                tally = Tally(missed=True)
            pipe.close()
            process.join()
            total.originals += tally.originals
            total.queued += tally.queued
            total.removed += tally.removed
            total.missed |= tally.missed
            for path in tally.too_long:
                self._long_names.has_room(path)
        self._processes = []
        if stopping.is_set():
            return Tally()
        seconds = time.monotonic() - started
        self._metrics.scans.inc()
        self._metrics.scan_seconds.set(seconds)
        self._metrics.scan_originals.set(total.originals)
        self.last = LastScan(
            finished_at=time.time(),
            originals=total.originals,
            queued=total.queued,
            removed=total.removed,
            complete=not total.missed,
            seconds=round(seconds, 3),
        )
        log.info("scanned", **self.last.model_dump(exclude={"finished_at"}))
        return total

    def _start(self, total: Tally) -> list[Connection]:
        """Starts a process for each share; where that fails, `total` misses something."""
        shares = self._config.watch.scan_processes
        pipes = []
        for share in range(shares):
            try:
                process, pipe = child(scan_share, self._config, share, shares)
            except OSError as error:
                log.error("scan failed", reason=str(error))
                total.missed = True
                continue
            pipes.append(pipe)
            self._processes.append(process)
        return pipes

"""The daemon: wiring, supervision, shutdown.

Threads: the watch turns events into jobs, the dispatcher hands jobs to workers, the publisher publishes their
results, the scanner reconciles; the main thread supervises.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable

from webp_converter.api.server import Api, Parts
from webp_converter.api.service import Service
from webp_converter.base import log, systemd
from webp_converter.base.processes import start_fork_server
from webp_converter.base.stopping import Stopping
from webp_converter.config import Config
from webp_converter.events.long_names import LongNames
from webp_converter.events.miss_loop import MissLoop
from webp_converter.events.misses import MissLog
from webp_converter.events.scanner import Scanner
from webp_converter.events.watch_loop import WatchLoop
from webp_converter.metrics import Metrics
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Jobs
from webp_converter.queue.latest_jobs import LatestJobs
from webp_converter.queue.state import QueueState
from webp_converter.variants.disk import Disk
from webp_converter.variants.originals import Originals, OriginStatus
from webp_converter.variants.statistics import Statistics
from webp_converter.variants.store import Store, Temporary, owner_of
from webp_converter.work.dispatcher import Dispatcher
from webp_converter.work.health import Condition
from webp_converter.work.housekeeper import Housekeeper
from webp_converter.work.pool import Answered, Pool
from webp_converter.work.publisher import Publisher
from webp_converter.work.records import Records
from webp_converter.work.second_pass import SecondPass
from webp_converter.work.trees import Trees

_TICK_S = 0.5
_HOUSEKEEPING_S = 2.0


class Daemon:
    """One converter. `run` returns when it was asked to stop."""

    def __init__(self, config: Config) -> None:
        """Prepares all parts.

        :raises StoreError: the store can't be worked with.
        :raises OSError: a port is taken.
        """
        self._config = config
        self._stopping = Stopping()
        self._threads: list[threading.Thread] = []
        scan_wanted, long_names = threading.Event(), LongNames()
        self._metrics = metrics = Metrics()
        metrics.serve(config.metrics)
        self._temporary = Temporary(config.store.temporary, owner_of(config))
        temporary = self._temporary.path
        self._misses = MissLog.inherited()
        self._trees = trees = Trees(Store(config, temporary), Originals(config, temporary))
        if self._misses:
            trees.originals.prepare()
        self._jobs = jobs = Jobs(config.queue)
        self._statistics = statistics = Statistics(config.cache)
        latest_jobs, origin = LatestJobs(), OriginStatus()
        records = Records(metrics, statistics, latest_jobs, origin)
        self._in_hand = in_hand = InHand()
        state = QueueState(scan_wanted)
        self._disk = disk = Disk(config, trees.resized, scan_wanted)

        self._watch = WatchLoop(
            config, trees.resized, jobs, state, statistics, latest_jobs, metrics, long_names, scan_wanted
        )
        self._miss_loop = self._misses and MissLoop(
            config,
            self._misses,
            trees.originals,
            origin,
            jobs,
            state,
            statistics,
            latest_jobs,
            metrics,
            long_names,
        )
        self._scanner = Scanner(config, state, metrics, long_names, scan_wanted)
        self._housekeeper = Housekeeper(config, metrics, statistics)

        start_fork_server()
        answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self._pool = Pool(config, temporary, answers.put)
        self._dispatcher = Dispatcher(config, jobs, state, in_hand, disk, self._pool)
        self._condition = Condition(
            self._stopping, state, in_hand, statistics, self._watch, self._pool, disk, self._scanner
        )
        self._second_pass = SecondPass(config, temporary, self._condition, trees, records)
        self._publisher = Publisher(
            config, trees, jobs, records, answers, in_hand, state, disk, self._second_pass
        )

        self._service = Service(config)
        parts = Parts(self._condition, self._scanner, self._housekeeper, origin, latest_jobs)
        self._api = Api(config, self._service, parts)

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._check_disk()
        for name, run in (
            ("watch", self._watch.run),
            ("dispatcher", self._dispatcher.run),
            ("publisher", self._publisher.run),
            ("scanner", self._scanner.run),
            ("second pass", self._second_pass.run),
            ("housekeeper", self._housekeeper.run),
        ):
            self._start(name, run)
        if self._miss_loop:
            self._start("misses", self._miss_loop.run)
        while not self._watch.tried.wait(_TICK_S) and not self._stopping.is_set():
            pass
        # What it imports would take seconds from the watch of a large tree.
        self._start("api", self._api.run)
        systemd.notify(READY=1, STATUS=self._condition.line())
        log.info("started", root=str(self._config.store.root), workers=self._config.workers.processes())
        self._supervise()
        self._stop()
        return 1 if self._stopping.failed else 0

    def _start(self, name: str, run: Callable[[Stopping], None]) -> None:
        def guarded() -> None:
            try:
                run(self._stopping)
            except Exception:
                # A daemon without one of its loops would look alive and do nothing: systemd restarts it.
                log.error("loop failed", loop=name, traceback=True)
                self._stopping.fail()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _supervise(self) -> None:
        interval = systemd.watchdog_interval_s()
        checked = time.monotonic()
        while not self._stopping.wait(min(_TICK_S, interval or _TICK_S)):
            if not self._pool.alive:
                log.error("loop failed", loop="pool")
                self._stopping.fail()
                return
            if time.monotonic() - checked > _HOUSEKEEPING_S:
                checked = time.monotonic()
                self._check_disk()
                self._remove_lost()
                self._statistics.check()
                self._condition.measure(self._jobs, self._metrics)
                systemd.notify(STATUS=self._condition.line())
            if interval:
                systemd.notify(WATCHDOG=1)

    def _check_disk(self) -> None:
        self._housekeeper.watch_space()
        self._disk.check()

    def _remove_lost(self) -> None:
        """Removes unfinished files that will not be published: a worker that dies leaves what it wrote.

        Whatever was there before a moment at which nothing is under way is such a file.
        """
        lost = self._trees.unfinished()
        if lost and not self._in_hand.at_work and not self._second_pass.busy:
            for path in lost:
                path.unlink(missing_ok=True)

    def _stop(self) -> None:
        systemd.notify(STOPPING=1)
        deadline = time.monotonic() + self._config.workers.stop_s
        while self._in_hand.at_work and time.monotonic() < deadline and not self._stopping.failed:
            time.sleep(0.02)
        self._pool.close()
        self._scanner.stop()
        self._housekeeper.stop()
        self._api.stop()
        for thread in self._threads:
            thread.join(2 * _TICK_S + 2)
        if self._misses:
            self._misses.close()
            self._trees.originals.close()
        self._temporary.close()
        self._jobs.close()
        self._statistics.close()
        self._service.close()
        log.info("stopped")

"""The daemon: wiring, supervision, shutdown.

Threads: the watch turns events into jobs, the dispatcher hands jobs to workers, the publisher publishes what
they made, the scanner reconciles; the main thread supervises.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import redis

from webp_converter.api.server import Api, DaemonView
from webp_converter.api.service import Service
from webp_converter.base import log, systemd
from webp_converter.base.names import TOO_LONG, has_room
from webp_converter.base.processes import child, start_fork_server
from webp_converter.config import Config
from webp_converter.events.misses import MissLog, Places
from webp_converter.events.scan import Tally, scan_share
from webp_converter.events.watch import Change, Watch, WatchError
from webp_converter.queue.jobs import Job, Jobs, Priority
from webp_converter.queue.latest_jobs import Recent
from webp_converter.variants.originals import Originals, OriginAwayError, OriginStatus
from webp_converter.variants.statistics import Statistics
from webp_converter.variants.store import Mark, Store, StoreError, Temporary, owner_of
from webp_converter.work.housekeeper import Housekeeper
from webp_converter.work.metrics import Metrics
from webp_converter.work.pool import Pool
from webp_converter.work.publisher import DaemonHooks, Publisher, Records, Trees
from webp_converter.work.second_pass import Refiner

_TICK_S = 0.5
_HOUSEKEEPING_S = 2.0
_QUEUE_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_SCAN_PAUSE_S = 5.0
_TOO_LONG_REMEMBERED = 10_000


class Daemon:
    """One converter. `run` returns when it was asked to stop."""

    def __init__(self, config: Config) -> None:
        """Raises StoreError, or OSError when a port is taken."""
        self._config = config
        self._stopping = threading.Event()
        self._failed = False
        self._metrics = Metrics()
        self._metrics.serve(config.metrics)
        self._temporary = Temporary(config.store.temporary, owner_of(config))
        self._store = Store(config, self._temporary.path)
        self._misses = MissLog.inherited()
        self._originals = Originals(config, self._temporary.path)
        if self._misses:
            self._originals.prepare()
        self._jobs = Jobs(config.queue)
        self._statistics = Statistics(config.cache)
        self._housekeeper = Housekeeper(config, self._metrics, self._statistics.evicted)
        self._scan_wanted = threading.Event()
        self._recent = Recent()
        self._reach = OriginStatus()
        self._last_scan: dict[str, object] | None = None
        self._service = Service(config)
        live = DaemonView(
            health=self.health,
            last_scan=lambda: self._last_scan,
            last_eviction=lambda: self._housekeeper.last,
            reach=self._reach,
            recent=self._recent,
            scan=self._scan_wanted.set,
            clean_up=self._housekeeper.clean_up,
        )
        self._api = Api(config, self._service, live)
        trees = Trees(self._store, self._originals)
        records = Records(self._metrics, self._statistics, self._recent, self._reach, self._to_refine)
        ties = DaemonHooks(
            waiting=lambda: bool(self._fetched),
            queue_away=lambda: bool(self._queue_problem),
            disk_full=lambda: bool(self._disk_problem),
            queue_lost=self._queue_lost,
            no_space=self._disk_full,
            broken=self._fail,
        )
        self._publisher = Publisher(config, trees, self._jobs, records, ties)
        start_fork_server()
        self._pool = Pool(config, self._temporary.path, self._publisher.answered)
        self._refiner = Refiner(
            config, self._temporary.path, self._idle, trees.publish, self._publisher.improved
        )

        self._replaced = 0
        self._queue_problem = "starting"
        self._queue_full = False
        self._queue_lengths: dict[str, int] = {}
        self._fetched: list[Job] = []
        self._watch_problem = "starting"
        self._directories = 0
        self._scanning = False
        self._scanners: list[BaseProcess] = []
        self._disk_problem = ""
        self._emptied: dict[bytes, float] = {}
        self._too_long: set[bytes] = set()
        self._first_watch = threading.Event()
        self._threads: list[threading.Thread] = []

    # Life and death

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._check_disk()
        for loop in (
            self._watch_loop,
            self._dispatch_loop,
            self._publish_loop,
            self._scan_loop,
            self._refine_loop,
            self._housekeeper.loop,
        ):
            self._start(loop)
        if self._misses:
            self._start(self._miss_loop)
        while not self._first_watch.wait(_TICK_S) and not self._stopping.is_set():
            pass
        # What it imports would take seconds from the watch of a large tree.
        self._start(self._api.serve)
        systemd.notify(READY=1, STATUS=self._status())
        log.info("started", root=str(self._config.store.root), workers=self._config.workers.processes())
        self._supervise()
        self._stop()
        return 1 if self._failed else 0

    def _start(self, loop: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                loop()
            except Exception:
                # A daemon without one of its loops would look alive and do nothing: systemd starts it anew.
                log.error("loop failed", loop=loop.__name__.strip("_"), traceback=True)
                self._fail()

        thread = threading.Thread(target=guarded, name=loop.__name__.strip("_"), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _fail(self) -> None:
        """Has the daemon end as one that failed."""
        self._failed = True
        self._stopping.set()

    def _supervise(self) -> None:
        interval = systemd.watchdog_interval_s()
        checked = time.monotonic()
        while not self._stopping.wait(min(_TICK_S, interval or _TICK_S)):
            if not self._pool.alive:
                log.error("loop failed", loop="pool")
                self._failed = True
                return
            if time.monotonic() - checked > _HOUSEKEEPING_S:
                checked = time.monotonic()
                self._check_disk()
                self._remove_lost()
                self._statistics.check()
                self._measure()
                systemd.notify(STATUS=self._status())
            if interval:
                systemd.notify(WATCHDOG=1)

    def _stop(self) -> None:
        systemd.notify(STOPPING=1)
        deadline = time.monotonic() + self._config.workers.stop_s
        while (len(self._pool) or self._publisher.unread or len(self._publisher)) and (
            time.monotonic() < deadline and not self._failed
        ):
            time.sleep(0.02)
        self._pool.close()
        for process in self._scanners:
            process.kill()
        self._housekeeper.stop()
        self._api.stop()
        for thread in self._threads:
            thread.join(2 * _TICK_S + 2)
        if self._misses:
            self._misses.close()
            self._originals.close()
        self._temporary.close()
        self._jobs.close()
        self._statistics.close()
        self._service.close()
        log.info("stopped")

    # Watching

    def _watch_loop(self) -> None:
        root = os.fsencode(self._config.store.root)
        extensions = frozenset(self._config.watch.extensions)
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                watch = Watch(root, extensions)
            except WatchError as error:
                if self._watch_problem != str(error):
                    log.error("cannot watch", reason=str(error))
                self._watch_problem = str(error)
                self._first_watch.set()
                self._stopping.wait(1)
                continue
            self._watch_problem = ""
            self._directories = len(watch)
            self._first_watch.set()
            log.info("watching", directories=len(watch), seconds=round(time.monotonic() - started, 3))
            # Only now: what changed before the watch was there is the scan's to find.
            self._scan_wanted.set()
            try:
                self._watch(watch)
            except WatchError as error:
                self._watch_problem = str(error)
                log.error("cannot watch", reason=str(error))
                self._stopping.wait(1)
            finally:
                watch.close()

    def _watch(self, watch: Watch) -> None:
        while not self._stopping.is_set():
            changes = watch.changes(_TICK_S)
            if changes is None:
                self._metrics.lost.inc()
                log.warning("events lost")
                return
            self._directories = len(watch)
            self._changed(changes)
            self._remove_emptied()

    def _changed(self, changes: list[Change]) -> None:
        jobs, gone = [], []
        for change in changes:
            if not self._has_room(change.path):
                continue
            stale = self._store.remove_stale(change.path)
            if stale.removed:
                self._metrics.stale.inc(stale.removed)
                self._recent.forget(change.path)
                log.info("stale removed", path=change.path, removed=stale.removed)
            if not stale.present:
                gone.append(change.path)
                if stale.removed:
                    directory = change.path.rpartition(b"/")[0]
                    self._emptied[directory] = time.monotonic() + self._config.store.directory_rest_s
            elif not stale.decided and (change.written or stale.removed):
                jobs.append(Job(change.path, change.seen_ns))
        if jobs and not self._queue_problem:
            try:
                self._jobs.push(jobs)
            except redis.OutOfMemoryError:
                self._no_room()
            except redis.RedisError as error:
                # Nothing is lost: the scan that follows an outage finds these.
                self._queue_lost(error)
        self._statistics.forget(gone)

    def _has_room(self, path: bytes) -> bool:
        """Whether an original's name leaves room for a suffix; of each that doesn't the log tells once."""
        name = path.rpartition(b"/")[2]
        if has_room(name):
            return True
        if path not in self._too_long:
            if len(self._too_long) >= _TOO_LONG_REMEMBERED:
                self._too_long.clear()
            self._too_long.add(path)
            log.warning("name too long", path=path, bytes=len(name), reason=TOO_LONG)
        return False

    def _remove_emptied(self) -> None:
        now = time.monotonic()
        for directory in [path for path, due in self._emptied.items() if due <= now]:
            del self._emptied[directory]
            self._store.remove_empty_directories(directory + b"/")

    # On demand

    def _miss_loop(self) -> None:
        assert self._misses
        extensions = frozenset(self._config.watch.extensions)
        places = Places(os.fsencode(self._config.store.root), self._originals.root, extensions)
        while not self._stopping.is_set():
            jobs = []
            for miss in self._misses.read(_TICK_S):
                path = places.of(miss.path)
                if path is None or not self._has_room(path):
                    continue
                if miss.pending or self._is_stale(path):
                    jobs.append(Job(path, time.time_ns(), Priority.HIGH))
            if not jobs or self._queue_problem:
                continue
            try:
                self._metrics.asked.inc(self._jobs.ask(jobs))
            except redis.OutOfMemoryError:
                self._no_room()
            except redis.RedisError as error:
                # Whoever asks next says it again.
                self._queue_lost(error)

    def _is_stale(self, path: bytes) -> bool:
        """Whether a decided original has changed; what was made of it is gone then."""
        if not self._originals.holds(path):
            return False
        try:
            is_stale = self._originals.revalidate(path)
            self._reach.tried()
            if not is_stale and self._originals.mark_of(path) is None:
                self._statistics.forget([path])
                self._recent.forget(path)
            return is_stale
        except OriginAwayError as error:
            self._reach.tried(str(error))
            log.debug("not compared", path=path, reason=str(error))
            return False

    # The queue

    def _dispatch_loop(self) -> None:
        signs_of_life = 0.0
        while not self._stopping.is_set():
            try:
                if self._queue_problem:
                    self._reach_queue()
                    continue
                if time.monotonic() >= signs_of_life:
                    signs_of_life = time.monotonic() + self._config.queue.claim_idle_s / 4
                    under_way = self._under_way()
                    self._jobs.keep_alive(under_way.values())
                    self._fetched += self._jobs.claim(set(under_way))
                next_due_s = self._jobs.queue_due()
                if self._disk_problem:
                    self._stopping.wait(_TICK_S)
                    continue
                if not self._fetched:
                    wait_s = min(_TICK_S, _TICK_S if next_due_s is None else next_due_s)
                    self._fetched = self._jobs.fetch(self._config.queue.batch, max(0.001, wait_s))
                self._submit()
            except redis.RedisError as error:
                self._queue_lost(error)

    def _reach_queue(self) -> None:
        for pause_s in itertools.chain(_QUEUE_PAUSES_S, itertools.repeat(_QUEUE_PAUSES_S[-1])):
            try:
                self._jobs.ensure_group()
                backlog = self._jobs.unfinished(set(self._under_way()))
            except redis.RedisError as error:
                self._queue_lost(error)
                if self._stopping.wait(pause_s):
                    return
                continue
            self._fetched += backlog
            self._queue_problem = ""
            log.info("queue reached", unfinished=len(backlog))
            # Whatever happened while it was away was not queued.
            self._scan_wanted.set()
            return

    def _queue_lost(self, error: Exception) -> None:
        if self._queue_problem in ("", "starting"):
            log.error("queue away", reason=str(error))
        self._queue_problem = f"Redis is away: {error}"

    def _no_room(self) -> None:
        """Redis takes no more jobs. Those it has are worked off, which makes room: a scan brings the rest."""
        if not self._queue_full:
            log.error("queue full")
        self._queue_full = True
        self._scan_wanted.set()

    def _under_way(self) -> dict[str, Job]:
        """All that was fetched and isn't finished, by entry."""
        jobs = {job.entry: job for job in (*self._fetched, *self._pool.running())}
        return jobs | self._publisher.jobs()

    def _submit(self) -> None:
        while self._fetched and not self._stopping.is_set():
            count = self._pool.wait_for_room(len(self._fetched), _TICK_S)
            if not count:
                return
            self._pool.submit(self._fetched[:count])
            # Only now, so that at each moment they are known to be under way.
            del self._fetched[:count]

    def _publish_loop(self) -> None:
        self._publisher.run(self._stopping)

    # The second pass

    def _to_refine(self, path: bytes, mark: Mark) -> None:
        self._refiner.remember(path, mark)

    def _refine_loop(self) -> None:
        self._refiner.run(self._stopping)

    def _idle(self) -> bool:
        """Whether nothing is to be done, as far as can be seen from here."""
        busy = self._fetched or len(self._pool) or len(self._publisher) or self._scanning
        return not (busy or self._queue_problem or self._disk_problem)

    # The scan

    def _scan_loop(self) -> None:
        every_s = self._config.watch.scan_every_s
        due = time.monotonic() + every_s
        while not self._stopping.is_set():
            if not self._scan_wanted.wait(_TICK_S) and not (every_s and time.monotonic() >= due):
                continue
            due = time.monotonic() + every_s
            self._scan_wanted.clear()
            self._scanning = True
            missed = self._scan()
            self._scanning = False
            self._queue_full &= missed
            if missed:
                # The queue's return asks for another scan; if it only refused for a moment, nobody else does.
                self._stopping.wait(_SCAN_PAUSE_S)
                if not self._queue_problem:
                    self._scan_wanted.set()

    def _scan(self) -> bool:
        """Runs one scan; whether something could not be queued."""
        started = time.monotonic()
        shares = self._config.watch.scan_processes
        pipes = []
        self._scanners = []
        for share in range(shares):
            process, pipe = child(scan_share, self._config, share, shares)
            pipes.append(pipe)
            self._scanners.append(process)
        total = Tally()
        for pipe, process in zip(pipes, self._scanners, strict=True):
            try:
                tally: Tally = pipe.recv()
            except EOFError:
                tally = Tally(missed=True)
            pipe.close()
            process.join()
            total.originals += tally.originals
            total.queued += tally.queued
            total.removed += tally.removed
            total.missed |= tally.missed
            for path in tally.too_long:
                self._has_room(path)
        self._scanners = []
        if self._stopping.is_set():
            return False
        seconds = time.monotonic() - started
        self._metrics.scans.inc()
        self._metrics.scan_seconds.set(seconds)
        self._metrics.scan_originals.set(total.originals)
        told = {
            "originals": total.originals,
            "queued": total.queued,
            "removed": total.removed,
            "complete": not total.missed,
            "seconds": round(seconds, 3),
        }
        log.info("scanned", **told)
        self._last_scan = {"finished_at": time.time(), **told}
        return total.missed

    # State

    def _check_disk(self) -> None:
        try:
            self._store.check()
            space = os.statvfs(self._config.store.root)
            free_mib = space.f_bavail * space.f_frsize // 1024**2
            problem = ""
            if free_mib < self._config.store.minimum_free_mib:
                problem = f"{free_mib} MiB free, {self._config.store.minimum_free_mib} MiB wanted"
        except (StoreError, OSError) as error:
            problem = str(error)
        self._housekeeper.watch_space()
        if problem != self._disk_problem:
            if problem:
                log.error("disk", reason=problem)
            else:
                log.info("disk usable again")
                # A verdict that found no room may be missing.
                self._scan_wanted.set()
        self._disk_problem = problem

    def _remove_lost(self) -> None:
        """Removes unfinished files that nobody will publish: a worker that dies leaves what it wrote.

        Whatever was there before a moment at which nothing is under way is such a file.
        """
        lost = [path for store in (self._store, self._originals) for path in store.unfinished()]
        busy = len(self._pool) or len(self._publisher) or self._publisher.unread or self._refiner.busy
        if not lost or busy:
            return
        for path in lost:
            Path(os.fsdecode(path)).unlink(missing_ok=True)

    def _disk_full(self, reason: str) -> None:
        if not self._disk_problem:
            log.error("disk", reason=reason)
        self._disk_problem = reason

    def _measure(self) -> None:
        if not self._queue_problem:
            try:
                self._queue_lengths = self._jobs.lengths()
                ages = self._jobs.ages()
            except redis.RedisError as error:
                self._queue_lost(error)
            else:
                for stream, length in self._queue_lengths.items():
                    self._metrics.queue.labels(stream).set(length)
                for stream, age_s in ages.items():
                    self._metrics.oldest.labels(stream).set(age_s or 0)
        self._metrics.paused.labels("disk").set(bool(self._disk_problem))
        self._metrics.paused.labels("queue").set(bool(self._queue_problem))
        self._metrics.running.set(len(self._pool))
        self._metrics.workers.set(self._pool.workers)
        self._metrics.replaced.inc(self._pool.replaced - self._replaced)
        self._replaced = self._pool.replaced
        self._metrics.directories.set(self._directories)
        for part, problem in self._parts().items():
            self._metrics.up.labels(part).set(not problem)

    def _parts(self) -> dict[str, str]:
        """What is wrong with each part; empty: nothing."""
        return {
            "queue": self._queue_problem or ("Redis is out of memory" if self._queue_full else ""),
            "cache": "" if self._statistics.available else "Redis is away",
            "watch": self._watch_problem,
            "pool": self._pool.problem,
            "disk": self._disk_problem,
        }

    def _status(self) -> str:
        problems = [f"{part}: {problem}" for part, problem in self._parts().items() if problem]
        return "; ".join(problems) or f"watching {self._directories} directories"

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the daemon can work at all, and how each part does."""
        parts = self._parts()
        problems = {part for part, problem in parts.items() if problem}
        works = not self._stopping.is_set() and not {"watch", "disk"} <= problems
        status = "failed" if not works else "degraded" if problems else "ok"
        return works, {
            "status": status,
            "parts": {
                part: {"status": "degraded" if problem else "ok", "reason": problem}
                for part, problem in parts.items()
            },
            "scanning": self._scanning or self._scan_wanted.is_set(),
            "directories": self._directories,
            "running": len(self._pool),
            "queue": {} if self._queue_problem else self._queue_lengths,
        }

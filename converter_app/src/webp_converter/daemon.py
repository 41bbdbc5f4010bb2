"""The daemon: wiring, supervision, shutdown.

Threads: the watch turns events into jobs, the dispatcher hands jobs to workers, the publisher publishes what
they made, the scanner reconciles; the main thread supervises.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import redis

from webp_converter import log, systemd
from webp_converter.api import Api, Live
from webp_converter.config import Config
from webp_converter.housekeeper import Housekeeper
from webp_converter.jobs import Done, Job, Jobs, Priority
from webp_converter.metrics import Metrics
from webp_converter.misses import MissLog, Places
from webp_converter.originals import Originals, OriginAwayError, Reach
from webp_converter.pool import Answered, Failure, Pool, context, start_fork_server
from webp_converter.recent import Recent
from webp_converter.refine import Refiner
from webp_converter.scan import Tally, scan_share
from webp_converter.service import Service
from webp_converter.statistics import Picture, Statistics
from webp_converter.store import (
    FAILED,
    FULL,
    KEEP,
    WEBP,
    Finished,
    Mark,
    Result,
    Store,
    StoreError,
    Temporary,
    owner_of,
)
from webp_converter.watch import Change, Watch, WatchError
from webp_converter.worker import LEFT_ALONE, Outcome, Report

_PUBLISHED_AT_ONCE = 16
_GATHER_S = 0.05
_TICK_S = 0.5
_HOUSEKEEPING_S = 2.0
_QUEUE_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_FULL_PAUSE_S = 5.0
_CHANGED_PAUSE_S = 0.5
_SCAN_PAUSE_S = 5.0


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
        self._reach = Reach()
        self._last_scan: dict[str, object] | None = None
        self._service = Service(config)
        live = Live(
            health=self.health,
            last_scan=lambda: self._last_scan,
            last_eviction=lambda: self._housekeeper.last,
            reach=self._reach,
            recent=self._recent,
            scan=self._scan_wanted.set,
            clean_up=self._housekeeper.clean_up,
        )
        self._api = Api(config, self._service, live)
        self._answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        start_fork_server()
        self._pool = Pool(config, self._temporary.path, self._answered)
        self._refiner = Refiner(config, self._temporary.path, self._idle, self._publish_all, self._improved)

        self._replaced = 0
        self._queue_problem = "starting"
        self._queue_full = False
        self._queue_lengths: dict[str, int] = {}
        self._fetched: list[Job] = []
        self._publishing: dict[str, Job] = {}
        self._watch_problem = "starting"
        self._directories = 0
        self._scanning = False
        self._scanners: list[BaseProcess] = []
        self._disk_problem = ""
        self._emptied: dict[bytes, float] = {}
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
                self._failed = True
                self._stopping.set()

        thread = threading.Thread(target=guarded, name=loop.__name__.strip("_"), daemon=True)
        thread.start()
        self._threads.append(thread)

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
        while (len(self._pool) or not self._answers.empty() or self._publishing) and (
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
        extensions = frozenset(extension.encode() for extension in self._config.watch.extensions)
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

    def _remove_emptied(self) -> None:
        now = time.monotonic()
        for directory in [path for path, due in self._emptied.items() if due <= now]:
            del self._emptied[directory]
            self._store.remove_empty_directories(directory + b"/")

    # On demand

    def _miss_loop(self) -> None:
        assert self._misses
        extensions = frozenset(extension.encode() for extension in self._config.watch.extensions)
        places = Places(os.fsencode(self._config.store.root), self._originals.root, extensions)
        while not self._stopping.is_set():
            jobs = []
            for miss in self._misses.read(_TICK_S):
                path = places.of(miss.path)
                if path is not None and (miss.pending or self._is_stale(path)):
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

    def _store_of(self, path: bytes) -> Store:
        return self._originals if self._originals.holds(path) else self._store

    def _publish_all(self, batch: list[Finished]) -> list[Result]:
        """Publishes decisions, each in its tree; what became of each, in order."""
        results: dict[int, Result] = {}
        for store in (self._store, self._originals):
            places = [i for i, finished in enumerate(batch) if self._store_of(finished.path) is store]
            published = store.publish([batch[i] for i in places])
            results |= dict(zip(places, published, strict=True))
        return [results[i] for i in range(len(batch))]

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
        return jobs | dict(self._publishing)

    def _submit(self) -> None:
        while self._fetched and not self._stopping.is_set():
            count = self._pool.wait_for_room(len(self._fetched), _TICK_S)
            if not count:
                return
            self._pool.submit(self._fetched[:count])
            # Only now, so that at each moment they are known to be under way.
            del self._fetched[:count]

    # Publishing

    def _answered(self, pairs: Answered) -> None:
        for job, _ in pairs:
            self._publishing[job.entry] = job
        self._answers.put(pairs)

    def _publish_loop(self) -> None:
        while not self._stopping.is_set() or not self._answers.empty():
            try:
                batch = list(self._answers.get(timeout=_TICK_S / 5))
            except queue.Empty:
                continue
            deadline = time.monotonic() + _GATHER_S
            while len(batch) < _PUBLISHED_AT_ONCE:
                # With jobs waiting, a full batch is worth a moment; otherwise nothing waits for company.
                left_s = max(0.0, deadline - time.monotonic()) if self._fetched else 0.0
                try:
                    batch += self._answers.get(block=left_s > 0, timeout=left_s)
                except queue.Empty:
                    break
            self._publish(batch)

    def _publish(self, batch: Answered) -> None:
        to_publish = [
            (job, answer, answer.finished)
            for job, answer in batch
            if isinstance(answer, Report) and answer.finished
        ]
        results = self._publish_all([finished for _, _, finished in to_publish])
        for _, answer in batch:
            if isinstance(answer, Report) and self._originals.holds(answer.path):
                self._reach.tried(answer.detail if answer.outcome is Outcome.AWAY else "")
        done: list[Done] = []
        pictures: list[Picture] = []
        for (job, report, finished), result in zip(to_publish, results, strict=True):
            done.append(self._published(job, report, finished, result, pictures))
        for job, answer in batch:
            if isinstance(answer, Failure):
                done.append(self._worker_failed(job, answer))
            elif not answer.finished:
                done.append(self._without_result(job, answer))
        try:
            if not self._queue_problem:
                self._jobs.finish(done)
                for given_up in done:
                    if given_up.dead:
                        self._give_up(given_up.job, pictures)
        except redis.RedisError as error:
            # They stay this consumer's unfinished entries; when they come up again they are found fresh.
            self._queue_lost(error)
        finally:
            for job, _ in batch:
                self._publishing.pop(job.entry, None)
        self._statistics.remember(pictures)

    def _published(
        self, job: Job, report: Report, finished: Finished, result: Result, pictures: list[Picture]
    ) -> Done:
        if result is Result.CHANGED:
            self._metrics.pictures.labels("changed").inc()
            log.info("changed while converted", path=job.path)
            return Done(job, job._replace(tries=0, rested=""), _CHANGED_PAUSE_S)
        if result is Result.FULL:
            self._disk_full("no space left")
            return Done(job, job, _FULL_PAUSE_S)
        if result is not Result.PUBLISHED:
            self._metrics.pictures.labels(result.name.lower()).inc()
            log.info(result.name.lower(), path=job.path)
            return Done(job, settled=result is Result.GONE)
        mark = finished.mark
        now = time.time_ns()
        latency_ms = max(0, (now - job.event_ns) / 1e6)
        is_variant = finished.suffix == WEBP
        self._metrics.pictures.labels("webp" if is_variant else "keep").inc()
        self._metrics.encode.observe(mark.encode_ms / 1000)
        self._recent.decided()
        if not job.rested and not job.tries and job.priority is Priority.NORMAL:
            self._metrics.latency.observe(latency_ms / 1000)
        if is_variant:
            self._refiner.remember(job.path, mark)
            self._metrics.published(mark.similarity)
            self._metrics.original_bytes.inc(mark.size)
            self._metrics.variant_bytes.inc(report.variant_bytes)
        if finished.avif:
            self._metrics.avif.inc()
            self._metrics.published(finished.avif.mark.similarity)
        log.info(
            "published" if is_variant else "kept",
            path=job.path,
            verdict=mark.verdict,
            detail=report.detail or None,
            original_bytes=mark.size,
            variant_bytes=report.variant_bytes if is_variant else None,
            avif_bytes=report.avif_bytes or None,
            ssim=None if math.isnan(mark.similarity) else round(mark.similarity, 4),
            encodes=report.encodes,
            encode_ms=mark.encode_ms,
            latency_ms=round(latency_ms, 1),
            priority=job.priority.value,
        )
        remembered = mark._replace(latency_ms=round(latency_ms))
        if is_variant:
            self._recent.converted(
                job.path, remembered, report.format, report.variant_bytes, report.avif_bytes
            )
        pictures.append(Picture(job.path, remembered, report.format, report.variant_bytes, now))
        return Done(job, settled=True)

    def _without_result(self, job: Job, report: Report) -> Done:
        self._metrics.pictures.labels(report.outcome.value).inc()
        if report.outcome in (Outcome.UNREST, Outcome.AWAY):
            log.debug("put off", path=job.path, seconds=round(report.wait_s, 1), detail=report.detail)
            rested = f"{report.identity}@{report.rest_s:g}" if report.identity else ""
            return Done(job, job._replace(rested=rested), report.wait_s)
        if report.outcome is Outcome.DAMAGED and report.identity:
            if self._store.remove_original(job.path, report.identity):
                self._metrics.damaged.inc()
                log.warning("damaged picture removed", path=job.path, detail=report.detail)
        elif report.outcome is Outcome.COPY and report.identity:
            if not self._statistics.is_first_removal(job.path):
                return Done(job, job._replace(rested=f"{report.identity}@{LEFT_ALONE}"), 0)
            if self._store.remove_original(job.path, report.identity):
                self._metrics.copies.inc()
                log.warning("copy of the original removed", path=job.path)
        elif report.outcome is Outcome.FULL:
            self._disk_full(report.detail)
            return Done(job, job, _FULL_PAUSE_S)
        elif report.outcome is Outcome.BROKEN:
            # Every picture would end as a dead letter. It counts as a try all the same: this one may be what
            # breaks the decoder of its worker.
            log.error("decoder broken", reason=report.detail)
            self._failed = True
            self._stopping.set()
            return self._worker_failed(job, Failure(report.detail, counts=True))
        return Done(job, settled=report.outcome is Outcome.GONE)

    def _worker_failed(self, job: Job, failure: Failure) -> Done:
        if not failure.counts:
            return Done(job, job, 1.0)
        tries = job.tries + 1
        self._metrics.failures.inc()
        log.warning("try failed", path=job.path, tries=tries, reason=failure.reason)
        if tries < self._config.queue.tries:
            return Done(job, job._replace(tries=tries), self._config.queue.retry_pause_s * 2**job.tries)
        if self._disk_problem:  # it has no room for the verdict
            return Done(job, job, _FULL_PAUSE_S)
        self._metrics.dead.inc()
        log.error("given up", path=job.path, tries=tries, reason=failure.reason)
        return Done(job._replace(tries=tries), dead=failure.reason, traceback=failure.traceback)

    def _give_up(self, job: Job, pictures: list[Picture]) -> None:
        """Publishes the verdict that keeps every later scan from trying a picture again; a new content makes
        it stale. It comes after the dead letter: killed in between, the next scan has it fail once more."""
        store = self._store_of(job.path)
        identity = store.identity_of(job.path)
        if not identity:
            return
        wanted = self._config.encoding.avif
        mark = Mark(identity.size, identity.mtime_ns, FAILED, avif=wanted)
        try:
            unfinished = store.write(b"", identity.mtime_ns)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._disk_full(str(error))
            return
        store.publish([Finished(job.path, identity, mark, job.event_ns, unfinished, KEEP)])
        pictures.append(Picture(job.path, mark, "", 0, time.time_ns()))
        if not self._jobs.is_dead(job.path):  # somebody was quick to put it back
            store.remove_failure(job.path)

    # The second pass

    def _refine_loop(self) -> None:
        self._refiner.run(self._stopping)

    def _idle(self) -> bool:
        """Whether nothing is to be done, as far as can be seen from here."""
        busy = self._fetched or len(self._pool) or self._publishing or self._scanning
        return not (busy or self._queue_problem or self._disk_problem)

    def _improved(self, outcome: str, report: Report | None) -> None:
        self._metrics.second.labels(outcome).inc()
        if report and report.finished:
            mark = report.finished.mark
            now = time.time_ns()
            self._metrics.published(mark.similarity)
            self._recent.converted(
                report.path, mark, report.format, report.variant_bytes, report.avif_bytes, again=True
            )
            self._statistics.remember([Picture(report.path, mark, report.format, report.variant_bytes, now)])

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
            receiver, sender = context().Pipe(duplex=False)
            process: BaseProcess = context().Process(
                target=scan_share, args=(self._config, share, shares, sender), daemon=True
            )
            process.start()
            sender.close()
            pipes.append(receiver)
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
        if not lost or len(self._pool) or self._publishing or not self._answers.empty() or self._refiner.busy:
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

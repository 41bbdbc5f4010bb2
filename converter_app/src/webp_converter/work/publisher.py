"""Publishes the workers' results where visitors find them, and reports each job's result to the queue.

One thread publishes, so that one wait for the disk serves a batch.
"""

from __future__ import annotations

import math
import queue
import sqlite3
import time

import redis

from webp_converter.base import log
from webp_converter.base.stopping import Stopping
from webp_converter.config import Config
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Done, Job, Jobs, Priority, Rest
from webp_converter.queue.outcome import Outcome
from webp_converter.queue.state import QueueState
from webp_converter.variants.disk import FULL_PAUSE_S, Disk
from webp_converter.variants.removals import Removals
from webp_converter.variants.statistics import Picture
from webp_converter.variants.store import FAILED, FULL, KEEP, WEBP, Finished, Mark, Result
from webp_converter.work.pool import Answered, Failure
from webp_converter.work.records import Records
from webp_converter.work.second_pass import SecondPass
from webp_converter.work.trees import Trees
from webp_converter.work.worker import LEFT_ALONE, Report

_PUBLISHED_AT_ONCE = 16
_GATHER_S = 0.05
_WAIT_S = 0.1
_CHANGED_PAUSE_S = 0.5


class Publisher:
    """Publishes what workers answer."""

    def __init__(
        self,
        config: Config,
        trees: Trees,
        jobs: Jobs,
        records: Records,
        answers: queue.SimpleQueue[Answered],
        in_hand: InHand,
        state: QueueState,
        disk: Disk,
        second_pass: SecondPass,
    ) -> None:
        """`answers` is what workers make of jobs."""
        self._config = config
        self._trees = trees
        self._jobs = jobs
        self._metrics, self._statistics, self._latest_jobs, self._origin = records
        self._answers = answers
        self._in_hand = in_hand
        self._state = state
        self._disk = disk
        self._second_pass = second_pass
        self._removals = Removals(config.store.temporary / "removed")
        self._is_broken = False

    def run(self, stopping: Stopping) -> None:
        """Publishes until `stopping` is set and nothing is left. Where no picture can be decoded any more, it
        has the daemon fail."""
        while not stopping.is_set() or not self._answers.empty():
            try:
                batch = list(self._answers.get(timeout=_WAIT_S))
            except queue.Empty:
                continue
            deadline = time.monotonic() + _GATHER_S
            while len(batch) < _PUBLISHED_AT_ONCE:
                # With jobs waiting, a full batch is worth a moment; otherwise nothing waits for company.
                left_s = max(0.0, deadline - time.monotonic()) if self._in_hand.waiting else 0.0
                try:
                    batch += self._answers.get(block=left_s > 0, timeout=left_s)
                except queue.Empty:
                    break
            self._publish(batch)
            if self._is_broken:
                stopping.fail()

    def _publish(self, batch: Answered) -> None:
        to_publish = [
            (job, answer, answer.finished)
            for job, answer in batch
            if isinstance(answer, Report) and answer.finished
        ]
        results = self._trees.publish([finished for _, _, finished in to_publish])
        for _, answer in batch:
            if isinstance(answer, Report) and self._trees.originals.holds(answer.path):
                self._origin.tried(answer.detail if answer.outcome is Outcome.AWAY else "")
        done: list[Done] = []
        pictures: list[Picture] = []
        for (job, report, finished), result in zip(to_publish, results, strict=True):
            done.append(self._published(job, report, finished, result, pictures))
        for job, answer in batch:
            if isinstance(answer, Failure):
                done.append(self._worker_failed(job, answer))
            elif not answer.finished:
                done.append(self._without_result(job, answer))
        lost: redis.RedisError | None = None
        try:
            if self._state.problem:
                raise redis.ConnectionError("it was away when pictures were done")
            self._jobs.finish(done)
            for given_up in done:
                if given_up.dead:
                    self._give_up(given_up.job, pictures)
        except redis.RedisError as error:
            lost = error
        finally:
            self._in_hand.finished(job for job, _ in batch)
        if lost:
            # They stay this consumer's unfinished entries; when they come up again they are found fresh. Told
            # once they are no longer in hand, as Redis may be back and be asked for them this very moment.
            self._state.lost(lost)
        self._statistics.remember(pictures)

    def _published(
        self, job: Job, report: Report, finished: Finished, result: Result, pictures: list[Picture]
    ) -> Done:
        if result is Result.CHANGED:
            self._metrics.pictures.labels("changed").inc()
            log.info("changed while converted", path=job.path)
            return Done(job, job._replace(tries=0, rest=None), _CHANGED_PAUSE_S)
        if result is Result.FULL:
            self._disk.full("no space left")
            return Done(job, job, FULL_PAUSE_S)
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
        self._latest_jobs.decided()
        if not job.rest and not job.tries and job.priority is Priority.NORMAL:
            self._metrics.latency.observe(latency_ms / 1000)
        if is_variant:
            self._second_pass.remember(job.path, mark)
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
            self._latest_jobs.converted(
                job.path, remembered, report.format, report.variant_bytes, report.avif_bytes
            )
        pictures.append(Picture(job.path, remembered, report.format, report.variant_bytes, now))
        return Done(job, settled=True)

    def _without_result(self, job: Job, report: Report) -> Done:
        self._metrics.pictures.labels(report.outcome.value).inc()
        if report.outcome in (Outcome.UNREST, Outcome.AWAY):
            log.debug("put off", path=job.path, seconds=round(report.wait_s, 1), detail=report.detail)
            rest = Rest(report.identity, report.rest_s) if report.identity else None
            return Done(job, job._replace(rest=rest), report.wait_s)
        if report.outcome is Outcome.DAMAGED and report.identity:
            try:
                is_first = self._removals.is_first(report.fingerprint)
            except sqlite3.OperationalError as error:
                log.warning("removal not noted", path=job.path, reason=str(error))
                return Done(job, job, FULL_PAUSE_S)
            if not is_first:
                self._metrics.returned.inc()
                log.sparing("damaged picture came back and stays", path=job.path, detail=report.detail)
                return Done(job, job._replace(rest=Rest(report.identity, LEFT_ALONE)), 0)
            if self._trees.resized.remove_original(job.path, report.identity):
                self._metrics.damaged.inc()
                log.sparing("damaged picture removed", path=job.path, detail=report.detail)
        elif report.outcome is Outcome.COPY and report.identity:
            if not self._statistics.is_first_removal(job.path):
                return Done(job, job._replace(rest=Rest(report.identity, LEFT_ALONE)), 0)
            if self._trees.resized.remove_original(job.path, report.identity):
                self._metrics.copies.inc()
                log.sparing("copy of the original removed", path=job.path)
        elif report.outcome is Outcome.FULL:
            self._disk.full(report.detail)
            return Done(job, job, FULL_PAUSE_S)
        elif report.outcome is Outcome.BROKEN:
            # Every picture would end as a dead letter. It counts as a try all the same: this one may be what
            # breaks the decoder of its worker.
            log.error("decoder broken", reason=report.detail)
            self._is_broken = True
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
        if self._disk.problem:  # it has no room for the verdict
            return Done(job, job, FULL_PAUSE_S)
        self._metrics.dead.inc()
        log.error("given up", path=job.path, tries=tries, reason=failure.reason)
        return Done(job._replace(tries=tries), dead=failure.reason, traceback=failure.traceback)

    def _give_up(self, job: Job, pictures: list[Picture]) -> None:
        """Publishes the verdict that keeps every later scan from trying a picture again; a new content makes
        it stale. It comes after the dead letter: killed in between, the next scan has it fail once more."""
        store = self._trees.of(job.path)
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
            self._disk.full(str(error))
            return
        store.publish([Finished(job.path, identity, mark, job.event_ns, unfinished, KEEP)])
        pictures.append(Picture(job.path, mark, "", 0, time.time_ns()))
        if not self._jobs.is_dead(job.path):  # somebody was quick to put it back
            store.remove_failure(job.path)

"""Converts pictures now, without the daemon and its queue: `webp-converter convert`."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator, Sequence
from typing import Any

from webp_converter.base.fact import Fact
from webp_converter.base.processes import start_fork_server
from webp_converter.config import Config
from webp_converter.events.scan import Tally, scan
from webp_converter.queue.jobs import Job
from webp_converter.queue.outcome import Outcome
from webp_converter.variants.store import WEBP, Mark, Result, Store, StoreError, Temporary, owner_of
from webp_converter.work.pool import Answered, Pool
from webp_converter.work.worker import Report


class Converted(Fact):
    """What became of one original."""

    path: str
    outcome: str
    """`webp`, `keep`, `fresh`, `foreign`, or why there is no decision."""

    decided: bool
    original_bytes: int = 0
    variant_bytes: int = 0
    verdict: str = ""
    """`q75` to `q100`, `q0` for lossless, or why the original is best; empty: nothing of ours is decided."""

    similarity: float | None = None
    """None where it was not measured."""

    encode_ms: int = 0
    avif_bytes: int = 0


def originals(config: Config, paths: Sequence[bytes]) -> Iterator[bytes]:
    """The files among `paths`, and the undecided originals in the directories among them."""
    extensions = frozenset(config.watch.extensions)
    for path in paths:
        if os.path.isdir(path):
            yield from scan(path.rstrip(b"/"), extensions, Tally(), avif=config.encoding.avif)
        else:
            yield path


def convert(config: Config, paths: Sequence[bytes]) -> Iterator[Converted]:
    """Converts and publishes; yields what became of each original as it is done.

    :raises StoreError: the store can't be worked with, or no worker can be started.
    """
    answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
    temporary = Temporary(config.store.temporary, owner_of(config))
    store = Store(config, temporary.path)
    start_fork_server()
    pool = Pool(config, temporary.path, answers.put)
    try:
        store.check()
        waiting = [Job(path, time.time_ns(), entry=str(number)) for number, path in enumerate(paths)]
        left = len(waiting)
        while left:
            if pool.problem or not pool.alive:
                raise StoreError(pool.problem or "the worker pool has failed")
            if waiting and (count := pool.wait_for_room(len(waiting), 0.01)):
                pool.submit(waiting[:count])
                del waiting[:count]
            try:
                answered = answers.get(timeout=0.01 if waiting else 0.5)
            except queue.Empty:
                continue
            for converted in _publish(store, answered):
                left -= 1
                yield converted
    finally:
        pool.close()
        temporary.close()


def _publish(store: Store, answered: Answered) -> Iterator[Converted]:
    reports = [answer for _, answer in answered if isinstance(answer, Report) and answer.finished]
    results = iter(store.publish([report.finished for report in reports if report.finished]))
    for job, answer in answered:
        if not isinstance(answer, Report):
            yield _converted(job.path, answer.reason, False)
        elif answer.finished is None:
            if answer.outcome is Outcome.FRESH and (found := store.mark_of(job.path)):
                mark, variant_bytes = found
                avif_bytes = store.avif_bytes_of(job.path)
                yield _converted(job.path, Outcome.FRESH.value, True, mark, variant_bytes or 0, avif_bytes)
                continue
            decided = answer.outcome in (Outcome.FRESH, Outcome.FOREIGN, Outcome.TOO_LONG)
            yield _converted(job.path, answer.detail or answer.outcome.value, decided)
        elif (result := next(results)) is not Result.PUBLISHED:
            yield _converted(job.path, result.name.lower(), result is Result.FOREIGN)
        else:
            mark, suffix = answer.finished.mark, answer.finished.suffix
            outcome = "webp" if suffix == WEBP else "keep"
            yield _converted(job.path, outcome, True, mark, answer.variant_bytes, answer.avif_bytes)


def _converted(
    path: bytes,
    outcome: str,
    decided: bool,
    mark: Mark | None = None,
    variant_bytes: int = 0,
    avif_bytes: int = 0,
) -> Converted:
    known: dict[str, Any] = (
        {}
        if mark is None
        else {
            "original_bytes": mark.size,
            "variant_bytes": variant_bytes,
            "verdict": mark.verdict,
            "similarity": mark.ssim,
            "encode_ms": mark.encode_ms,
            "avif_bytes": avif_bytes,
        }
    )
    return Converted(path=os.fsdecode(path), outcome=outcome, decided=decided, **known)

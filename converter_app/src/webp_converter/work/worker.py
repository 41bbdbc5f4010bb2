"""The work of a worker process: it reads an original, has it converted, and writes the result.

It never parses a stranger's bytes: its decoder does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

from webp_converter.base import linux
from webp_converter.base.bitrix import source_of
from webp_converter.base.sandbox import SandboxError
from webp_converter.config import Config
from webp_converter.picture import images
from webp_converter.queue.jobs import Rest
from webp_converter.queue.outcome import Outcome
from webp_converter.variants.originals import Originals, OriginAwayError
from webp_converter.variants.removals import fingerprint
from webp_converter.variants.store import (
    FULL,
    KEEP,
    WEBP,
    DecisionState,
    Finished,
    Identity,
    Mark,
    Original,
    Store,
    Unfinished,
)
from webp_converter.work.decoder import Answer, Decoder, LostError, PictureError, Task, described

_KEPT_BYTES = 64 * 1024 * 1024

_TOGETHER_BYTES = 1024 * 1024
"""What pictures may have that are handed to a decoder together."""

# A copy older than that many times the rest of damaged pictures wasn't left by a fault of just now.
_RECENT = 10


class Report(NamedTuple):
    """What a worker tells of one original."""

    outcome: Outcome
    path: bytes
    identity: Identity | None = None
    finished: Finished | None = None
    rest_s: float = 0
    """UNREST: how long it must be at rest."""

    wait_s: float = 0
    """UNREST: how much of that is left; AWAY: how long to wait."""

    detail: str = ""
    format: str = ""
    variant_bytes: int = 0
    encodes: int = 0
    avif_bytes: int = 0
    """0: there is no AVIF variant."""

    fingerprint: bytes = b""
    """DAMAGED: of the path and its bytes."""


class Order(NamedTuple):
    """What a worker is asked for."""

    path: bytes
    event_ns: int
    rest: Rest | None = None
    """What was seen of it."""

    second: bool = False
    """Whether its variant is to be made smaller: nothing else is done then."""


Conversion = Generator[Task, Answer, Report]
"""The way of one original, in which a decoder is asked: several can go it side by side."""


class Crash(str):
    """Why a conversion failed, of one with which its decoder was lost."""

    __slots__ = ()


_config: Config
_store: Store
_originals: Originals
_decoder: Decoder


def start(config: Config, temporary: bytes) -> None:
    """Prepares the process: limits, signals, settings, its decoder.

    :raises SandboxError: the decoder can't be sandboxed
    :raises OSError: it can't be started
    """
    global _config, _store, _originals, _decoder
    linux.die_with_parent()
    # A Python handler would have to wait for C code that hangs; the default action doesn't.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    linux.keep_freed_memory(_KEPT_BYTES)
    limit = config.workers.memory_limit_mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _config, _store = config, Store(config, temporary)
    _originals = Originals(config, temporary)
    workers = config.workers
    _decoder = Decoder(config.encoding, workers.time_limit_s, workers.sandbox == "required")
    _decoder.start()


def serve(
    config: Config,
    temporary: bytes,
    work: Callable[[Sequence[Order]], list[Report | str]],
    connection: Connection,
) -> None:
    """Answers tasks until the other end is closed. The first answer says that it is ready for them, and by
    what its decoder is locked up; or, in words, why it can't be."""
    try:
        start(config, temporary)
    except (SandboxError, OSError) as error:
        connection.send_bytes(pickle.dumps(str(error)))
        return
    connection.send_bytes(pickle.dumps(_decoder.layers))
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(pickle.dumps(work(connection.recv())))


def convert_all(orders: Sequence[Order]) -> list[Report | str]:
    """Converts originals as far as publishing, in order; for each its report, or why that failed, with the
    traceback below. Runs in a worker process after `start`."""
    reports: dict[int, Report | str] = {}
    waiting: list[tuple[int, Conversion, Task]] = []

    def advance(number: int, conversion: Conversion, proceed: Callable[[], Task]) -> None:
        try:
            waiting.append((number, conversion, proceed()))
        except StopIteration as end:
            reports[number] = end.value
        except Exception as error:  # whatever one picture does, the next is converted
            reports[number] = _failed(orders[number], error)

    for number, order in enumerate(orders):
        convert = improving if order.second else converting
        conversion = convert(_config, _store_of(order), order)
        advance(number, conversion, partial(next, conversion))
        is_last = number == len(orders) - 1
        while waiting and (is_last or sum(len(task.data) for _, _, task in waiting) > _TOGETHER_BYTES):
            asked, waiting[:] = list(waiting), []
            answers = _decoder.each([task for _, _, task in asked])
            for (which, one, _), answer in zip(asked, answers, strict=True):
                advance(which, one, partial(_proceed, one, answer))
    return [reports[number] for number in range(len(orders))]


def _proceed(conversion: Conversion, answer: Answer | Exception) -> Task:
    if isinstance(answer, Exception):
        return conversion.throw(answer)
    return conversion.send(answer)


def _failed(order: Order, error: Exception) -> Report | str:
    if isinstance(error, OriginAwayError):
        return Report(Outcome.AWAY, order.path, wait_s=_config.originals.retry_s, detail=str(error))
    if isinstance(error, images.DecoderError):
        return Report(Outcome.BROKEN, order.path, detail=str(error))
    if isinstance(error, LostError):
        return Crash(error)
    return str(error) if isinstance(error, PictureError) else described(error)


def _store_of(order: Order) -> Store:
    return _originals if _originals.holds(order.path) else _store


def converting(config: Config, store: Store, order: Order) -> Conversion:
    """Converts one original as far as publishing."""
    started = time.monotonic()
    path = order.path
    state = store.decision_state_of(path)
    if state is None:
        return Report(Outcome.GONE, path)
    if state is DecisionState.FRESH:
        return Report(Outcome.FRESH, path)
    if state is DecisionState.FOREIGN:
        return Report(Outcome.FOREIGN, path)
    if state is DecisionState.TOO_LONG:
        return Report(Outcome.TOO_LONG, path)
    try:
        original = store.read(path, config.encoding.maximum_bytes)
    except BlockingIOError:
        return Report(Outcome.UNREST, path, rest_s=1, wait_s=1, detail="changed while it was read")
    if original is None:
        return Report(Outcome.GONE, path)
    identity = Identity.of(original.status)
    age = _Age(order, identity, original.status)
    box = store.box_of(path)
    decision: images.Variant | images.Keep | images.DamagedError | None
    answer, before_s = Answer(), 0.0
    if original.status.st_size > config.encoding.maximum_bytes:
        decision = images.Keep(images.Reason.TOO_LARGE, f"{original.status.st_size} bytes")
    else:
        before_s = time.monotonic() - started
        answer = yield Task(original.data, box)
        if answer.header and answer.decision is None:
            needed = config.watch.intermediate_rest_s
            if wait := age.lacks(needed):
                detail = f"{answer.header.width}x{answer.header.height} is larger than its box"
                return Report(Outcome.UNREST, path, identity, rest_s=needed, wait_s=wait, detail=detail)
            if copy := _copy(config, path, original, age):
                return copy
            answer = yield Task(original.data)
        decision = answer.decision
    if isinstance(decision, images.DamagedError):
        needed = config.watch.damaged_rest_s
        if wait := age.lacks(needed):
            return Report(Outcome.UNREST, path, identity, rest_s=needed, wait_s=wait, detail=str(decision))
        if box and not age.is_over_for_good:
            known = fingerprint(path, original.data)
            return Report(Outcome.DAMAGED, path, identity, detail=str(decision), fingerprint=known)
        decision = images.Keep(images.Reason.DAMAGED, str(decision))
    if decision is None:
        raise LostError("decoder answered wrongly: no decision")
    form = answer.header.format if answer.header else ""

    encode_ms = round((before_s + answer.seconds) * 1000)
    mark = Mark(identity.size, identity.mtime_ns, "", encode_ms=encode_ms, avif=config.encoding.avif)
    try:
        return _finished(store, order, identity, decision, mark, form)
    except OSError as error:
        if error.errno in FULL:
            return Report(Outcome.FULL, path, detail=str(error))
        raise


def _copy(config: Config, path: bytes, original: Original, age: _Age) -> Report | None:
    """What to do about a picture larger than its box that may be the full original; None: convert it.

    PHP takes a picture for made when its mount goes away after the full original was copied and before it was
    decoded, and never looks at it again.
    """
    watch = config.watch
    if not watch.remove_copies or not age.is_recent(_RECENT * watch.damaged_rest_s):
        return None
    identity = Identity.of(original.status)
    seen_s, wait_s = watch.intermediate_rest_s, watch.damaged_rest_s
    try:
        if not _originals.is_copied(source_of(os.path.relpath(path, _store.root)), original.data):
            return None
    except OriginAwayError as error:
        return Report(Outcome.UNREST, path, identity, rest_s=seen_s, wait_s=wait_s, detail=str(error))
    detail = "the full original under the name of a resized picture"
    if left_s := age.lacks(wait_s):
        return Report(Outcome.UNREST, path, identity, rest_s=wait_s, wait_s=left_s, detail=detail)
    return Report(Outcome.COPY, path, identity, detail=detail)


def improving(config: Config, store: Store, order: Order) -> Conversion:
    """Encodes an original once more, with the method of the second pass, if it has a variant with loss; there
    is something to publish when that became smaller."""
    started = time.monotonic()
    path = order.path
    known = store.mark_of(path) if store.decision_state_of(path) is DecisionState.FRESH else None
    original = store.read(path, config.encoding.maximum_bytes) if known and known[0].is_lossy else None
    if known is None or original is None or not known[0].describes(original.status):
        return Report(Outcome.GONE, path)
    mark, before_bytes = known
    before_s = time.monotonic() - started
    header, decision, seconds = yield Task(original.data, second=True)
    if isinstance(decision, images.DamagedError):
        raise decision
    if not isinstance(decision, images.Variant) or len(decision.data) >= (before_bytes or 0):
        return Report(Outcome.AS_GOOD, path)
    identity = Identity.of(original.status)
    mark = mark._replace(
        verdict=f"q{decision.quality}",
        similarity=decision.similarity,
        encode_ms=round((before_s + seconds) * 1000),
    )
    temporary = store.write(decision.data, identity.mtime_ns)
    avif_bytes = store.avif_bytes_of(path)
    return Report(
        Outcome.FINISHED,
        path,
        identity,
        Finished(path, identity, mark, order.event_ns, temporary, WEBP, second=True),
        detail=f"{before_bytes} bytes before",
        format=header.format if header else "",
        variant_bytes=len(decision.data),
        encodes=decision.encodes,
        avif_bytes=avif_bytes if avif_bytes < len(decision.data) else 0,
    )


def _finished(
    store: Store,
    order: Order,
    identity: Identity,
    decision: images.Variant | images.Keep,
    mark: Mark,
    form: str,
) -> Report:
    if isinstance(decision, images.Variant):
        data, suffix, detail, encodes = decision.data, WEBP, "", decision.encodes
        mark = mark._replace(verdict=f"q{decision.quality}", similarity=decision.similarity)
    else:
        data, suffix, detail, encodes = b"", KEEP, decision.detail, 0
        mark = mark._replace(verdict=decision.reason.value)
    avif = None
    if decision.avif:
        beside = mark._replace(verdict=f"q{decision.avif.quality}", similarity=decision.avif.similarity)
        avif = Unfinished(beside, store.write(decision.avif.data, identity.mtime_ns))
        encodes += decision.avif.encodes
    is_damaged = mark.verdict == images.Reason.DAMAGED.value
    temporary = store.write(data, identity.mtime_ns, for_long=not is_damaged)
    return Report(
        Outcome.FINISHED,
        order.path,
        identity,
        Finished(order.path, identity, mark, order.event_ns, temporary, suffix, avif),
        detail=detail,
        format=form,
        variant_bytes=len(data),
        encodes=encodes,
        avif_bytes=len(decision.avif.data) if decision.avif else 0,
    )


LEFT_ALONE = float("inf")
"""Rest of a picture that is to be converted as it is."""


class _Age:
    """How long an original has been left alone."""

    def __init__(self, order: Order, identity: Identity, status: os.stat_result) -> None:
        # Change time is set by this host's clock, whatever the writer sets.
        self._age_s = time.time() - status.st_ctime
        self._written_s = time.time() - status.st_mtime
        # A clock set back would make a file look young for long; what was seen at rest needs no clock.
        seen = order.rest
        self._seen_s = seen.seconds if seen and seen.identity == identity else 0.0

    def lacks(self, needed_s: float) -> float:
        """Seconds still missing to a rest of `needed_s`; 0 when it is over."""
        if self._seen_s >= needed_s or self._age_s >= needed_s:
            return 0.0
        return min(needed_s, max(0.05, needed_s - max(0.0, self._age_s)))

    @property
    def is_over_for_good(self) -> bool:
        """Whether it is to be left as it is, whatever it is."""
        return self._seen_s == LEFT_ALONE

    def is_recent(self, seconds: float) -> bool:
        """Whether it was written within that time, and is still to be looked at."""
        return self._written_s < seconds and not self.is_over_for_good

"""What a worker process does: reads one original, has it converted, writes the result to be published."""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from webp_converter import images, linux
from webp_converter.bitrix import box_of
from webp_converter.config import Config
from webp_converter.originals import Originals, OriginAwayError
from webp_converter.store import FULL, KEEP, WEBP, Finished, Identity, Mark, Standing, Store

_TRACEBACK_CHARACTERS = 8000


class Outcome(StrEnum):
    """What a worker found."""

    FINISHED = "finished"
    """There is something to publish."""

    FRESH = "fresh"
    """A decision was there already."""

    FOREIGN = "foreign"
    """Somebody else's variant was there already."""

    GONE = "gone"
    """There is no such original any more."""

    UNREST = "unrest"
    """Too early to tell: it must have been at rest for a time first."""

    DAMAGED = "damaged"
    """A resized picture that can't be decoded, long at rest: Bitrix shall make it again."""

    FULL = "full"
    """No space left for the result."""


class Report(NamedTuple):
    """What a worker tells of one original."""

    outcome: Outcome
    path: bytes
    identity: Identity | None = None
    finished: Finished | None = None
    rest_s: float = 0
    """UNREST: how long it must be at rest."""

    wait_s: float = 0
    """UNREST: how much of that is left."""

    detail: str = ""
    format: str = ""
    variant_bytes: int = 0
    encodes: int = 0


class Order(NamedTuple):
    """What a worker is asked for."""

    path: bytes
    event_ns: int
    rested: str = ""
    """`<identity>@<seconds>`: seen to be at rest that long."""


_config: Config
_store: Store
_originals: Originals


def start(config: Config, temporary: bytes) -> None:
    """Prepares the process: limits, signals, settings."""
    global _config, _store, _originals
    linux.die_with_parent()
    # A Python handler would have to wait for C code that hangs; the default action doesn't.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit = config.workers.memory_limit_mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _config, _store = config, Store(config, temporary)
    _originals = Originals(config, temporary)


def convert_all(orders: Sequence[Order]) -> list[Report | str]:
    """Converts originals as far as publishing, in order; for each its report, or why that failed, with the
    traceback below. Runs in a worker process after `start`."""
    reports: list[Report | str] = []
    for order in orders:
        try:
            reports.append(convert_with(_config, _store_of(order), order))
        except OriginAwayError as error:
            wait_s = _config.originals.retry_s
            reports.append(Report(Outcome.UNREST, order.path, wait_s=wait_s, detail=str(error)))
        except Exception as error:  # whatever one picture does, the next is converted
            reports.append(_told(error))
    return reports


def _told(error: Exception) -> str:
    """The reason on one line, and the traceback below it."""
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    try:
        return f"{reason}\n{traceback.format_exc(limit=20)[-_TRACEBACK_CHARACTERS:]}"
    except MemoryError:
        return reason


def _store_of(order: Order) -> Store:
    return _originals if _originals.holds(order.path) else _store


def convert_with(config: Config, store: Store, order: Order) -> Report:
    """Converts one original as far as publishing."""
    started = time.monotonic()
    path = order.path
    standing = store.standing_of(path)
    if standing is None:
        return Report(Outcome.GONE, path)
    if standing is Standing.FRESH:
        return Report(Outcome.FRESH, path)
    if standing is Standing.FOREIGN:
        return Report(Outcome.FOREIGN, path)
    try:
        original = store.read(path, config.encoding.maximum_bytes)
    except BlockingIOError:
        return Report(Outcome.UNREST, path, rest_s=1, wait_s=1, detail="changed while it was read")
    if original is None:
        return Report(Outcome.GONE, path)
    identity = Identity.of(original.status)
    rest = _Rest(order, identity, original.status)
    box = box_of(path)

    decision: images.Variant | images.Keep
    header: images.Header | images.Keep | None = None
    try:
        if original.status.st_size > config.encoding.maximum_bytes:
            decision = images.Keep(images.Reason.TOO_LARGE, f"{original.status.st_size} bytes")
        else:
            header = images.inspect(original.data)
            if isinstance(header, images.Header) and box and not box.holds(header.width, header.height):
                needed = config.watch.intermediate_rest_s
                if wait := rest.lacks(needed):
                    detail = f"{header.width}x{header.height} is larger than its box"
                    return Report(Outcome.UNREST, path, identity, rest_s=needed, wait_s=wait, detail=detail)
            decision = images.convert(original.data, config.encoding)
    except images.DamagedError as error:
        needed = config.watch.damaged_rest_s
        if wait := rest.lacks(needed):
            return Report(Outcome.UNREST, path, identity, rest_s=needed, wait_s=wait, detail=str(error))
        if box:
            return Report(Outcome.DAMAGED, path, identity, detail=str(error))
        decision = images.Keep(images.Reason.DAMAGED, str(error))

    encode_ms = round((time.monotonic() - started) * 1000)
    try:
        return _finished(store, order, identity, decision, header, encode_ms)
    except OSError as error:
        if error.errno in FULL:
            return Report(Outcome.FULL, path, detail=str(error))
        raise


def _finished(
    store: Store,
    order: Order,
    identity: Identity,
    decision: images.Variant | images.Keep,
    header: images.Header | images.Keep | None,
    encode_ms: int,
) -> Report:
    mark = Mark(identity.size, identity.mtime_ns, "", encode_ms=encode_ms)
    if isinstance(decision, images.Variant):
        data, suffix, detail, encodes = decision.data, WEBP, "", decision.encodes
        mark = mark._replace(verdict=f"q{decision.quality}", similarity=decision.similarity)
    else:
        data, suffix, detail, encodes = b"", KEEP, decision.detail, 0
        mark = mark._replace(verdict=decision.reason.value)
    return Report(
        Outcome.FINISHED,
        order.path,
        identity,
        Finished(order.path, identity, mark, order.event_ns, store.write(data, identity.mtime_ns), suffix),
        detail=detail,
        format=header.format if isinstance(header, images.Header) else "",
        variant_bytes=len(data),
        encodes=encodes,
    )


class _Rest:
    """How long an original has been left alone."""

    def __init__(self, order: Order, identity: Identity, status: os.stat_result) -> None:
        # Change time is set by this host's clock, whatever the writer sets.
        self._age_s = time.time() - status.st_ctime
        # A clock set back would make a file look young for long; what was seen at rest needs no clock.
        seen, _, seconds = order.rested.partition("@")
        self._seen_s = float(seconds) if seen == str(identity) else 0.0

    def lacks(self, needed_s: float) -> float:
        """Seconds still missing to a rest of `needed_s`; 0 when it is over."""
        if self._seen_s >= needed_s or self._age_s >= needed_s:
            return 0.0
        return min(needed_s, max(0.05, needed_s - max(0.0, self._age_s)))

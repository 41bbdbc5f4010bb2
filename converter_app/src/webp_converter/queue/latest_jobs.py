"""The latest conversions and their rate: in memory, since the daemon's start."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque

from pydantic import Field

from webp_converter.base.fact import Fact
from webp_converter.variants.store import Mark

REMEMBERED = 1000
"""Conversions at most. A page shows a dozen: while many come, what it shows can still be asked for."""

_SLICE_S = 5
_HOUR_S = 3600


class Conversion(Fact):
    """A variant that was published."""

    id: str
    """By which `/pictures/{id}/before`, `/pictures/{id}/webp` and, where there is one, `/pictures/{id}/avif`
    answer with the pictures, as long as they are what they were."""

    path: str
    format: str
    """Of the original."""

    original_bytes: int
    variant_bytes: int
    avif_bytes: int | None
    """None: there is no AVIF variant."""

    verdict: str
    """`q75` to `q100`, `q0` for lossless."""

    ssim: float | None
    """Structural similarity of the variant to the original."""

    encode_ms: int
    latency_ms: int
    published_at: float
    """Unix time."""

    original_mtime_ns: int = Field(default=0, exclude=True)
    """Not told: by this and `original_bytes` a picture is known as the one that was converted."""


class Rate:
    """Counts what happens, an hour back, in slices of five seconds."""

    def __init__(self) -> None:
        self._slices: deque[tuple[int, int]] = deque()

    def add(self, now: float) -> None:
        """`now`: seconds of a clock that only goes forward."""
        place = int(now // _SLICE_S)
        count = 1
        if self._slices and self._slices[-1][0] == place:
            count += self._slices.pop()[1]
        self._slices.append((place, count))
        while (place - self._slices[0][0]) * _SLICE_S > _HOUR_S:
            self._slices.popleft()

    def within(self, seconds: float, now: float) -> int:
        """How many there were in the last `seconds` (up to 3600), to the slice."""
        first = (now - seconds) // _SLICE_S
        return sum(count for place, count in self._slices if place > first)


class LatestJobs:
    """Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: dict[str, Conversion] = {}
        self._paths: dict[str, str] = {}
        self._rate = Rate()

    def decided(self) -> None:
        """Counts a decision about a picture, whatever it was."""
        with self._lock:
            self._rate.add(time.monotonic())

    def converted(
        self, path: bytes, mark: Mark, form: str, variant_bytes: int, avif_bytes: int, again: bool = False
    ) -> None:
        """Takes note of a variant that was just published; with `again` of a smaller one in its place, which
        doesn't make it newer, and what is forgotten stays so."""
        shown = os.fsdecode(path)
        made = Conversion(
            id=secrets.token_hex(8),  # it says nothing of the path
            path=shown,
            format=form,
            original_bytes=mark.size,
            variant_bytes=variant_bytes,
            avif_bytes=avif_bytes or None,
            verdict=mark.verdict,
            ssim=mark.ssim,
            encode_ms=mark.encode_ms,
            latency_ms=mark.latency_ms,
            published_at=time.time(),
            original_mtime_ns=mark.mtime_ns,
        )
        with self._lock:
            before = self._by_path.get(shown)
            if again and before is None:
                return
            if before:
                del self._paths[before.id]
                if again:
                    made.published_at = before.published_at
                else:
                    del self._by_path[shown]
            self._by_path[shown] = made
            self._paths[made.id] = shown
            if len(self._by_path) > REMEMBERED:
                oldest = next(iter(self._by_path.values()))
                del self._by_path[oldest.path], self._paths[oldest.id]

    def forget(self, path: bytes) -> None:
        """Forgets a picture whose variant is no longer there."""
        with self._lock:
            if conversion := self._by_path.pop(os.fsdecode(path), None):
                del self._paths[conversion.id]

    def latest(self, count: int) -> list[Conversion]:
        """Up to `count` conversions, the latest first."""
        with self._lock:
            paths = reversed(self._by_path.values())
            return [conversion for _, conversion in zip(range(count), paths, strict=False)]

    def find(self, id: str) -> Conversion | None:
        """The conversion of an id; None: it is forgotten, or there is a newer one of that picture."""
        with self._lock:
            path = self._paths.get(id)
            return None if path is None else self._by_path[path]

    def rates(self) -> tuple[int, int]:
        """Decisions within the last minute, and within the last hour."""
        now = time.monotonic()
        with self._lock:
            return self._rate.within(60, now), self._rate.within(_HOUR_S, now)

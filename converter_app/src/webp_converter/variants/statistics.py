"""Statistics, in the Redis instance that may evict keys.

What the numbers mean:

- Each picture counts once, by its path, as what its latest decision was: converted, kept (the original is
  best) or failed (given up). A picture that is converted again, because it was rewritten, encoded better or
  came back after an eviction, replaces its own entry; one that is removed takes its part of the sums along.
- An evicted picture stays what it was: what it saves its visitors was saved. What eviction removed is counted
  for itself.
- The sums of bytes are those of converted pictures alone: there `saved` is what variants spare.
- A day's numbers are the work of that day, in UTC: there each decision counts, also a repeated one.

A picture takes some 80 bytes, since those of one bucket share a hash that Redis keeps packed; a bucket is
what Redis forgets at once. Then its pictures count once more when they are decided again. The sums themselves
are touched all the time, since Redis forgets what was not used for longest; and as it compares only a few
keys, to the second, there is a spare of them. It isn't noticed when an original goes whose variants were
evicted, while the daemon is away: it stays counted.

One script makes all changes of a batch, so that the sums and the entries always agree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, Self

import redis
from pydantic import Field, model_validator

from webp_converter.base.fact import Fact
from webp_converter.base.redis_client import connection
from webp_converter.config import Cache
from webp_converter.variants.eviction import Eviction
from webp_converter.variants.store import Mark

_PAUSE_S = 2.0
_BUCKETS = 1 << 14
_UNKNOWN = "-"
_SUMS = ("converted", "kept", "failed", "original_bytes", "variant_bytes")
_LATENCY_MS = 999_999_999

_SHARED = """
local totals, days = KEYS[1], KEYS[2]
local prefix, now, today, oldest = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local sums, work = {}, {}

-- Redis may forget one key or the other, hardly both between two batches.
for i = 1, 2 do
  if redis.call('EXISTS', KEYS[i]) == 0 then redis.call('COPY', KEYS[i + 2], KEYS[i]) end
  if redis.call('EXISTS', KEYS[i + 2]) == 0 then redis.call('COPY', KEYS[i], KEYS[i + 2]) end
end
redis.call('HSETNX', totals, 'since', now)
redis.call('HSETNX', KEYS[3], 'since', now)
local since = tonumber(redis.call('HGET', totals, 'since'))

local function add(to, name, number)
  to[name] = (to[name] or 0) + number
end

local function count(value, sign, to)
  local verdict, format, size, variant, at = string.match(value, '^(%S+) (%S+) (%d+) (%d+) .* (%d+)$')
  if not at or (sign < 0 and tonumber(at) < since) then return end
  local kind = 'kept'
  if verdict == 'failed' then kind = 'failed' end
  if tonumber(variant) > 0 then kind = 'converted' end
  add(to, kind, sign)
  if to == sums then add(to, format .. ':' .. kind, sign) end
  if kind == 'converted' then
    add(to, 'original_bytes', sign * size)
    add(to, 'variant_bytes', sign * variant)
    if to == sums then
      add(to, format .. ':original_bytes', sign * size)
      add(to, format .. ':variant_bytes', sign * variant)
    end
  end
end

local function finish()
  local is_new = redis.call('HEXISTS', days, today .. ':decisions') == 0
  for copy = 0, 2, 2 do
    for name, number in pairs(sums) do
      if number ~= 0 then redis.call('HINCRBY', KEYS[1 + copy], name, string.format('%.0f', number)) end
    end
    for name, number in pairs(work) do
      redis.call('HINCRBY', KEYS[2 + copy], today .. ':' .. name, string.format('%.0f', number))
    end
    if is_new then
      for _, name in ipairs(redis.call('HKEYS', KEYS[2 + copy])) do
        if name < oldest then redis.call('HDEL', KEYS[2 + copy], name) end
      end
    end
  end
end
"""

_REMEMBER = (
    _SHARED
    + """
for i = 5, #ARGV, 3 do
  local bucket = prefix .. ARGV[i]
  local known = redis.call('HGET', bucket, ARGV[i + 1])
  if known then
    count(known, -1, sums)
    add(work, 'again', 1)
  end
  redis.call('HSET', bucket, ARGV[i + 1], ARGV[i + 2])
  count(ARGV[i + 2], 1, sums)
  count(ARGV[i + 2], 1, work)
  add(work, 'decisions', 1)
end
finish()
"""
)

_FORGET = (
    _SHARED
    + """
for i = 5, #ARGV, 2 do
  local bucket = prefix .. ARGV[i]
  local known = redis.call('HGET', bucket, ARGV[i + 1])
  if known then
    count(known, -1, sums)
    redis.call('HDEL', bucket, ARGV[i + 1])
  end
end
finish()
"""
)

_EVICTED = (
    _SHARED
    + """
for _, to in ipairs({sums, work}) do
  add(to, 'evicted', tonumber(ARGV[5]))
  add(to, 'evicted_bytes', tonumber(ARGV[6]))
end
finish()
"""
)


class Picture(NamedTuple):
    """One decision, as it is remembered."""

    path: bytes
    mark: Mark
    """As it is in the file: sizes, verdict, similarity, latency, time."""

    format: str
    """Of the original; empty: it isn't known."""

    variant_bytes: int
    """0: the original is best."""

    published_ns: int
    """Wall clock time."""

    def pack(self) -> bytes:
        """As it is kept: at most 64 bytes, or Redis no longer packs the hash that it lies in."""
        mark = self.mark
        similarity = _UNKNOWN if math.isnan(mark.similarity) else f"{mark.similarity:.4f}"
        text = (
            f"{mark.verdict} {self.format or _UNKNOWN} {mark.size} {self.variant_bytes} {similarity} "
            f"{min(mark.latency_ms, _LATENCY_MS)} {mark.encode_ms} {self.published_ns // 1_000_000_000}"
        )
        return text.encode("ascii")


class Known(Fact):
    """What is remembered of a picture."""

    verdict: str = ""
    """`q75` to `q100`, `q0` for lossless, or why the original is best."""

    format: str | None = None
    """Of the original, where it is known."""

    original_bytes: int | None = None
    variant_bytes: int | None = None
    """None: the original is best."""

    ssim: float | None = None
    """Structural similarity of the variant to the original."""

    encode_ms: int | None = None
    """Decoding, judging and encoding."""

    latency_ms: int | None = None
    """From close-write to published."""

    @classmethod
    def parse(cls, text: bytes) -> Known | None:
        """None for what this version didn't write."""
        try:
            verdict, form, size, variant, ssim, latency, encode, _ = text.decode("ascii").split(" ")
            return cls(
                verdict=verdict,
                format=None if form == _UNKNOWN else form,
                original_bytes=int(size),
                variant_bytes=int(variant) or None,
                ssim=None if ssim == _UNKNOWN else float(ssim),
                encode_ms=int(encode),
                latency_ms=int(latency),
            )
        except ValueError:
            return None


class Sums(Fact):
    """Pictures, each counted once as what its latest decision was, and bytes of the converted ones."""

    converted: int = 0
    kept: int = 0
    """The original is best."""

    failed: int = 0
    """Given up."""

    original_bytes: int = 0
    variant_bytes: int = 0
    saved_bytes: int = 0
    success_rate: float | None = None
    """Converted and kept among all; None when there are none."""

    @model_validator(mode="after")
    def _follow(self) -> Self:
        """Fills in what follows from the rest."""
        decided = self.converted + self.kept + self.failed
        self.saved_bytes = self.original_bytes - self.variant_bytes
        self.success_rate = (self.converted + self.kept) / decided if decided else None
        return self


class Day(Sums):
    """The work of one day, in UTC: each decision counts, also a repeated one."""

    decisions: int = 0
    again: int = 0
    """Decisions about pictures that were decided before."""

    evicted: int = 0
    """Variants that were removed because they were not read."""

    evicted_bytes: int = 0


class Totals(Sums):
    """All that is counted."""

    since: int = 0
    """Unix time at which counting began, or began again after Redis lost the sums; 0: nothing was counted."""

    evicted: int = 0
    evicted_bytes: int = 0
    formats: dict[str, Sums] = Field(default_factory=dict)
    """By format of the original; `-`: not known."""

    days: dict[str, Day] = Field(default_factory=dict)
    """By date, the latest first."""


class Statistics:
    """Writes and reads them. Nothing depends on them: while Redis is away they are dropped."""

    def __init__(self, config: Cache) -> None:
        self._redis = connection(config.url, config.user, config.password_file, answer_s=1, connect_s=1)
        self._days = config.days
        self._prefix = f"{config.prefix}:pictures:"
        names = ("totals", "days", "totals:spare", "days:spare")
        self._keys = [f"{config.prefix}:{name}" for name in names]
        self._remember = self._redis.register_script(_REMEMBER)
        self._forget = self._redis.register_script(_FORGET)
        self._evicted = self._redis.register_script(_EVICTED)
        self._away_until = 0.0
        self.available = True

    def remember(self, pictures: Sequence[Picture]) -> None:
        """Counts decisions, in one step for all of them."""
        if pictures:
            arguments: list[str | bytes | int] = []
            for picture in pictures:
                bucket, name = _place(picture.path)
                arguments += (bucket, name, picture.pack())
            self._run(self._remember, arguments)

    def forget(self, paths: Iterable[bytes]) -> None:
        """Takes pictures that are gone out of the sums."""
        arguments: list[str | bytes | int] = []
        for path in paths:
            arguments += _place(path)
        if arguments:
            self._run(self._forget, arguments)

    def evicted(self, eviction: Eviction) -> None:
        """Counts what an eviction removed."""
        files = sum(count.files for count in eviction.evicted.values())
        if files:
            self._run(self._evicted, [files, sum(count.bytes for count in eviction.evicted.values())])

    def is_first_removal(self, path: bytes) -> bool:
        """Whether no original was removed under this name for `cache.days`, as far as is remembered; from now
        on one was. False while the cache is away."""
        try:
            key = f"{self._prefix}removed:".encode() + path
            return bool(self._redis.set(key, b"", nx=True, ex=self._days * 86_400))
        except redis.RedisError:
            self._lost()
            return False

    def _run(self, script: Any, arguments: list[str | bytes | int]) -> None:
        if time.monotonic() < self._away_until:
            return
        now = datetime.now(UTC)
        oldest = now.date() - timedelta(days=self._days - 1)
        head = [self._prefix, int(now.timestamp()), now.date().isoformat(), oldest.isoformat()]
        try:
            script(keys=self._keys, args=head + arguments)
            self.available = True
        except redis.RedisError:
            self._lost()

    def check(self) -> bool:
        """Whether the cache answers. Call it regularly: it also keeps the sums from being forgotten."""
        if time.monotonic() >= self._away_until:
            try:
                self._redis.touch(*self._keys)
                self.available = True
            except redis.RedisError:
                self._lost()
        return self.available

    def picture(self, path: bytes) -> Known | None:
        """What is remembered of a picture; None when nothing is."""
        bucket, name = _place(path)
        try:
            text: Any = self._redis.hget(f"{self._prefix}{bucket}", name)
        except redis.RedisError:
            return None
        return Known.parse(text) if text else None

    def totals(self, days: int = 0) -> Totals:
        """The sums, and the last `days` days one by one.

        :raises redis.RedisError: Redis is away.
        """
        pipe = self._redis.pipeline(transaction=True)
        for key in self._keys:
            pipe.hgetall(key)
        reply: Any = pipe.execute()
        pairs = (reply[0] or reply[2], reply[1] or reply[3])
        totals, by_day = ({key.decode(): int(value) for key, value in part.items()} for part in pairs)
        formats: dict[str, dict[str, int]] = {}
        for key, number in totals.items():
            form, colon, name = key.rpartition(":")
            if colon and name in _SUMS:
                formats.setdefault(form, {})[name] = number
        dates: dict[str, dict[str, int]] = {}
        for key, number in by_day.items():
            date, _, name = key.partition(":")
            if name in Day.model_fields:
                dates.setdefault(date, {})[name] = number
        return Totals(
            **{name: totals.get(name, 0) for name in ("since", *_SUMS, "evicted", "evicted_bytes")},
            formats={form: Sums(**sums) for form, sums in sorted(formats.items()) if any(sums.values())},
            days={date: Day(**dates[date]) for date in sorted(dates, reverse=True)[:days]},
        )

    def _lost(self) -> None:
        self.available = False
        self._away_until = time.monotonic() + _PAUSE_S

    def close(self) -> None:
        self._redis.close()


def _place(path: bytes) -> tuple[int, bytes]:
    """Bucket and name of a picture. Of a million pictures, two share a name with a chance of 1 in 10^7."""
    digest = blake2b(path, digest_size=8).digest()
    return int.from_bytes(digest[:2], "big") % _BUCKETS, digest

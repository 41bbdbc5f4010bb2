"""What is known of each picture, in the Redis instance that may forget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from webp_converter.config import Cache

_PAUSE_S = 2.0


class Picture(NamedTuple):
    """One decision, as it is remembered."""

    path: bytes
    mark: bytes
    """As it is in the file: sizes, verdict, similarity, latency, time."""

    format: str
    variant_bytes: int
    """0: the original is best."""

    published_ns: int
    """Wall clock time."""

    avif_bytes: int = 0
    """0: there is no AVIF variant."""


class Statistics:
    """Writes and reads them. Nothing depends on them: while Redis is away they are dropped."""

    def __init__(self, config: Cache) -> None:
        self._redis = redis.Redis.from_url(
            config.url, retry=Retry(NoBackoff(), 0), socket_timeout=1, socket_connect_timeout=1
        )
        self._prefix = f"{config.prefix}:picture:".encode()
        self._away_until = 0.0
        self.available = True

    def remember(self, pictures: Sequence[Picture]) -> None:
        if not pictures or time.monotonic() < self._away_until:
            return
        pipe = self._redis.pipeline(transaction=False)
        for picture in pictures:
            fields: dict[Any, Any] = picture._asdict()
            path = fields.pop("path")
            pipe.hset(self._prefix + path, mapping=fields)
        try:
            pipe.execute()
            self.available = True
        except redis.RedisError:
            self._lost()

    def check(self) -> bool:
        """Whether the cache answers."""
        if time.monotonic() >= self._away_until:
            try:
                self._redis.ping()
                self.available = True
            except redis.RedisError:
                self._lost()
        return self.available

    def picture(self, path: bytes) -> dict[str, str] | None:
        """What is remembered of a picture; None when nothing is."""
        try:
            fields: dict[Any, Any] = self._redis.hgetall(self._prefix + path)
        except redis.RedisError:
            return None
        return {key.decode(): value.decode() for key, value in fields.items()} or None

    def _lost(self) -> None:
        self.available = False
        self._away_until = time.monotonic() + _PAUSE_S

    def close(self) -> None:
        self._redis.close()

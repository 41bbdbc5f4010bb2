"""The queries and actions that the command line and the HTTP API have in common.

It works on the trees and on Redis, and needs no running daemon.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from webp_converter.base.fact import Fact
from webp_converter.base.names import TOO_LONG, has_room, is_original, is_variant
from webp_converter.config import DEFAULT_FILE, Config
from webp_converter.queue.jobs import Job, Jobs, Letter, LetterSummary, Overview, Priority
from webp_converter.queue.latest_jobs import Conversion
from webp_converter.variants.originals import Originals
from webp_converter.variants.statistics import Known, Statistics, Totals
from webp_converter.variants.store import DecisionState, Identity, Store, is_evicted

if TYPE_CHECKING:
    from webp_converter.api.models import Explanation


class Picture(Known):
    """What is known of one original."""

    path: str
    evicted: bool
    """Whether its variants were removed because they were not read; they are made again on request."""

    avif_bytes: int | None = None
    """None: there is no AVIF variant."""


class RequestedPicture(Fact):
    """What was done about one requested picture."""

    path: str
    state: str
    """`queued`; `decided`: it is converted already, or best as it is; `missing`: there is no such picture."""


class Service:
    """Queries and actions. Methods that need Redis raise redis.RedisError when it is down."""

    def __init__(self, config: Config) -> None:
        """:raises StoreError: root runs it, and `store.owner` doesn't exist."""
        self._config = config
        self._store = Store(config, b"")
        self._originals = Originals(config, b"")
        self._jobs = Jobs(config.queue)
        self._statistics = Statistics(config.cache)

    @property
    def consumer(self) -> str:
        """Name of the daemon in the queue."""
        return self._jobs.consumer

    def close(self) -> None:
        self._jobs.close()
        self._statistics.close()

    def _store_of(self, path: bytes) -> Store:
        return self._originals if self._originals.holds(path) else self._store

    def _checked(self, path: bytes) -> Store:
        """The tree that a picture's path lies in.

        :raises ValueError: the path can't be a picture's; one line.
        """
        shown = os.fsdecode(path)
        store = self._store_of(path)
        if not path.startswith(store.root + b"/"):
            trees = f"{self._config.store.root} and {self._config.originals.variants}"
            raise ValueError(f"{shown!r} lies outside of {trees}")
        parts = path.removeprefix(store.root + b"/").split(b"/")
        if b"\0" in path or any(part.startswith(b".") or not part or len(part) > 255 for part in parts):
            raise ValueError(f"{shown!r} is no picture's path")
        name = os.fsdecode(parts[-1])
        if is_variant(name):
            raise ValueError(f"{shown!r} has the name of a variant, not of an original")
        if len(path) >= 4096 or not is_original(name, self._config.watch.extensions):
            raise ValueError(f"{shown!r} has none of the extensions of watch.extensions")
        return store

    # Pictures

    def picture(self, path: bytes) -> Picture | None:
        """What is known of an original; None when there is no decision.

        :raises ValueError: the path can't be a picture's.
        """
        store, shown = self._checked(path), os.fsdecode(path)
        known = store.mark_of(path)
        evicted = known is None and is_evicted(path)
        if known is None and not evicted:
            return None
        remembered = self._statistics.picture(path)
        if known is None:
            return Picture(path=shown, evicted=True, **dict(remembered or Known()))
        mark, variant_bytes = known
        return Picture(
            path=shown,
            evicted=False,
            verdict=mark.verdict,
            format=remembered.format if remembered else None,
            original_bytes=mark.size,
            variant_bytes=variant_bytes,
            ssim=mark.ssim,
            encode_ms=mark.encode_ms,
            latency_ms=mark.latency_ms,
            avif_bytes=store.avif_bytes_of(path) or None,
        )

    def explain(self, asked: str) -> Explanation:
        """Explains a picture, by its URL or path.

        :raises ValueError: it can't be a picture that the CDN serves; one line.
        """
        from webp_converter.api.explain import explain  # which a daemon that starts doesn't wait for

        return explain(asked, self._config, self._store, self._originals, self._jobs)

    def ask(self, paths: Sequence[bytes]) -> list[RequestedPicture]:
        """Queues pictures as if a visitor had asked for them. Whether the site has an original of the mounted
        tree, only the worker finds out.

        :raises ValueError: the path can't be a picture's; nothing is queued.
        """
        stores = [self._checked(path) for path in paths]
        for path in paths:
            if not has_room(path.rpartition(b"/")[2]):
                raise ValueError(f"{os.fsdecode(path)!r}: {TOO_LONG}")
        asked = []
        for path, store in zip(paths, stores, strict=True):
            decision = store.decision_state_of(path) if store is self._store else DecisionState.UNDECIDED
            known = {None: "missing", DecisionState.UNDECIDED: "queued"}
            asked.append(RequestedPicture(path=os.fsdecode(path), state=known.get(decision, "decided")))
        now = time.time_ns()
        self._jobs.push(
            [
                Job(path, now, Priority.HIGH)
                for path, told in zip(paths, asked, strict=True)
                if told.state == "queued"
            ]
        )
        return asked

    def published(self, conversion: Conversion, suffix: bytes, maximum_bytes: int) -> bytes | None:
        """The variant that was published as `suffix` in a conversion, or with an empty one its original; None
        when either is no longer what it was then, or larger than `maximum_bytes`.

        :raises OriginAwayError: an original can't be read now.
        """
        path = os.fsencode(conversion.path)
        store, made_from = self._store_of(path), (conversion.original_bytes, conversion.original_mtime_ns)
        if suffix:
            variant = store.variant(path, suffix, maximum_bytes)
            return variant[1] if variant and variant[0][:2] == made_from else None
        try:
            original = store.read(path, maximum_bytes)
        except BlockingIOError:
            return None
        return original.data if original and Identity.of(original.status)[:2] == made_from else None

    # Statistics and queue

    def totals(self, days: int) -> Totals:
        """All that is counted, with the last `days` days one by one."""
        return self._statistics.totals(days)

    def overview(self) -> Overview:
        """The queue now."""
        return self._jobs.overview()

    # Dead letters

    def letters(self, after: str = "", count: int = 1000) -> list[Letter]:
        """Dead letters, the oldest first, from behind the one `after` on."""
        return self._jobs.letters(after, count)

    def all_letters(self) -> Iterator[Letter]:
        """All dead letters, the oldest first. What is put back meanwhile and fails again comes up again only
        after all its tries and their pauses."""
        after = ""
        while letters := self.letters(after):
            yield from letters
            after = letters[-1].id

    def letter(self, id: str) -> Letter | None:
        return self._jobs.letter(id)

    def retry(self, letters: Sequence[Letter]) -> int:
        """Retries pictures that were given up; returns how many still were.

        The verdict goes first: killed in between, the picture is undecided, which the next scan notices, and
        its letter is still there. The other way round, a worker might find the verdict, and leave it at that.
        """
        for letter in letters:
            try:
                path = os.fsencode(letter.path)
                self._store_of(path).remove_failure(path)
            except ValueError:  # of a tree that is no longer in the settings
                continue
        return self._jobs.retry([letter.id for letter in letters])

    def drop(self, letters: Sequence[Letter]) -> int:
        """Removes letters; how many there were. The verdict stays, so that nothing tries them again until
        their originals change."""
        return self._jobs.drop([letter.id for letter in letters])


def retry_command(letter: LetterSummary, file: Path = DEFAULT_FILE) -> str:
    """What to paste into a shell to have a picture tried again. It names the letter, never the path, which
    may be of any bytes."""
    words = ["webp-converter", "dead", "retry", letter.id]
    if file != DEFAULT_FILE:
        words += ["--config", str(file.absolute())]
    return shlex.join(words)

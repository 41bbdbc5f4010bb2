"""The reconcile scan: compares originals with their variants, queues what is missing, removes orphans.

An original counts as decided when a variant's modification time equals its own: two `stat` calls, nothing
read. Only where they differ is the mark looked at, or where AVIF is wanted and there is none: the mark tells
whether it was tried. Several processes share a scan: each takes the directories
of the second level whose names fall to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import redis

from webp_converter.base import linux
from webp_converter.base.names import VARIANTS, has_room, is_original
from webp_converter.config import Config
from webp_converter.queue.jobs import Job, Jobs, Priority
from webp_converter.variants.statistics import Statistics
from webp_converter.variants.store import (
    AVIF,
    DECISIONS,
    FOREIGN,
    KEEP,
    SUFFIXES,
    WEBP,
    Mark,
    is_evicted,
    read_mark,
)

_SHARED_LEVEL = 2
_PUSHED_AT_ONCE = 500
_TOLD = 1000
_WEBP, _KEEP, _AVIF = WEBP.decode(), KEEP.decode(), AVIF.decode()
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _ignore(path: bytes) -> None:
    """Is told of a path, and does nothing."""


@dataclass
class Tally:
    """What a scan has seen and done."""

    originals: int = 0
    queued: int = 0
    removed: int = 0
    """Stale variants and orphans."""

    removed_bytes: int = 0
    """What these took up on disk."""

    evicted: int = 0
    """Undecided originals left alone, since their variants were not read."""

    too_long: list[bytes] = field(default_factory=list)
    """Some of the originals whose names leave no room for a suffix: nothing can be made of them."""

    dry_run: bool = False
    """Whether to remove nothing, but to count it."""

    gone: Callable[[bytes], None] = _ignore
    """Is told the path of each original that is gone and left an orphan."""

    missed: bool = False
    """Whether the queue was away, so that another scan is needed."""

    def as_json(self) -> dict[str, int | bool]:
        """For programs."""
        return {
            "originals": self.originals,
            "queued": self.queued,
            "removed": self.removed,
            "removed_bytes": self.removed_bytes,
            "evicted": self.evicted,
            "missed": self.missed,
        }


def scan(
    root: bytes,
    extensions: frozenset[str],
    tally: Tally,
    share: int = 0,
    shares: int = 1,
    avif: bool = False,
) -> Iterator[bytes]:
    """Yields the paths of originals without a decision, in this share of the tree; removes what is stale.
    With `avif`, a decision that was made without regard to AVIF is none."""
    try:
        fd = os.open(root, _OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    yield from _directory(fd, root, 0, extensions, tally, share, shares, avif)


def _directory(
    fd: int,
    path: bytes,
    level: int,
    extensions: frozenset[str],
    tally: Tally,
    share: int,
    shares: int,
    avif: bool,
) -> Iterator[bytes]:
    """Scans one directory and those below it; closes `fd`. Above the shared level every process descends,
    and the first one alone looks at the files."""
    try:
        directories: list[str] = []
        files: set[str] = set()
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    files.add(entry.name)
        if level >= _SHARED_LEVEL or share == 0:
            yield from _files(fd, path, files, extensions, tally, avif)
        for name in directories:
            raw = os.fsencode(name)
            if level == _SHARED_LEVEL - 1 and zlib.crc32(raw) % shares != share:
                continue
            try:
                child = os.open(raw, _OPEN_DIRECTORY, dir_fd=fd)
            except OSError:  # gone meanwhile, or no longer a directory
                continue
            yield from _directory(child, path + b"/" + raw, level + 1, extensions, tally, share, shares, avif)
    finally:
        os.close(fd)


def _files(
    fd: int, path: bytes, files: set[str], extensions: frozenset[str], tally: Tally, avif: bool
) -> Iterator[bytes]:
    webp, keep, avif_beside = _WEBP, _KEEP, _AVIF
    unmistakable = extensions.difference(VARIANTS)
    for name in files:
        _, dot, extension = name.rpartition(".")
        # Most are told without a call, of which a million take a second.
        if (dot and extension in unmistakable) or is_original(name, extensions):
            tally.originals += 1
            if not has_room(name):
                if len(tally.too_long) < _TOLD:
                    tally.too_long.append(path + b"/" + os.fsencode(name))
                continue
            has = name + webp in files, name + keep in files, name + avif_beside in files
            if any(has) and _decided(fd, name, *has, avif, tally):
                continue
            yield path + b"/" + os.fsencode(name)
        elif (
            name.endswith((webp, keep, avif_beside))
            and name[:-5] not in files
            and is_original(name[:-5], extensions)
        ):
            _remove_orphan(fd, path, name, tally)


def _decided(
    fd: int, name: str, has_webp: bool, has_keep: bool, has_avif: bool, avif: bool, tally: Tally
) -> bool:
    """Whether there is a decision; removes what is stale."""
    try:
        original = os.stat(name, dir_fd=fd, follow_symlinks=False)
        # Where there is an AVIF variant, the decision is one with regard to it.
        if has_webp != has_keep and (has_avif or not avif):
            decision = os.stat(name + (_WEBP if has_webp else _KEEP), dir_fd=fd, follow_symlinks=False)
            beside = os.stat(name + _AVIF, dir_fd=fd, follow_symlinks=False) if has_avif else decision
            if decision.st_mtime_ns == beside.st_mtime_ns == original.st_mtime_ns and _untouched(
                original, decision
            ):
                return True
    except FileNotFoundError:
        return False
    described = decided = False
    for suffix in SUFFIXES:
        variant_name = os.fsencode(name) + suffix
        mark = read_mark(fd, variant_name)
        if mark is None:
            continue
        if mark is FOREIGN:
            decided |= suffix in DECISIONS
        elif not mark.describes(original) or (described and suffix in DECISIONS):
            _remove(fd, variant_name, tally)
        elif suffix in DECISIONS:
            described = True
            decided |= mark.decides(original, avif)
    return decided


def _untouched(original: os.stat_result, decision: os.stat_result) -> bool:
    """Whether an original needs no look at the mark of its decision, which has its time: nobody changed it
    after that was made, and no power loss took its bytes, since a variant is always the smaller one."""
    return original.st_ctime_ns <= decision.st_ctime_ns and original.st_size > decision.st_size


def _remove_orphan(fd: int, path: bytes, name: str, tally: Tally) -> None:
    """Removes a variant of ours whose original is gone, after a second look: it may be just written."""
    if not isinstance(read_mark(fd, os.fsencode(name)), Mark):
        return
    try:
        os.stat(name[:-5], dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        _remove(fd, os.fsencode(name), tally)
        tally.gone(path + b"/" + os.fsencode(name[:-5]))


def _remove(fd: int, name: bytes, tally: Tally) -> None:
    with contextlib.suppress(FileNotFoundError):
        size = os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
        if not tally.dry_run:
            os.unlink(name, dir_fd=fd)
        tally.removed += 1
        tally.removed_bytes += size


def reconcile(config: Config, share: int = 0, shares: int = 1, tally: Tally | None = None) -> Tally:
    """Scans one share of the tree and queues what it finds. What is stale goes even when nothing can be
    queued: then `missed` is set. A `tally` given is filled as the scan goes on; with its `dry_run` set,
    nothing is queued or removed."""
    jobs = Jobs(config.queue)
    statistics = Statistics(config.cache)
    batch: list[Job] = []
    gone: list[bytes] = []

    def forget(path: bytes) -> None:
        gone.append(path)
        if len(gone) >= _PUSHED_AT_ONCE:
            statistics.forget(gone)
            gone.clear()

    tally = tally or Tally()
    if not tally.dry_run:
        tally.gone = forget

    def push() -> None:
        if not tally.missed and not tally.dry_run:
            try:
                tally.queued += jobs.push(batch)
            except redis.RedisError:
                tally.missed = True
        batch.clear()

    root, extensions = os.fsencode(config.store.root), frozenset(config.watch.extensions)
    for path in scan(root, extensions, tally, share, shares, config.encoding.avif):
        if is_evicted(path):  # its variants come back when somebody asks for them
            tally.evicted += 1
            continue
        batch.append(Job(path, time.time_ns(), Priority.LOW))
        if len(batch) >= _PUSHED_AT_ONCE:
            push()
    push()
    statistics.forget(gone)
    tally.gone = _ignore  # which can be sent to another process
    jobs.close()
    statistics.close()
    return tally


def scan_share(config: Config, share: int, shares: int, report: Connection) -> None:
    """Runs one share of a scan in a separate process, and sends the tally."""
    linux.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    report.send(reconcile(config, share, shares))

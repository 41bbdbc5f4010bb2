"""Eviction: variants that are not read are removed, and made again on request.

The file system knows who reads: with `relatime` the first read after a change, and one in 24 hours from then
on, set a file's access time. Two rules: what was not read for so many days goes; and while a file system is
fuller than its high-water mark, what was not read for longest goes, down to the low-water mark.

All variants of one original go together, and the latest read of any counts. Beside an original of
`resize_cache` a note is left on the original itself, before the first of them is unlinked, so that the next
scan does not bring back at once what was not wanted. The originals of the other tree are never scanned; there
the verdicts go too, of which nothing else would ever clean up.

Memory does not grow with the trees: the first pass adds up bytes by time of the last read, in classes 0.2 %
apart; the second removes the classes that have to go.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from webp_converter.base.fact import Fact
from webp_converter.config import Config
from webp_converter.variants.store import KEEP, SUFFIXES, Mark, forget_eviction, note_eviction, read_mark

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CLASSES_PER_E = 500
_DAY_NS = 86_400 * 1_000_000_000


class Why(StrEnum):
    """Why variants go."""

    AGE = "age"
    """They were not read for `store.evict_after_days`."""

    SPACE = "space"
    """The file system is fuller than `store.high_water`."""


class Count(Fact):
    """Files that were removed, or would be."""

    files: int = 0
    bytes: int = 0
    """On disk."""


@dataclass
class Eviction:
    """What one run has seen and done."""

    pictures: int = 0
    """Originals with variants, as looked at."""

    evicted: dict[Why, Count] = field(default_factory=lambda: {why: Count() for why in Why})
    refused: int = 0
    """Pictures whose original can't bear the note, so that their variants stay."""

    missing_bytes: int = 0
    """What is still to be freed down to the low-water mark, with nothing of ours left to remove."""

    seconds: float = 0


class Space(NamedTuple):
    """How full a file system is, as `df` counts it: what is reserved for root is left out."""

    used: int
    """Bytes."""

    available: int
    """Bytes."""

    @classmethod
    def of(cls, path: str | bytes | os.PathLike[str]) -> Space:
        """:raises OSError: the tree can't be read."""
        status = os.statvfs(path)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return cls(used, status.f_bavail * status.f_frsize)

    @property
    def share(self) -> float:
        return self.used / (self.used + self.available) if self.used + self.available else 0.0

    def above(self, share: float) -> int:
        """Bytes to be freed down to `share`; 0: none."""
        return max(0, self.used - int(share * (self.used + self.available)))


def age_class(age_ns: int) -> int:
    """The class of a time since the last read: the higher, the longer ago. A future one counts as now."""
    return int(math.log1p(max(0, age_ns) / 1e9) * _CLASSES_PER_E)


class Cut(NamedTuple):
    """What has to go: all classes above `limit`, and `partly` bytes of that one."""

    limit: int
    partly: int
    missing: int = 0
    """Bytes that all of it together does not free."""


def cut(histogram: dict[int, int], needed: int) -> Cut | None:
    """Which classes have to go to free `needed` bytes, the oldest first; None: nothing has to."""
    if needed <= 0:
        return None
    for age in sorted(histogram, reverse=True):
        if histogram[age] >= needed:
            return Cut(age, needed)
        needed -= histogram[age]
    return Cut(-1, 0, needed)


def evict(config: Config, dry_run: bool = False, done: Eviction | None = None) -> Eviction:
    """Removes what has to go by both rules; with `dry_run` it is only counted. What is given as `done` is
    filled as it goes on."""
    started = time.monotonic()
    done = done or Eviction()
    filesystems: dict[int, list[_Tree]] = defaultdict(list)
    for root, has_originals in ((config.store.root, True), (config.originals.variants, False)):
        try:
            filesystems[os.stat(root).st_dev].append(_Tree(config, os.fsencode(root), has_originals, dry_run))
        except OSError:  # not there (yet): nothing to remove either
            continue
    for trees in filesystems.values():
        _evict_from(config, trees, done)
    done.seconds = time.monotonic() - started
    return done


def _evict_from(config: Config, trees: Sequence[_Tree], done: Eviction) -> None:
    """Evicts from the trees that share one file system."""
    space = Space.of(trees[0].root)
    is_full = config.store.high_water < 1 and space.share > config.store.high_water
    oldest_ns = config.store.evict_after_days * _DAY_NS
    now_ns = time.time_ns()
    histogram: dict[int, int] = defaultdict(int)
    if not oldest_ns and not is_full:
        return
    freed = -done.evicted[Why.AGE].bytes
    for tree in trees:
        for group in tree.groups(None if is_full else now_ns - oldest_ns, done):
            if oldest_ns and group.read_ns < now_ns - oldest_ns:
                tree.evict(group, Why.AGE, done)
            elif is_full:
                histogram[age_class(now_ns - group.read_ns)] += group.bytes
    if not is_full:
        return
    freed += done.evicted[Why.AGE].bytes
    chosen = cut(histogram, space.above(config.store.low_water) - freed)
    if chosen is None:
        return
    done.missing_bytes += chosen.missing
    partly = chosen.partly
    for tree in trees:
        for group in tree.groups(now_ns, Eviction()):
            age = age_class(now_ns - group.read_ns)
            if age < chosen.limit or (age == chosen.limit and partly <= 0):
                continue
            if oldest_ns and group.read_ns < now_ns - oldest_ns:  # was dealt with
                continue
            before = done.evicted[Why.SPACE].bytes
            tree.evict(group, Why.SPACE, done)
            if age == chosen.limit:
                partly -= done.evicted[Why.SPACE].bytes - before


class _Group(NamedTuple):
    """All variants of one original."""

    directory: int
    """Descriptor of where they lie."""

    original: bytes
    """Name of the original."""

    names: list[bytes]
    marks: list[Mark]
    read_ns: int
    """When one of them was read last."""

    bytes: int


class _Tree:
    """One tree of variants."""

    def __init__(self, config: Config, root: bytes, has_originals: bool, dry_run: bool) -> None:
        """`has_originals`: whether the originals lie beside their variants."""
        self.root = root
        self._has_originals = has_originals
        self._dry_run = dry_run
        self._rest_s = config.store.directory_rest_s
        # The scan leaves alone what has a verdict; without it, it would try again each time.
        self._suffixes = [suffix for suffix in SUFFIXES if suffix != KEEP or not has_originals]

    def groups(self, before_ns: int | None, done: Eviction) -> Iterator[_Group]:
        """All that could go: not read since `before_ns`, or at all. Directories that have become empty are
        removed on the way."""
        try:
            fd = os.open(self.root, _OPEN_DIRECTORY)
        except FileNotFoundError:
            return
        yield from self._directory(fd, before_ns, done)

    def _directory(self, fd: int, before_ns: int | None, done: Eviction) -> Iterator[_Group]:
        """The groups of one directory and those below it; closes `fd`."""
        try:
            directories: list[bytes] = []
            files: set[bytes] = set()
            with os.scandir(fd) as entries:
                for entry in entries:
                    is_directory = entry.is_dir(follow_symlinks=False)
                    (directories.append if is_directory else files.add)(os.fsencode(entry.name))
            for original in {name[: -len(s)] for name in files for s in self._suffixes if name.endswith(s)}:
                if self._has_originals and original not in files:
                    continue  # an orphan, which is the scan's to remove
                done.pictures += 1
                names = [original + s for s in self._suffixes if original + s in files]
                group = self._group(fd, original, names, before_ns)
                if group:
                    yield group
            for name in directories:
                try:
                    child = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                except OSError:  # gone meanwhile, or not ours to look into
                    continue
                yield from self._directory(child, before_ns, done)
                if not self._has_originals and not self._dry_run:
                    self._remove_empty(fd, name)
        finally:
            os.close(fd)

    def _group(
        self, directory: int, original: bytes, names: Sequence[bytes], before_ns: int | None
    ) -> _Group | None:
        """Those variants of an original that bear our mark; None where none does, or one was read since."""
        read = [status.st_atime_ns for status in _statuses(directory, names)]
        if not read or (before_ns is not None and min(read) >= before_ns):
            return None  # without a look at the marks, which takes as long again
        marks = {name: mark for name in names if isinstance(mark := read_mark(directory, name), Mark)}
        statuses = _statuses(directory, list(marks))
        if not statuses:
            return None
        read_ns = max(status.st_atime_ns for status in statuses)
        if before_ns is not None and read_ns >= before_ns:
            return None
        size = sum(status.st_blocks * 512 for status in statuses)
        return _Group(directory, original, list(marks), list(marks.values()), read_ns, size)

    def evict(self, group: _Group, why: Why, done: Eviction) -> None:
        """Removes a group, unless somebody reads it at this moment."""
        if self._has_originals:
            try:
                if not _noted(group, self._dry_run):
                    return
            except OSError:
                done.refused += 1
                return
        if not self._dry_run and not self._unlink(group):
            return
        count = done.evicted[why]
        count.files += len(group.names)
        count.bytes += group.bytes

    def _unlink(self, group: _Group) -> bool:
        """Removes the files of a group; not if one was read since the directory was listed."""
        now = _statuses(group.directory, group.names)
        if not now or max(status.st_atime_ns for status in now) > group.read_ns:
            if self._has_originals:
                forget_eviction(group.directory, group.original)
            return False
        for name in group.names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=group.directory)
        return True

    def _remove_empty(self, parent: int, name: bytes) -> None:
        """Removes a directory if it is empty and was for a moment: one just made is about to be filled."""
        try:
            age_s = time.time() - os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime
            if age_s >= self._rest_s:
                os.rmdir(name, dir_fd=parent)
        except OSError:
            return


def _statuses(directory: int, names: Sequence[bytes]) -> list[os.stat_result]:
    """The status of those files that are there."""
    statuses = []
    for name in names:
        try:
            statuses.append(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            continue
    return statuses


def _noted(group: _Group, dry_run: bool) -> bool:
    """Leaves the note on a group's original; False where the variants are of another content than it has
    now: then they are stale, and the scan's to remove.

    :raises OSError: the original can't have the attribute.
    """
    fd = os.open(group.original, _OPEN_FILE, dir_fd=group.directory)
    try:
        status = os.fstat(fd)
        if not all(mark.describes(status) for mark in group.marks):
            return False
        if not dry_run:
            note_eviction(fd, status)
    finally:
        os.close(fd)
    return True

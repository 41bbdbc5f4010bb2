"""Watches the tree of originals: inotify on every directory, and what its events mean.

inotify watches directories one by one and knows no names above them, so a tree of nodes mirrors the
directories. A directory is watched before it is listed: what was made in it meanwhile is in the listing or in
an event, mostly in both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from inotify_simple import INotify, flags, parse_events  # type: ignore[import-untyped]

from webp_converter.base.names import SUFFIX_BYTES, is_original
from webp_converter.variants.store import SUFFIXES

_MASK = (
    flags.CLOSE_WRITE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.CREATE
    | flags.DELETE
    | flags.ATTRIB
    | flags.ONLYDIR
    | flags.DONT_FOLLOW
    | flags.EXCL_UNLINK
)
_WRITTEN = flags.CLOSE_WRITE | flags.MOVED_TO
_READ_BYTES = 1 << 18
_LINKS_OF_A_DIRECTORY = 2
"""Its name, and the `.` in it; each subdirectory's `..` is one more."""

_EVENTS_AT_ONCE = 4096
_DETACHED_S = 2.0
"""How long the watches of a directory that was moved away wait for it to appear elsewhere in the tree."""


class Change(NamedTuple):
    """A file that may have changed."""

    path: bytes
    written: bool
    """Whether it may be complete now; otherwise it is only looked at for what has become stale."""

    seen_ns: int
    """Wall clock time at which its event was read."""


class WatchError(Exception):
    """The tree can't be watched now: why, and what to do."""


class _LostError(Exception):
    """Events were lost, or the root itself: everything has to be watched and scanned again."""


class _Node:
    """A watched directory."""

    __slots__ = ("children", "name", "parent", "wd")

    def __init__(self, wd: int, name: bytes, parent: _Node | None) -> None:
        self.wd = wd
        self.name = name
        self.parent = parent
        self.children: dict[bytes, _Node] | None = None

    def attach(self, parent: _Node, name: bytes) -> None:
        self.detach()
        self.parent = parent
        self.name = name
        if parent.children is None:
            parent.children = {}
        parent.children[name] = self

    def detach(self) -> None:
        siblings = self.parent.children if self.parent else None
        if siblings and siblings.get(self.name) is self:
            del siblings[self.name]
        self.parent = None


class Watch:
    """Watches one tree. Not thread safe, but for `close`."""

    def __init__(self, root: bytes, extensions: frozenset[str]) -> None:
        """Watches every directory below `root`.

        :raises WatchError: the root is missing or the kernel's limit on watches is reached.
        """
        self._extensions = extensions
        self._nodes: dict[int, _Node] = {}
        self._detached: dict[int, tuple[float, _Node]] = {}
        self._chunks: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._inotify = INotify(nonblocking=True)
        self._closing = threading.Event()
        self._reader: threading.Thread | None = None
        self._root = _Node(-1, root, None)
        try:
            if not self._watch(self._root):
                raise WatchError(f"{os.fsdecode(root)} is missing")
            self._reader = threading.Thread(target=self._read, name="inotify", daemon=True)
            self._reader.start()
            self._watch_all()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """How many directories are watched."""
        return len(self._nodes)

    def close(self) -> None:
        self._closing.set()
        if self._reader:
            self._reader.join()
        self._inotify.close()

    def changes(self, timeout_s: float) -> list[Change] | None:
        """What may have changed, each file once; waits for the first event. None when events were lost, or
        the root was: then a new Watch and a scan are needed.

        :raises WatchError: the kernel's limit on watches is reached.
        """
        self._drop_detached()
        changes: dict[bytes, Change] = {}
        try:
            seen_ns, data = self._chunks.get(timeout=timeout_s)
            count = 0
            while True:
                for event in parse_events(data):
                    count += 1
                    for change in self._meaning(event.wd, event.mask, os.fsencode(event.name), seen_ns):
                        earlier = changes.get(change.path)
                        if earlier is None or change.written:
                            changes[change.path] = change
                if count >= _EVENTS_AT_ONCE:
                    break
                seen_ns, data = self._chunks.get_nowait()
        except queue.Empty:
            pass
        except _LostError:
            return None
        return list(changes.values())

    def _read(self) -> None:
        """Empties the kernel's queue as fast as it fills; what events mean is found out elsewhere."""
        poll = select.poll()
        poll.register(self._inotify.fileno(), select.POLLIN)
        while not self._closing.is_set():
            if poll.poll(200):
                data = os.read(self._inotify.fileno(), _READ_BYTES)
                self._chunks.put((time.time_ns(), data))

    def _meaning(self, wd: int, mask: int, name: bytes, seen_ns: int) -> Iterator[Change]:
        if mask & flags.Q_OVERFLOW:
            raise _LostError
        node = self._nodes.get(wd)
        if node is None:
            return
        if mask & (flags.IGNORED | flags.UNMOUNT):
            self._forget(node)
            return
        if not mask & flags.ISDIR:
            if self.is_original(name) and not mask & flags.CREATE:
                directory = self._path(node)
                if directory is not None:
                    yield Change(directory + b"/" + name, bool(mask & _WRITTEN), seen_ns)
        elif mask & flags.MOVED_FROM:
            child = (node.children or {}).get(name)
            if child is not None:
                child.detach()
                self._detached[child.wd] = (time.monotonic(), child)
        elif mask & (flags.CREATE | flags.MOVED_TO):
            child = _Node(-1, name, None)
            child.parent = node
            known = self._watch(child)
            if known is not None:
                moved = bool(mask & flags.MOVED_TO)
                for path in self._walk(known, known_too=moved) if known is child or moved else ():
                    yield Change(path, True, seen_ns)

    def is_original(self, name: bytes) -> bool:
        """Whether a name is that of an original."""
        return is_original(os.fsdecode(name), self._extensions)

    def _original_of(self, name: bytes) -> bytes | None:
        """The original that a file is or was made of; None: it is neither."""
        if self.is_original(name):
            return name
        stem = name[:-SUFFIX_BYTES]
        return stem if name.endswith(SUFFIXES) and self.is_original(stem) else None

    def _path(self, node: _Node) -> bytes | None:
        """The path of a node; None where it is no longer part of the tree."""
        parts = []
        while node is not self._root:
            parts.append(node.name)
            if node.parent is None:
                return None
            node = node.parent
        parts.append(node.name)
        return b"/".join(reversed(parts))

    def _watch(self, node: _Node) -> _Node | None:
        """Watches a directory; the node it has now, an older one if it was moved. None when it is gone."""
        path = self._path(node)
        if path is None:
            return None
        try:
            wd = self._inotify.add_watch(path, _MASK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            if error.errno == errno.ENOSPC:
                raise WatchError("no inotify watches left: raise fs.inotify.max_user_watches") from error
            raise WatchError(f"{os.fsdecode(path)}: {error.strerror}") from error
        known = self._nodes.get(wd)
        if known is None:
            node.wd = wd
            self._nodes[wd] = known = node
        self._detached.pop(wd, None)
        if node is not self._root and node.parent is not None and known is not self._root:
            known.attach(node.parent, node.name)
        return known

    def _watch_all(self) -> None:
        """Watches every directory below the root.

        Most of them hold nothing but files, and most of the time would go into listing these. Where the file
        system counts subdirectories as links, as ext4, XFS and tmpfs do, one without any isn't listed.
        Whether it does, the root tells first and each directory listed tells again; a directory made at the
        wrong moment looks like a file system that doesn't, which costs time and nothing else.
        """
        counted: bool | None = None
        stack = [self._root]
        while stack:
            path = self._path(node := stack.pop())
            if path is None:
                continue
            try:
                links = os.stat(path, follow_symlinks=False).st_nlink
                if counted and links == _LINKS_OF_A_DIRECTORY:
                    continue
                subdirectories = 0
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            subdirectories += 1
                            child = _Node(-1, entry.name, None)
                            child.parent = node
                            if self._watch(child) is child:
                                stack.append(child)
            except OSError:  # gone again; if it was moved, its new place is in an event
                continue
            counted = counted is not False and links == _LINKS_OF_A_DIRECTORY + subdirectories

    def _walk(self, top: _Node, known_too: bool = False) -> Iterator[bytes]:
        """Watches what lies below a watched directory, and yields the originals found, and those that only
        their variants are left of: an event tells of a removal by the path that the directory had then.

        Directories already watched are entered only with `known_too`, and where they were moved here: a
        directory that was moved into one that wasn't watched yet has no event.
        """
        stack = [(top, known_too)]
        while stack:
            node, known_too = stack.pop()
            path = self._path(node)
            if path is None:
                continue
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            child = _Node(-1, entry.name, None)
                            child.parent = node
                            before = (node.children or {}).get(entry.name)
                            known = self._watch(child)
                            if known is None:
                                continue
                            moved = known is not child and known is not before
                            if known is child or known_too or moved:
                                stack.append((known, known_too or moved))
                        elif original := self._original_of(entry.name):
                            yield path + b"/" + original
            except OSError:  # gone again; if it was moved, its new place is in an event
                continue

    def _forget(self, node: _Node) -> None:
        if node is self._root:
            raise _LostError
        self._nodes.pop(node.wd, None)
        self._detached.pop(node.wd, None)
        node.detach()

    def _drop_detached(self) -> None:
        """Ends the watches below directories that were moved out of the tree."""
        now = time.monotonic()
        for wd, (since, node) in list(self._detached.items()):
            if now - since < _DETACHED_S:
                continue
            del self._detached[wd]
            stack = [node]
            while stack:
                node = stack.pop()
                stack.extend((node.children or {}).values())
                self._nodes.pop(node.wd, None)
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(node.wd)

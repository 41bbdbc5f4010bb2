"""The store of variants: freshness, publishing, removal.

The state is in the files. A variant (`photo.jpg.webp`) or verdict (`photo.jpg.keep`) lies beside its original
and carries a mark: what it was made from, and what came out. It is the decision; an AVIF variant
(`photo.jpg.avif`) that goes with it is there before it. Only what carries the mark is ever replaced or
removed. Paths are bytes; no symbolic link is followed anywhere below the root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import itertools
import math
import os
import pwd
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Literal, NamedTuple, Self

from webp_converter.base import linux
from webp_converter.base.bitrix import Box, box_of
from webp_converter.base.names import has_room
from webp_converter.config import Config

XATTR = "user.webp-converter"
EVICTED = "user.webp-converter.evicted"
"""On an original: its variants were removed, as they were not read. The scan then leaves it alone."""

WEBP = b".webp"
KEEP = b".keep"
AVIF = b".avif"
DECISIONS = (WEBP, KEEP)
SUFFIXES = (*DECISIONS, AVIF)
FAILED = "failed"
"""The verdict on an original that workers failed on; the dead letter tells how."""

_MARK_VERSION = "1"
_MARK_VERSION_AVIF = "1a"
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SUCH = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreError(Exception):
    """The store can't be worked with at all: which path, and why."""


class Identity(NamedTuple):
    """What tells one content of an original from the next. Change time is left out: Bitrix changes the mode
    of each file after it has written it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def __str__(self) -> str:
        return f"{self.size}-{self.mtime_ns}-{self.inode}"


class Mark(NamedTuple):
    """What a variant or verdict says of itself. Its text is kept short: up to 56 bytes lie in the inode
    itself, more would cost a block for each file."""

    size: int
    """Bytes of the original."""

    mtime_ns: int
    """Modification time of the original."""

    verdict: str
    """`q75` to `q100`, `q0` for lossless, or why the original is best."""

    similarity: float = math.nan
    """SSIM to the original; NaN when it was not asked for."""

    latency_ms: int = 0
    """From close-write to published."""

    encode_ms: int = 0
    """Decoding, judging and encoding."""

    avif: bool = False
    """Whether AVIF was considered besides WebP, whatever came of it."""

    def pack(self) -> bytes:
        similarity = "-" if math.isnan(self.similarity) else f"{self.similarity:.4f}"
        numbers = f"{similarity} {self.latency_ms} {self.encode_ms}"
        version = _MARK_VERSION_AVIF if self.avif else _MARK_VERSION
        return f"{version} {self.size} {self.mtime_ns} {self.verdict} {numbers}".encode("ascii")

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """The mark, or None for a text of another version or none of ours."""
        try:
            fields = text.decode("ascii").split(" ")
            if len(fields) != 7 or fields[0] not in (_MARK_VERSION, _MARK_VERSION_AVIF):
                return None
            avif = fields[0] == _MARK_VERSION_AVIF
            size, mtime_ns, verdict, similarity, latency_ms, encode_ms = fields[1:]
            known = math.nan if similarity == "-" else float(similarity)
            return cls(int(size), int(mtime_ns), verdict, known, int(latency_ms), int(encode_ms), avif)
        except ValueError:
            return None

    @property
    def ssim(self) -> float | None:
        """The similarity; None when it was not asked for."""
        return None if math.isnan(self.similarity) else self.similarity

    @property
    def quality(self) -> int | None:
        """Of a variant, 0 for lossless; None of the verdict that the original is best."""
        number = self.verdict.removeprefix("q")
        return int(number) if number != self.verdict and number.isdecimal() else None

    @property
    def is_lossy(self) -> bool:
        """Whether it is that of a variant encoded with loss."""
        return self.verdict.startswith("q") and self.verdict != "q0"

    def describes(self, original: os.stat_result) -> bool:
        return (self.size, self.mtime_ns) == (original.st_size, original.st_mtime_ns)

    def decides(self, original: os.stat_result, avif: bool) -> bool:
        """Whether nothing is left to be done for an original, `avif` telling whether AVIF is wanted too."""
        return self.describes(original) and (self.avif or not avif)


class DecisionState(Enum):
    """How an original stands."""

    UNDECIDED = auto()
    FRESH = auto()
    FOREIGN = auto()
    """Someone else's variant lies beside it, and counts."""

    TOO_LONG = auto()
    """Its name leaves no room for a suffix: it is answered as it is, for good."""


class Result(Enum):
    """What became of something that was to be published."""

    PUBLISHED = auto()
    CHANGED = auto()
    """The original is no longer what it was made from; it has to be converted again."""

    GONE = auto()
    FOREIGN = auto()
    FULL = auto()
    """No space left."""


class Unfinished(NamedTuple):
    """A file to be published with a decision."""

    mark: Mark
    temporary: bytes
    """Name in the temporary directory."""


class Finished(NamedTuple):
    """A decision ready to be published."""

    path: bytes
    """The original."""

    identity: Identity
    """The original as it was read."""

    mark: Mark
    started_ns: int
    """Wall clock time of the event that asked for it, for the latency."""

    temporary: bytes
    """Name in the temporary directory."""

    suffix: bytes
    """What to publish it as: `WEBP`, or `KEEP` with an empty file."""

    avif: Unfinished | None = None
    """The AVIF variant that goes with it."""

    second: bool = False
    """Whether it is a smaller variant for an original that has one: published only where that still is."""


class Stale(NamedTuple):
    """What was found when an original had changed."""

    present: bool
    """Whether there is such an original."""

    decided: bool
    """Whether a decision about its present content is there."""

    removed: int
    """How many files of ours went."""


class Original(NamedTuple):
    """An original as it was read."""

    data: bytes
    status: os.stat_result


class Temporary:
    """Unfinished files. Each run has a separate directory and holds a lock on it, so that what another run
    left behind when it was killed is told from what is still being written."""

    def __init__(self, parent: Path, owner: tuple[int, int] | None = None) -> None:
        """Clears what is left of earlier runs, and makes the directory of this one.

        :raises StoreError: the store can't be worked with.
        """
        try:
            if not parent.exists():
                parent.mkdir(mode=0o755)
                if owner:  # whom a command run as root makes it for
                    os.chown(parent, *owner)
            self.clear(os.fsencode(parent))
            while not self._make(parent):
                pass
        except OSError as error:
            raise StoreError(f"temporary directory {parent}: {error.strerror}") from error

    def _make(self, parent: Path) -> bool:
        """Makes and locks this run's directory. False when another run that starts at the same moment took it
        for one left behind, before it was locked."""
        self.path = os.fsencode(parent / f"{os.getpid()}-{secrets.token_hex(4)}")
        os.mkdir(self.path, 0o700)
        try:
            self._fd = os.open(self.path, _OPEN_DIRECTORY)
        except FileNotFoundError:
            return False
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        if os.fstat(self._fd).st_nlink:
            return True
        os.close(self._fd)
        return False

    @staticmethod
    def clear(parent: bytes, dry_run: bool = False, at_rest_s: float = 0) -> tuple[int, int]:
        """Removes the directories of runs that are over, or only counts with `dry_run`; how many files were
        left in them, and the bytes that these take up on disk. What changed within `at_rest_s` may be a run
        that is about to lock it, and is left alone."""
        files = size = 0
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
                fd = os.open(path, _OPEN_DIRECTORY)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if time.time() - os.fstat(fd).st_mtime < at_rest_s:
                        continue
                    for file in os.listdir(fd):
                        size += os.stat(file, dir_fd=fd, follow_symlinks=False).st_blocks * 512
                        files += 1
                        if not dry_run:
                            os.unlink(file, dir_fd=fd)
                    if not dry_run:
                        os.rmdir(path)
                finally:
                    os.close(fd)
        return files, size

    def close(self) -> None:
        """Removes what is left of this run."""
        for name in os.listdir(self._fd):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
        os.rmdir(self.path)
        os.close(self._fd)


def owner_of(config: Config) -> tuple[int, int] | None:
    """User and group id that published files get; None unless run as root, where they are the caller's own.

    :raises StoreError: the name is unknown.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(config.store.owner).pw_uid, grp.getgrnam(config.store.group).gr_gid
    except KeyError as error:
        raise StoreError(f"store.owner, store.group: {error.args[0]}") from error


class Store:
    """The tree of originals with their variants, and the directory for unfinished ones."""

    _names = itertools.count()

    def __init__(self, config: Config, temporary: bytes) -> None:
        self.root = os.fsencode(config.store.root)
        self.temporary = temporary
        self._owner = owner_of(config)
        self._avif = config.encoding.avif
        self._publishing = threading.Lock()

    def check(self) -> None:
        """Tries what every publication needs: marks, and a rename from the temporary directory to the root.

        :raises StoreError: the store can't be worked with.
        """
        name = self.write(b"")
        temporary = os.path.join(self.temporary, name)
        try:
            try:
                os.setxattr(temporary, XATTR, Mark(0, 0, "q0").pack())
            except OSError as error:
                why = f"no extended attributes: {error.strerror}"
                raise StoreError(f"{os.fsdecode(temporary)}: {why}") from error
            if os.stat(self.temporary).st_dev != os.stat(self.root).st_dev:
                raise StoreError(
                    f"{os.fsdecode(self.temporary)} and {os.fsdecode(self.root)} must share a file system"
                )
        except OSError as error:
            raise StoreError(f"{os.fsdecode(self.root)}: {error.strerror}") from error
        finally:
            os.unlink(temporary)

    @contextlib.contextmanager
    def directory(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Descriptor of the directory that `path` lies in, and the name in it.

        :raises FileNotFoundError: a part of the path is missing or isn't a directory.
        :raises ValueError: the path is outside the root.
        """
        if not path.startswith(self.root + b"/"):
            raise ValueError(f"{os.fsdecode(path)} lies outside of {os.fsdecode(self.root)}")
        *parents, name = path[len(self.root) + 1 :].split(b"/")
        if b".." in parents or name in (b"", b".", b".."):
            raise ValueError(f"{os.fsdecode(path)} is no file's path")
        fd = -1
        try:
            try:
                fd = os.open(self.root, _OPEN_DIRECTORY)
                # One by one: openat2(2), which could do it at once, isn't there under RestrictSUIDSGID.
                for part in parents:
                    child = os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
                    os.close(fd)
                    fd = child
            except OSError as error:
                if error.errno in _NO_SUCH:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
                raise
            yield fd, name
        finally:
            if fd >= 0:
                os.close(fd)

    # Reading, in a worker

    def read(self, path: bytes, maximum_bytes: int) -> Original | None:
        """The original's bytes with its status before and after they were read, or None when there is no such
        regular file. Beyond `maximum_bytes` no bytes are read.

        :raises OSError: EAGAIN, the file changed while it was read.
        """
        try:
            with self.directory(path) as (directory, name):
                fd = os.open(name, _OPEN_FILE, dir_fd=directory)
        except OSError as error:
            if error.errno in (*_NO_SUCH, errno.ENXIO):  # ENXIO: a socket
                return None
            raise
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            os.close(fd)
            return None
        with open(fd, "rb", buffering=0) as file:
            data = file.read() if before.st_size <= maximum_bytes else b""
            if Identity.of(os.fstat(fd)) != Identity.of(before):
                raise BlockingIOError(errno.EAGAIN, "changed while it was read", path)
        return Original(data, before)

    def write(self, data: bytes, mtime_ns: int = 0, for_long: bool = True) -> bytes:
        """Writes a file into the temporary directory, with mode, owner and time as it will be published, and
        has the kernel start to write it to disk; its name there.

        nginx sees no marks. A verdict that isn't `for_long` is executable, and it has the original kept only
        as long as one that is to be converted yet.
        """
        name = b"%d-%d" % (os.getpid(), next(self._names))
        fd = os.open(
            os.path.join(self.temporary, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fchmod(fd, 0o644 if for_long else 0o744)
                if self._owner:
                    os.fchown(fd, *self._owner)
                os.utime(fd, ns=(time.time_ns(), mtime_ns))
                if data:
                    linux.start_write_back(fd)
        except OSError:
            # What fits onto a full disk must not stay there and keep it full.
            os.unlink(os.path.join(self.temporary, name))
            raise
        return name

    def unfinished(self) -> list[bytes]:
        """What lies in the temporary directory: what is under way, and what workers left that died."""
        with contextlib.suppress(FileNotFoundError):
            return [os.path.join(self.temporary, name) for name in os.listdir(self.temporary)]
        return []

    # Freshness

    def decision_state(self, directory: int, name: bytes, original: os.stat_result) -> DecisionState:
        """Whether an original has a decision, and whose."""
        if not has_room(name):
            return DecisionState.TOO_LONG
        for suffix in DECISIONS:
            mark = read_mark(directory, name + suffix)
            if mark is None:
                continue
            if mark is FOREIGN:
                return DecisionState.FOREIGN
            if mark.decides(original, self._avif):
                return DecisionState.FRESH
        return DecisionState.UNDECIDED

    def decision_state_of(self, path: bytes) -> DecisionState | None:
        """Whether an original has a decision; None when there is no such original."""
        try:
            with self.directory(path) as (directory, name):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                return self.decision_state(directory, name, status) if stat.S_ISREG(status.st_mode) else None
        except FileNotFoundError:
            return None

    def mark_of(self, path: bytes) -> tuple[Mark, int | None] | None:
        """The mark of an original's decision, and the variant's bytes when there is one."""
        try:
            with self.directory(path) as (directory, name):
                for suffix in DECISIONS:
                    mark = read_mark(directory, name + suffix)
                    if isinstance(mark, Mark):
                        size = os.stat(name + suffix, dir_fd=directory, follow_symlinks=False).st_size
                        return mark, (size if suffix == WEBP else None)
        except FileNotFoundError:
            pass
        return None

    def variant(self, path: bytes, suffix: bytes, maximum_bytes: int) -> tuple[Mark, bytes] | None:
        """A variant of ours, with its mark; None where there is none, or one beyond `maximum_bytes`."""
        try:
            with self.directory(path) as (directory, name):
                fd = os.open(name + suffix, _OPEN_FILE, dir_fd=directory)
        except OSError as error:
            if error.errno in (*_NO_SUCH, errno.ENXIO):
                return None
            raise
        with open(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > maximum_bytes:
                return None
            try:
                mark = Mark.parse(os.getxattr(fd, XATTR))
            except OSError:
                return None
            # Published files are never written to.
            return (mark, file.read()) if mark else None

    def avif_bytes_of(self, path: bytes) -> int:
        """Size of our AVIF variant of an original; 0: there is none."""
        try:
            with self.directory(path) as (directory, name):
                if isinstance(read_mark(directory, name + AVIF), Mark):
                    return os.stat(name + AVIF, dir_fd=directory, follow_symlinks=False).st_size
        except FileNotFoundError:
            pass
        return 0

    def identity_of(self, path: bytes) -> Identity | None:
        """The original's identity now; None when there is no such original."""
        try:
            with self.directory(path) as (directory, name):
                return Identity.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def remove_stale(self, path: bytes) -> Stale:
        """Removes what the daemon made of another content of this original, or of one that is gone."""
        try:
            with self.directory(path) as (directory, name):
                try:
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    status = None
                present = status is not None and stat.S_ISREG(status.st_mode)
                removed = 0
                decided = False
                for suffix in SUFFIXES:
                    mark = read_mark(directory, name + suffix)
                    if mark is None:
                        continue
                    if mark is FOREIGN or (present and status is not None and mark.describes(status)):
                        done = mark is FOREIGN or (status is not None and mark.decides(status, self._avif))
                        decided |= suffix in DECISIONS and done
                    else:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(name + suffix, dir_fd=directory)
                            removed += 1
                return Stale(present, decided, removed)
        except FileNotFoundError:
            return Stale(False, False, 0)

    # Publishing, in the publishing thread

    def publish(self, batch: Sequence[Finished]) -> list[Result]:
        """Publishes decisions, each in one rename; what became of each, in order.

        All files are on disk before the first is renamed. Write-back was started for each when it was
        written, so while one is waited for the others are under way.
        """
        with self._publishing:
            opened = [self._synced(finished) for finished in batch]
            return [self._publish(finished, fd) for finished, fd in zip(batch, opened, strict=True)]

    def _synced(self, finished: Finished) -> int | OSError:
        """Opens an unfinished decision and waits until it and what goes with it are on disk."""
        fd = -1
        try:
            if finished.avif:
                self._sync_avif(finished.avif)
            fd = os.open(self._path(finished.temporary), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if finished.suffix == WEBP:
                os.fdatasync(fd)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            return error
        return fd

    def _sync_avif(self, avif: Unfinished) -> None:
        fd = os.open(self._path(avif.temporary), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.setxattr(fd, XATTR, avif.mark.pack())
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def discard(self, finished: Finished) -> None:
        """Removes unfinished files that will not be published."""
        self._remove(finished)
        if finished.avif:
            self._remove(finished.avif)

    def _remove(self, unfinished: Finished | Unfinished) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(unfinished.temporary))

    def _path(self, temporary: bytes) -> bytes:
        return os.path.join(self.temporary, temporary)

    def _publish(self, finished: Finished, fd: int | OSError) -> Result:
        result = Result.GONE
        try:
            if isinstance(fd, FileNotFoundError):  # the unfinished file is lost, not the original
                result = Result.CHANGED
            elif isinstance(fd, OSError):
                raise fd
            else:
                result = self._rename(finished, fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in FULL:
                raise
            result = Result.FULL
        finally:
            if result is not Result.PUBLISHED:
                self.discard(finished)
        return result

    def _rename(self, finished: Finished, fd: int) -> Result:
        try:
            mark = finished.mark
            if not finished.second:
                latency_ms = max(0, time.time_ns() - finished.started_ns) // 1_000_000
                mark = mark._replace(latency_ms=latency_ms)
            os.setxattr(fd, XATTR, mark.pack())
        finally:
            os.close(fd)
        with self.directory(finished.path) as (directory, name):
            if not self._unchanged(directory, name, finished.identity):
                return Result.CHANGED
            there = read_mark(directory, name + finished.suffix)
            if there is FOREIGN:
                return Result.FOREIGN
            if finished.second and (there is None or there[:2] != finished.mark[:2]):
                return Result.CHANGED
            placed: list[bytes] = []
            try:
                # nginx takes an original for decided as soon as the decision is there.
                if finished.avif and self._place(directory, finished.avif, name + AVIF):
                    placed.append(AVIF)
                elif finished.avif:
                    self._remove(finished.avif)
                if not self._place(directory, finished, name + finished.suffix):
                    return Result.FOREIGN
                placed.append(finished.suffix)
                if not self._unchanged(directory, name, finished.identity):
                    return Result.CHANGED
                unwanted = set(SUFFIXES).difference(placed)
                if finished.second and _is_smaller(directory, name + AVIF, name + finished.suffix):
                    unwanted.remove(AVIF)
                placed.clear()
            finally:  # whatever went wrong, nothing remains of it
                for suffix in placed:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name + suffix, dir_fd=directory)
            for suffix in unwanted:
                if isinstance(read_mark(directory, name + suffix), Mark):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name + suffix, dir_fd=directory)
            forget_eviction(directory, name)
        return Result.PUBLISHED

    def _place(self, directory: int, unfinished: Finished | Unfinished, target: bytes) -> bool:
        """Renames a file into its place; not where somebody else's is, and then it says so."""
        source = self._path(unfinished.temporary)
        mark = read_mark(directory, target)
        if mark is FOREIGN:
            return False
        if mark is None:
            try:
                linux.rename_without_replacing(directory, source, directory, target)
            except FileExistsError:
                return False
        else:
            os.rename(source, target, dst_dir_fd=directory)
        return True

    @staticmethod
    def _unchanged(directory: int, name: bytes, identity: Identity) -> bool:
        return Identity.of(os.stat(name, dir_fd=directory, follow_symlinks=False)) == identity

    @staticmethod
    def box_of(path: bytes) -> Box | None:
        """The box that Bitrix resized an original to; None: it isn't one of Bitrix's results."""
        return box_of(path)

    # Removing

    def remove_failure(self, path: bytes) -> bool:
        """Removes the verdict that workers failed on an original, so that it is tried again; whether there
        was one.

        :raises ValueError: the path is outside the root.
        """
        try:
            with self.directory(path) as (directory, name):
                mark = read_mark(directory, name + KEEP)
                if not isinstance(mark, Mark) or mark.verdict != FAILED:
                    return False
                os.unlink(name + KEEP, dir_fd=directory)
                return True
        except FileNotFoundError:
            return False

    def remove_original(self, path: bytes, identity: Identity) -> bool:
        """Removes a damaged original if it still is what was judged; whether it did.

        It is taken aside first, so that a new one written meanwhile is never what goes.
        """
        aside = os.path.join(self.temporary, b"aside-%d" % next(self._names))
        try:
            with self.directory(path) as (directory, name):
                os.rename(name, aside, src_dir_fd=directory)
                if self._unchanged(directory, aside, identity):
                    os.unlink(aside)
                    return True
                try:
                    linux.rename_without_replacing(directory, aside, directory, name)
                except FileExistsError:
                    os.unlink(aside)
                return False
        except FileNotFoundError:
            return False

    def remove_empty_directories(self, path: bytes) -> None:
        """Removes the directory that `path` lies in if it is empty, and the one above a `W_H_T` directory.

        No further: these two are what Bitrix itself removes with the last of a picture's sizes. The site may
        remember for seconds that a directory is there, and fails to make a picture below one that isn't.
        """
        above = 2 if self.box_of(path) else 1
        for _ in range(above):
            path = path.rpartition(b"/")[0]
            if not path.startswith(self.root + b"/"):
                return
            try:
                with self.directory(path) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError:
                return


class _Foreign(Enum):
    FOREIGN = auto()


FOREIGN = _Foreign.FOREIGN
"""In place of a mark: the file is there and isn't ours."""


def _is_smaller(directory: int, one: bytes, other: bytes) -> bool:
    """Whether a file is there and smaller than another."""
    try:
        sizes = [os.stat(name, dir_fd=directory, follow_symlinks=False).st_size for name in (one, other)]
    except FileNotFoundError:
        return False
    return sizes[0] < sizes[1]


def read_mark(directory: int, name: bytes) -> Mark | Literal[_Foreign.FOREIGN] | None:
    """The mark of a file, FOREIGN where it bears none of ours, None where there is no file."""
    try:
        fd = os.open(name, _OPEN_FILE, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError:  # a symbolic link, a socket, no permission: not ours
        return FOREIGN
    try:
        return Mark.parse(os.getxattr(fd, XATTR)) or FOREIGN
    except OSError:
        return FOREIGN
    finally:
        os.close(fd)


def note_eviction(original: int, status: os.stat_result) -> None:
    """Marks an open original: its variants are evicted because they were not read. Neither its bytes nor its
    modification time change."""
    os.setxattr(original, EVICTED, _eviction_of(status))


def is_evicted(path: bytes) -> bool:
    """Whether the variants of an original's present content were removed as they were not read."""
    try:
        status = os.stat(path, follow_symlinks=False)
        return os.getxattr(path, EVICTED, follow_symlinks=False) == _eviction_of(status)
    except OSError:
        return False


def forget_eviction(directory: int, name: bytes) -> None:
    """Removes the note, where there is one."""
    with contextlib.suppress(OSError):
        os.removexattr(b"/proc/self/fd/%d/%b" % (directory, name), EVICTED, follow_symlinks=False)


def _eviction_of(status: os.stat_result) -> bytes:
    return b"%d %d" % (status.st_size, status.st_mtime_ns)

"""Pushes the spool to the other host, in its own process: whatever it waits for, the guard doesn't.

It talks to the guard in lines: `progress FILES BYTES LEFT LEFT_BYTES`, `ready`, `failed REASON`, `done`;
the guard answers `ready` with `bound` as soon as the mount lies over the spool.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import queue
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from host_agent.mount.config import Config
from host_agent.mount.linux import Lease, open_beneath
from host_agent.mount.spool_rules import Identity, Journal, Pushed, Remote, Verdict, decide

TEMPORARY = ".mount-guard"
"""Directory below the remote root for files that aren't whole yet. The converter knows pictures by their
extension, nginx serves no name with a leading dot, and the files in it have neither."""

# Reads what the other host has, not what this one remembers to have sent.
AROUND_CACHE = os.O_DIRECT

_AWAY = (errno.ENOTCONN, errno.ECONNABORTED)
_CHUNK = 1 << 20
_PATH = os.O_PATH | os.O_DIRECTORY
# Passes before the mount is laid over: each finds what was written during the one before.
_PASSES = 6
_FEW = 4
# A moment is waited for in which no process writes to the spool, so that no picture is cut in two halves of
# its making, one below and one above: nothing changed for the first time, and with less of it, in a busy
# shop, after each half second.
_QUIET = (0.1, 0.05, 0.02)
# A file system without leases: a file that long at rest counts as closed.
_REST = 5.0


class UnreachableError(Exception):
    """The connection is gone: nothing more can be done over it."""


class NoRoomError(Exception):
    """The other host has no room."""


class BusyError(Exception):
    """The file is being written or changed just now, or the time for it is over: a later pass takes it."""


@dataclass
class Totals:
    files: int = 0
    bytes: int = 0


def entries(root: int, path: str = ".") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is below a directory descriptor, by path; links aren't followed."""
    try:
        descriptor = open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # removed meanwhile
    below = []
    try:
        with os.scandir(descriptor) as found:
            for entry in found:
                name = entry.name if path == "." else f"{path}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    below.append(name)
                yield name, entry
    finally:
        os.close(descriptor)
    for directory in below:
        yield from entries(root, directory)


def walk(root: int) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files below a directory descriptor, by path, and their status."""
    for path, entry in entries(root):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                yield path, entry.stat(follow_symlinks=False)


def directories(root: int) -> Iterator[str]:
    """Directories below a directory descriptor, each after the one that it is in."""
    for path, entry in entries(root):
        if entry.is_dir(follow_symlinks=False):
            yield path


def count(path: str, limit: int | None = None) -> tuple[int, int]:
    """Files and bytes below a directory; counting ends at `limit` files."""
    files = size = 0
    try:
        root = os.open(path, _PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        for _, status in walk(root):
            files += 1
            size += status.st_size
            if limit is not None and files >= limit:
                break
    finally:
        os.close(root)
    return files, size


class Push:
    """One push, from a proven private mount to an empty spool."""

    def __init__(self, config: Config, remote: int, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._local = os.open(config.below, _PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        # Not opened by its path: when sshfs has just ended, that is a directory of this host.
        self._remote = remote
        self._journal_path = config.state / "journal"
        self._lock = threading.Lock()
        self._done: dict[str, Identity] = {}
        self._totals = Totals()
        self._left = Totals()
        self._said = 0.0
        self._bound: int | None = None
        self._number = 0
        self._complained: set[str] = set()
        self._made: set[str] = set()
        config.state.mkdir(parents=True, exist_ok=True)
        try:
            with self._journal_path.open() as lines:
                self._journal = Journal.read(lines)
        except FileNotFoundError:
            self._journal = Journal()
        self._lines = os.open(
            self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    # The two halves.

    def before(self) -> None:
        """Pushes until little is left or `push_first` is over, then waits for a quiet moment.

        :raises UnreachableError, NoRoomError: it can't be done now.
        """
        deadline = time.monotonic() + self._config.push_first
        self._clear_temporary()
        self._forget_removed()
        for _ in range(_PASSES):
            found = self._pending()
            if not found:
                break
            self._all(found, deadline)
            if len(found) <= _FEW or time.monotonic() >= deadline:
                break
        self._bound = self._remote_time()
        self._make_directories()
        for quiet in _QUIET:
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                if self._quiet(quiet):
                    self._make_directories()
                    return
                time.sleep(0.01)

    def after(self, bound: Callable[[float], bool]) -> None:
        """Goes on below the mount, until the spool is empty.

        :param bound: waits for some seconds; false when there is no need to go on.
        :raises UnreachableError: the connection is gone.
        """
        self._forget_removed()
        pause = 0.05
        while True:
            files = list(walk(self._local))
            self._progress(files, always=True)
            if not files:
                break
            with contextlib.suppress(NoRoomError):
                self._all(self._to_push(files))
            if not next(walk(self._local), None):
                continue
            # What is left is open, or can't be pushed: looked at again and again.
            pause = min(pause * 2, 10.0)
            if not bound(pause):
                return
        self._remove_empty()
        # All is settled: nothing to remember.
        os.ftruncate(self._lines, 0)
        self._clear_temporary(last=True)

    # Files.

    def _pending(self) -> list[str]:
        found = list(walk(self._local))
        self._progress(found, always=True)
        return self._to_push(one for one in found if self._done.get(one[0]) != Identity.of(one[1]))

    def _to_push(self, found: Iterable[tuple[str, os.stat_result]]) -> list[str]:
        """Those that aren't too large, the smallest first: none waits behind a large one."""
        paths = []
        for path, status in sorted(found, key=lambda one: one[1].st_size):
            if status.st_size <= self._config.push_largest:
                paths.append(path)
            else:
                self._complain(
                    path, f"{status.st_size} bytes are more than push_largest, {self._config.push_largest}"
                )
        return paths

    def _make_directories(self) -> None:
        """Empty ones too: somebody has just made one to write into it."""
        for path in directories(self._local):
            if path in self._made:
                continue
            self._made.add(path)
            try:
                os.close(self._directory(path))
            except OSError as error:
                if error.errno in _AWAY:
                    raise UnreachableError(f"{path}: {error.strerror}") from None

    def _quiet(self, seconds: float) -> bool:
        now = time.time()
        for path in directories(self._local):
            with contextlib.suppress(FileNotFoundError):
                if abs(now - os.stat(path, dir_fd=self._local, follow_symlinks=False).st_ctime) < seconds:
                    return False
        for path, status in walk(self._local):
            if abs(now - status.st_ctime) < seconds:
                return False
            if self._done.get(path) == Identity.of(status):
                continue
            with contextlib.suppress(OSError), self._opened(path) as descriptor, Lease(descriptor) as lease:
                if not lease.granted and lease.supported:
                    return False
        return True

    def _all(self, paths: list[str], deadline: float = math.inf) -> None:
        """Settles files in parallel; one that can't be, or not before the deadline, is left where it is."""
        with ThreadPoolExecutor(self._config.push_workers) as pool:
            list(pool.map(lambda path: self._one(path, deadline), paths))

    def _one(self, path: str, deadline: float) -> None:
        if time.monotonic() >= deadline:
            return
        try:
            self._settle(path, deadline)
        except (BusyError, FileNotFoundError):
            pass  # the next pass finds it, if it is still there
        except OSError as error:
            if error.errno in _AWAY:
                raise UnreachableError(f"{path}: {error.strerror}") from None
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EIO) and self._no_room():
                raise NoRoomError(f"{path}: the other host has no room") from None
            self._complain(path, str(error))

    def _complain(self, path: str, why: str) -> None:
        if path not in self._complained:
            self._complained.add(path)
            print(f"{path}: {why}; it stays in the spool", file=sys.stderr, flush=True)

    def _settle(self, path: str, deadline: float) -> None:
        with self._opened(path) as descriptor:
            spooled = self._at_rest(descriptor)
            remote = self._remote_status(path)
            pushed = self._journal.pushed.get(path)
            verdict = decide(spooled, self._done.get(path), pushed, remote, self._bound)
            if verdict is Verdict.COMPARE and self._same(descriptor, spooled, remote, path, deadline):
                verdict = Verdict.DROP
                self._done[path] = spooled
            if verdict is not Verdict.DROP:
                self._transfer(path, descriptor, spooled, deadline, replace=verdict is Verdict.COMPARE)
                self._done[path] = spooled
                with self._lock:
                    self._totals.files += 1
                    self._totals.bytes += spooled.size
                self._progress()
            if self._bound is not None:
                self._drop(path, descriptor, spooled)

    def _same(
        self, descriptor: int, spooled: Identity, remote: Remote | None, path: str, deadline: float
    ) -> bool:
        if remote is None or remote.size != spooled.size:
            return False
        try:
            other = open_beneath(self._remote, path, os.O_RDONLY | AROUND_CACHE)
        except FileNotFoundError:
            return False
        try:
            same = _digest(other, deadline) == _digest(descriptor, deadline)
        finally:
            os.close(other)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return same

    def _transfer(
        self, path: str, descriptor: int, spooled: Identity, deadline: float, *, replace: bool
    ) -> None:
        """Copies to a temporary name, reads it back, and renames: a part of it is never seen there."""
        status = os.fstat(descriptor)
        directory, _, name = path.rpartition("/")
        with self._lock:
            self._number += 1
            temporary = f"{TEMPORARY}/{os.getpid()}-{self._number}"
        new = open_beneath(self._remote, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                sha256 = _copy(descriptor, new, deadline)
                os.fchmod(new, stat.S_IMODE(status.st_mode) & 0o777)
                os.fsync(new)
                # After the last write: each write on the other host sets the time again.
                os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(new)
            # Around the page cache: what the other host has, not what we sent.
            back = open_beneath(self._remote, temporary, os.O_RDONLY | AROUND_CACHE)
            try:
                if _digest(back, deadline) != sha256:
                    raise OSError(errno.EBADMSG, "read back with other bytes than it was written with")
                if self._at_rest(descriptor) != spooled:
                    raise BusyError
                parent = self._directory(directory)
                try:
                    pushed = Pushed(spooled.size, status.st_mtime_ns // 1_000_000_000, sha256)
                    with self._lock:
                        # Before the rename: after it, a kill must not leave a push without a record.
                        self._note(Journal.push_line(path, pushed))
                        self._journal.pushed[path] = pushed
                    self._publish(temporary, parent, name, replace=replace)
                finally:
                    os.close(parent)
                # Its journal entry takes the rename along.
                os.fsync(back)
            finally:
                os.close(back)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._remote)
            raise

    def _publish(self, temporary: str, parent: int, name: str, *, replace: bool) -> None:
        if not replace and self._bound is not None:
            # The site may have written it through the mount just now; only link() never replaces.
            try:
                os.link(temporary, name, src_dir_fd=self._remote, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                raise BusyError from None
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                    raise
            else:
                os.unlink(temporary, dir_fd=self._remote)
                # A link is no event for who watches for finished files; closing it after an open is.
                os.close(os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent))
                return
        os.rename(temporary, name, src_dir_fd=self._remote, dst_dir_fd=parent)

    def _drop(self, path: str, descriptor: int, spooled: Identity) -> None:
        directory, _, name = path.rpartition("/")
        parent = open_beneath(self._local, directory or ".", _PATH)
        try:
            with Lease(descriptor) as lease:
                changed = Identity.of(os.fstat(descriptor)) != spooled
                exchanged = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino != spooled.inode
                if changed or exchanged or (lease.supported and not lease.granted):
                    raise BusyError
                with self._lock:
                    self._note(Journal.drop_line(path))
                    self._journal.pushed.pop(path, None)
                os.unlink(name, dir_fd=parent)
            with self._lock:
                self._left.files -= 1
                self._left.bytes -= spooled.size
            self._progress()
        finally:
            os.close(parent)

    def _forget_removed(self) -> None:
        """Removes from the other host what the site has removed from the spool, if it still is as pushed."""
        for path, pushed in self._journal.removed(path for path, _ in walk(self._local)).items():
            remote = self._remote_status(path)
            if remote == Remote(pushed.size, pushed.mtime):
                directory, _, name = path.rpartition("/")
                with contextlib.suppress(FileNotFoundError):
                    parent = open_beneath(self._remote, directory or ".", _PATH)
                    try:
                        found = open_beneath(parent, name, os.O_RDONLY | AROUND_CACHE)
                        try:
                            same = _digest(found) == pushed.sha256
                        finally:
                            os.close(found)
                        if same:
                            os.unlink(name, dir_fd=parent)
                    finally:
                        os.close(parent)
            self._note(Journal.drop_line(path))
            self._journal.pushed.pop(path, None)
            self._done.pop(path, None)

    # Both sides.

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        descriptor = open_beneath(self._local, path, os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _at_rest(self, descriptor: int) -> Identity:
        """The file's identity.

        :raises BusyError: somebody has it open for writing, or it isn't a file (any more).
        """
        with Lease(descriptor) as lease:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink == 0:
                raise BusyError
            if lease.supported and not lease.granted:
                raise BusyError
            if not lease.supported and abs(time.time() - status.st_ctime) < _REST:
                raise BusyError
            return Identity.of(status)

    def _remote_status(self, path: str) -> Remote | None:
        directory, _, name = path.rpartition("/")
        try:
            parent = open_beneath(self._remote, directory or ".", _PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)
        return Remote(status.st_size, status.st_mtime_ns // 1_000_000_000)

    def _directory(self, path: str) -> int:
        """A descriptor of a directory on the other host, made as it is in the spool."""
        try:
            return open_beneath(self._remote, path or ".", _PATH)
        except FileNotFoundError:
            parent, _, name = path.rpartition("/")
            above = self._directory(parent)
            try:
                mode = self._mode(path)
                try:
                    os.mkdir(name, mode, dir_fd=above)
                except FileExistsError:
                    return open_beneath(above, name, _PATH)  # another worker was faster
                made = open_beneath(above, name, _PATH)
                Path(f"/proc/self/fd/{made}").chmod(mode)  # past the server's umask
                return made
            finally:
                os.close(above)

    def _mode(self, path: str) -> int:
        try:
            descriptor = open_beneath(self._local, path, _PATH)
        except OSError:
            return 0o755
        try:
            return stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777
        finally:
            os.close(descriptor)

    def _remote_time(self) -> int:
        """The other host's clock, as it stands on a file that it has just made."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{TEMPORARY}/now", dir_fd=self._remote)
        new = open_beneath(self._remote, f"{TEMPORARY}/now", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(new, b".")
            os.fsync(new)
        finally:
            os.close(new)
        return os.stat(f"{TEMPORARY}/now", dir_fd=self._remote).st_mtime_ns // 1_000_000_000

    def _no_room(self) -> bool:
        return os.fstatvfs(self._remote).f_bavail == 0

    def _clear_temporary(self, *, last: bool = False) -> None:
        """Removes what a killed push left on the other host."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(TEMPORARY, 0o700, dir_fd=self._remote)
        descriptor = open_beneath(self._remote, TEMPORARY, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 -- of a descriptor
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        if last:
            os.rmdir(TEMPORARY, dir_fd=self._remote)

    def _remove_empty(self, path: str = ".") -> None:
        """Removes the spool's directories, which hold nothing any more."""
        descriptor = open_beneath(self._local, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    self._remove_empty(f"{path}/{name}")
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def _note(self, line: str) -> None:
        # A full disk here is no reason to keep files from the other host: only removals go unnoticed.
        with contextlib.suppress(OSError):
            os.write(self._lines, line.encode())

    def _progress(
        self, found: list[tuple[str, os.stat_result]] | None = None, *, always: bool = False
    ) -> None:
        now = time.monotonic()
        if found is not None:
            self._left = Totals(len(found), sum(status.st_size for _, status in found))
        if always or now - self._said > 0.5:
            self._said = now
            self._say(
                f"progress {self._totals.files} {self._totals.bytes} {self._left.files} {self._left.bytes}"
            )


def _copy(source: int, target: int, deadline: float) -> str:
    """Copies a file, its holes as holes; the SHA-256 of what it shows.

    :raises BusyError: the deadline has passed.
    """
    digest = hashlib.sha256()
    size = end = 0
    for chunk in _chunks(source, deadline):
        digest.update(chunk)
        if chunk != bytes(len(chunk)):  # else it is a hole, or might as well be one
            view, end = memoryview(chunk), size
            while view:
                written = os.pwrite(target, view, end)
                view, end = view[written:], end + written
        size += len(chunk)
    if end != size:
        os.ftruncate(target, size)
    return digest.hexdigest()


def _digest(descriptor: int, deadline: float = math.inf) -> str:
    """The SHA-256 of a file.

    :raises BusyError: the deadline has passed.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(descriptor, deadline):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(descriptor: int, deadline: float) -> Iterator[bytes]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, _CHUNK):
        if time.monotonic() >= deadline:
            raise BusyError
        yield chunk


def main(config: Config, remote: int) -> int:
    """The process that the guard starts.

    :param remote: descriptor of the private mount that the guard has proven.
    """
    # A broken lease is reported by a signal that would end us.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.umask(0)
    answers: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            answers.put(line.strip())
        os._exit(0)  # the guard is gone

    def say(line: str) -> None:
        print(line, flush=True)

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return True

    threading.Thread(target=listen, daemon=True).start()
    try:
        push = Push(config, remote, say)
        push.before()
        say("ready")
        if answers.get() == "bound":
            push.after(wait)
        say("done")
    except (UnreachableError, NoRoomError, OSError) as error:
        say(f"failed {error}")
        return 1
    return 0

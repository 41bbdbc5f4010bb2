"""The system calls that the standard library doesn't have, and the kernel's tables of mounts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

_MS_RDONLY, _MS_BIND, _MS_PRIVATE = 0x1, 0x1000, 0x40000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 0x2, 0x8
_PR_SET_PDEATHSIG = 1
# The same number on every architecture (include/uapi/asm-generic/unistd.h).
_SYS_OPENAT2 = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x1, 0x2, 0x4, 0x8


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    id: int
    device: str
    """`major:minor` of the file system, the same for all binds of one mount."""
    point: str
    kind: str
    root: str = "/"
    """The directory of that file system which is shown."""


def parse_mounts(text: str) -> list[Mount]:
    """Reads mountinfo; of several mounts over one path the last is on top."""
    mounts = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        number, _, device, root, point, *_ = fields.split(" ")
        mounts.append(Mount(int(number), device, _plain(point), rest.split(" ")[0], _plain(root)))
    return mounts


def _plain(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def mounts() -> list[Mount]:
    """The kernel's table, which never waits for a file system."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text())


def mounts_at(point: str) -> list[Mount]:
    """The mounts over a path, which must have no symbolic link in it."""
    return [mount for mount in mounts() if mount.point == point]


def mount_of(descriptor: int) -> int:
    """The id of the mount that a descriptor leads to, whether or not it is still in the table."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("mnt_id:")).split()[1])


def resolved(path: str) -> str:
    """The path without symbolic links, as the kernel's table has it; a mount there isn't asked."""
    point = Path(path)
    point = point.parent.resolve() / point.name
    return str(point if mounts_at(str(point)) else point.resolve())


def bind(source: str, target: str, *, private: bool = False) -> None:
    """Binds a directory over another, without what is mounted below it.

    :param private: later mounts below the source don't show up below the target.
    :raises OSError: the kernel refuses.
    """
    arguments = (os.fsencode(source), os.fsencode(target), None)
    _check(_LIBC.mount(*arguments, ctypes.c_ulong(_MS_BIND), None), target)
    if private:
        flags = ctypes.c_ulong(_MS_PRIVATE)
        _check(_LIBC.mount(None, os.fsencode(target), None, flags, None), target)


def detach(point: str, ours: Callable[[Mount], bool] = lambda _: True) -> None:
    """Takes the mounts away from a path, in use or not; nothing there is no error.

    :param ours: only down to the first for which this is false.
    """
    for mount in reversed(mounts_at(point)):
        if not ours(mount):
            return
        if _LIBC.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW) < 0:
            return


def die_with_parent() -> None:
    """Makes the kernel send this process SIGKILL when its parent ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens a path below a directory descriptor; no component may be a symbolic link or another mount.

    Root works here in directories that the site's account may write to: an ordinary path could be
    exchanged for a link to anywhere between the look and the open.

    :raises OSError: as open; ELOOP for a link, EXDEV for a mount.
    """
    how = _OpenHow(
        flags | os.O_CLOEXEC | os.O_NOFOLLOW,
        mode,
        _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH,
    )
    arguments = (ctypes.c_long(_SYS_OPENAT2), root, os.fsencode(path), ctypes.byref(how))
    return _check(_LIBC.syscall(*arguments, ctypes.c_size_t(ctypes.sizeof(how))), path)


class Lease:
    """A read lease on an open file: the kernel grants it only while no process has the file open for writing,
    in any process, mount namespace or container.

    While it is held a new writer waits, so it is held for microseconds. Chosen over a search of
    /proc/*/fd: exact, one call a file, and nothing can slip between the look and the unlink.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.granted = False
        """Whether no process writes."""
        self.supported = True

    def __enter__(self) -> Lease:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self.granted = True
        except OSError as error:
            self.supported = error.errno == errno.EAGAIN
        return self

    def __exit__(self, *_: object) -> None:
        if self.granted:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def control_group() -> list[int]:
    """The processes of this service but this one."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    if "/mount-guard@" not in path:
        return []  # started by hand: the others aren't ours
    try:
        found = Path(f"/sys/fs/cgroup{path}/cgroup.procs").read_text().split()
    except OSError:
        return []
    return [int(pid) for pid in found if int(pid) not in (0, os.getpid())]


def kill_control_group() -> None:
    """Ends what an earlier guard of this service left: a kernel may not do it on systemd's behalf."""
    for pid in control_group():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def notify(message: str) -> None:
    """Tells systemd, if it started us and asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.sendto(message.encode(), address)

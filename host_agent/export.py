"""Root's files in the site's `upload/`, where PHP may replace anything by a symbolic link.

The unit that exports `upload/` to the CDN host runs it (see `roles/sftp.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence

# linux/fs.h; the same on all machines that have 64 bits.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10

# Of file systems that know no such flag, and in containers whose root may not set it.
_UNKNOWN = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def main(arguments: Sequence[str]) -> int:
    """Does one of the three, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="cdn-host export", description=__doc__)
    parser.add_argument("upload", help="the site's directory")
    parser.add_argument("name", help="of the empty file in it that proves what the CDN host sees")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("prove", help="put that file there")
    one.set_defaults(do=lambda told: prove(told.upload, told.name))
    one = commands.add_parser("close", help="hide directories of upload in what is exported of it")
    one.add_argument("export")
    one.add_argument("closed", help="a directory that only root may read, to be seen in their place")
    one.add_argument("private", nargs="+", help="a path below upload")
    one.set_defaults(do=lambda told: close(told.upload, told.name, told.export, told.closed, told.private))
    one = commands.add_parser("release", help="let all of it be removed again")
    one.add_argument("private", nargs="+", help="a path below upload")
    one.set_defaults(do=lambda told: release(told.upload, told.name, told.private))
    told = parser.parse_args(arguments)
    try:
        told.do(told)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cdn-host export: {error}", file=sys.stderr)
        return 1
    return 0


def prove(upload: str, name: str) -> None:
    """Makes the file that proves to the CDN host that it sees `upload`: root's, closed to others, and one
    that PHP, whose the directory is, can neither remove nor replace.

    :raises OSError: something else is there that can't be removed.
    """
    with _opened(upload) as directory:
        _pin(directory, name, upload)


def release(upload: str, name: str, private: Sequence[str]) -> None:
    """Lets that file be removed like any other, and removes those in the private directories."""
    with _opened(upload) as directory:
        with contextlib.suppress(FileNotFoundError):
            _flagged(directory, name, immutable=False)
        for path in private:
            with _below(directory, path, make=False) as place:
                if place is not None and _is_pin(place, name):
                    _removed(place, name)


def _pin(directory: int, name: str, path: str) -> None:
    if not _is_pin(directory, name):
        _removed(directory, name)
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0, dir_fd=directory))
    if not _flagged(directory, name, immutable=True):
        print(f"{path}/{name}: nothing here can keep PHP from removing it", file=sys.stderr)


def _removed(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _flagged(directory, name, immutable=False)
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=directory)


def _is_pin(directory: int, name: str) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    alone = stat.S_ISREG(there.st_mode) and there.st_nlink == 1
    return alone and (there.st_uid, stat.S_IMODE(there.st_mode), there.st_size) == (0, 0, 0)


def _flagged(directory: int, name: str, *, immutable: bool) -> bool:
    """Whether the file, where it is one, has been made immutable or is so no longer.

    :raises FileNotFoundError: it isn't there.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return False
        raise
    try:
        [flags] = struct.unpack("i", fcntl.ioctl(file, _FS_IOC_GETFLAGS, struct.pack("i", 0)))
        wanted = flags | _FS_IMMUTABLE_FL if immutable else flags & ~_FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("i", wanted))
        return True
    except OSError as error:
        if error.errno in _UNKNOWN:
            return False
        raise
    finally:
        os.close(file)


def close(upload: str, name: str, export: str, closed: str, private: Sequence[str]) -> None:
    """Hides directories of `upload` in its export: mounts an unreadable one over each.

    One that isn't there yet is made, as it could not be hidden once it comes: with the owner and the mode of
    the directory it is in. Bitrix removes some of them before it fills them again, and what is mounted would
    go with them: so each gets a file that it can't remove. In the place of a symbolic link nothing is
    mounted: in the export it leads nowhere but to what is exported.

    :raises OSError: one can't be made or opened.
    :raises CalledProcessError: mount fails; it has said why.
    """
    for path in private:
        with _opened(upload) as directory, _below(directory, path) as made:
            if made is None:
                print(f"{upload}/{path}: no directory, so there is nothing to hide", file=sys.stderr)
                continue
            _pin(made, name, f"{upload}/{path}")
        # Opened again in the export, where the mount shall be: over what was opened, whatever has its name by
        # now.
        with _opened(export) as directory, _below(directory, path, make=False) as place:
            if place is not None:
                # What is mounted by move_mount(2) follows no link at the end of a path, and this is one.
                target = f"/proc/self/fd/{place}/."
                subprocess.run(["mount", "-c", "-o", "bind", closed, target], check=True, pass_fds=[place])


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    directory = os.open(path, _DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def _below(directory: int, path: str, *, make: bool = True) -> Iterator[int | None]:
    """A directory below another one, no link followed; None: something else is there, or nothing."""
    at = os.dup(directory)
    try:
        for name in path.split("/"):
            above, at = at, -1
            try:
                at = _entered(above, name, make=make)
            finally:
                os.close(above)
        yield at
    except (NotADirectoryError, FileNotFoundError):
        yield None
    finally:
        if at >= 0:
            os.close(at)


def _entered(above: int, name: str, *, make: bool) -> int:
    flags = _DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    own = os.fstat(above)
    os.mkdir(name, 0o700, dir_fd=above)
    made = os.open(name, flags, dir_fd=above)
    os.fchown(made, own.st_uid, own.st_gid)
    os.fchmod(made, stat.S_IMODE(own.st_mode) & 0o777)
    return made

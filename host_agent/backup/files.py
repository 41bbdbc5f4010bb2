"""Replaces files and directories atomically."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

_NEW = ".bitrix-cdn-new"


def link_tree(source: Path, to: Path) -> None:
    """A second tree of the same files, without copying them where the file system is the same.

    :raises FileNotFoundError: a file went away meanwhile.
    """
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            link_tree(entry, to / entry.name)
            continue
        try:
            os.link(entry, to / entry.name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copy2(entry, to / entry.name, follow_symlinks=False)


def make_parents(path: Path) -> None:
    """Makes the directories above a path that are missing, for everybody to pass, whatever the umask."""
    for parent in reversed(path.parents):
        if not parent.is_dir():
            parent.mkdir()
            parent.chmod(0o755)


def give_to(tree: Path, uid: int, gid: int) -> None:
    """Makes a whole tree somebody's."""
    for directory, _, names in os.walk(tree):
        for path in (Path(directory), *(Path(directory, name) for name in names)):
            os.chown(path, uid, gid, follow_symlinks=False)


def put_in_place(source: Path, to: Path) -> None:
    """Puts a tree over another one, with owners, modes and times; each file in one rename.

    What is only in the other one stays.
    """
    status = source.lstat()
    if stat.S_ISDIR(status.st_mode):
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            put_in_place(entry, to / entry.name)
        os.chown(to, status.st_uid, status.st_gid)
        to.chmod(stat.S_IMODE(status.st_mode))
        return
    new = to.with_name(to.name + _NEW)
    new.unlink(missing_ok=True)
    shutil.copy2(source, new, follow_symlinks=False)
    os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
    new.rename(to)


def replace_content(directory: Path, source: Path) -> None:
    """Makes a directory the same as another one on the same file system.

    The directory itself stays: it may be a mount point. Its owner is that of all that comes.
    """
    owner = directory.stat()
    give_to(source, owner.st_uid, owner.st_gid)
    for entry in directory.iterdir():
        remove(entry)
    for entry in sorted(source.iterdir()):
        try:
            entry.rename(directory / entry.name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(entry, directory / entry.name)
            if (directory / entry.name).is_dir():
                give_to(directory / entry.name, owner.st_uid, owner.st_gid)
            else:
                os.chown(directory / entry.name, owner.st_uid, owner.st_gid)


def remove(path: Path) -> None:
    """Removes whatever is there, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mounted(path: str) -> bool:
    """Whether something is mounted at a path, without asking it: a network's mount may hang."""
    with Path("/proc/self/mountinfo").open() as lines:
        return any(line.split(" ")[4] == path for line in lines)

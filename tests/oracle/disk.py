"""A power loss that takes what was written and not synced.

As lazyfs has it: names, marks and times are on the disk in the order in which they were made, as a journal
keeps them; of a file's bytes only those are for which somebody has waited. The converter's own calls of fsync
tell which files these are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SYNCED = "ORACLE_SYNCED"
"""Names the file that the converter notes them in, in its environment."""

HOOK = f"""
import os

def _noting(real):
    def sync(fd):
        real(fd)
        status = os.fstat(fd)
        line = b"%d %d %d\\n" % (status.st_ino, status.st_size, status.st_mtime_ns)
        with open(os.environ["{SYNCED}"], "ab", buffering=0) as file:
            file.write(line)
    return sync

os.fsync, os.fdatasync = _noting(os.fsync), _noting(os.fdatasync)
"""
"""What Python runs first in each of the converter's processes."""


def lose(root: Path, noted: Path) -> list[Path]:
    """Empties all variants that nobody synced, as a power loss does; which these are."""
    synced = {tuple(map(int, line.split())) for line in noted.read_bytes().splitlines()}
    lost = []
    for path in _variants(root):
        status = path.stat()
        if status.st_size and (status.st_ino, status.st_size, status.st_mtime_ns) not in synced:
            empty(path)
            lost.append(path)
    return lost


def empty(path: Path) -> None:
    """Takes the bytes of a file, and nothing else of it."""
    status = path.stat()
    os.truncate(path, 0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _variants(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory, name) for name in names if name.endswith((".webp", ".avif")))

"""Restores the last backup beside what is there, and compares it byte by byte.

What the host noted when it made the backup is compared with what comes out of the repository. Of pictures,
which are many, a sample is taken, and compared with those that are still the same on the host.
"""

from __future__ import annotations

import filecmp
import os
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from host_agent.backup import files
from host_agent.backup.config import Config
from host_agent.backup.contents import Contents, Sum, differing
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.restic import PICTURES, TAG, Repository, Snapshot, chosen
from host_agent.backup.state import Restore

_SAMPLE = 100
"""Pictures of each tree that are restored."""
_LARGEST = 64 * 1024 * 1024
"""Bytes of a picture beyond which it isn't among them."""
_ALONE = 256 * 1024 * 1024
"""Bytes of a saved path from which on it is restored by itself."""
_KEPT_FREE = 0.05
"""Share of the disk that a drill leaves alone."""


def compare(config: Config, repository: Repository) -> int:
    """Drills a restore of the last backup; how many files were compared.

    :raises BackupError: something can't be restored, or isn't what was saved.
    """
    directory = Path(config.state)
    if Restore.load(directory):
        raise BackupError("a restore onto this host is not finished; run bitrix-cdn restore again first")
    snapshot = chosen(repository.snapshots(TAG), "latest", config.repository)
    contents = Contents.load(directory)
    if contents is None or not snapshot.id.startswith(contents.snapshot):
        raise BackupError(
            f"{config.repository}: what was in backup {snapshot.id[:8]} isn't noted on this host; "
            "bitrix-cdn backup makes one that is"
        )
    scratch = directory / "drill"
    compared = 0
    try:
        for paths, sums in _portions(contents):
            _make_room(scratch, sum(one.size for one in sums.values()))
            repository.restore(snapshot.id, [_literally(path) for path in paths], str(scratch))
            if problems := differing(sums, scratch):
                raise _different(config, snapshot, problems)
            compared += len(sums)
        if PICTURES in snapshot.tags:
            compared += sum(
                _pictures(config, repository, snapshot, tree, scratch) for tree in config.pictures
            )
    finally:
        files.remove(scratch)
    return compared


def _portions(contents: Contents) -> Iterator[tuple[list[str], dict[str, Sum]]]:
    """What is restored together: what is large by itself, to take less of the disk, then the rest."""
    rest: list[str] = []
    others: dict[str, Sum] = {}
    for path in contents.paths:
        if any(path.startswith(f"{other}/") for other in contents.paths):
            continue
        inside = {
            name: one for name, one in contents.sums.items() if name == path or name.startswith(f"{path}/")
        }
        if sum(one.size for one in inside.values()) > _ALONE:
            yield [path], inside
        else:
            rest.append(path)
            others |= inside
    if rest:
        yield rest, others


def _pictures(config: Config, repository: Repository, snapshot: Snapshot, tree: str, scratch: Path) -> int:
    """Restores some pictures of a tree; how many of them are still on the host, and were compared."""
    chance = random.SystemRandom()
    sample: list[tuple[str, int]] = []
    known = ((path, size) for path, size in repository.files(snapshot.id, tree) if size <= _LARGEST)
    for number, one in enumerate(known):
        if number < _SAMPLE:
            sample.append(one)
        elif (place := chance.randrange(number + 1)) < _SAMPLE:
            sample[place] = one
    if not sample:
        return 0
    _make_room(scratch, sum(size for _, size in sample))
    repository.restore(snapshot.id, [_literally(path) for path, _ in sample], str(scratch))
    problems = []
    compared = 0
    for path, size in sample:
        restored = scratch / path.lstrip("/")
        if not restored.is_file() or restored.stat().st_size != size:
            problems.append(f"{path}: not restored whole")
        elif _is_same(restored, path):
            compared += 1
            if not filecmp.cmp(restored, path, shallow=False):
                problems.append(f"{path}: other bytes than on this host")
    if problems:
        raise _different(config, snapshot, problems)
    return compared


def _is_same(restored: Path, path: str) -> bool:
    """Whether a picture on the host is still the one that was saved, by its size and time."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    saved = restored.lstat()
    return (there.st_size, there.st_mtime_ns) == (saved.st_size, saved.st_mtime_ns)


def _make_room(scratch: Path, size: int) -> None:
    """Begins with an empty directory.

    :raises BackupError: what is to be restored there would fill the disk.
    """
    files.remove(scratch)
    scratch.mkdir(mode=0o700)
    disk = shutil.disk_usage(scratch)
    if size > disk.free - disk.total * _KEPT_FREE:
        raise BackupError(
            f"{scratch}: no room for a drill: {size:,} bytes are restored, {disk.free:,} are free, and "
            f"{_KEPT_FREE:.0%} of the disk stays free",
            Status.DISK_FULL,
        )


def _literally(path: str) -> str:
    """A pattern that means one path."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)


def _different(config: Config, snapshot: Snapshot, problems: Sequence[str]) -> BackupError:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return BackupError(
        f"{config.repository}: backup {snapshot.id[:8]} can't be restored: {problems[0]}{more}"
    )

"""What was in a backup when it was made, file by file: known to the host, not to the repository."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from host_agent.backup.state import write

_FILE = "contents.json"


@dataclass(frozen=True)
class Sum:
    """One file."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str

    def is_of(self, status: os.stat_result) -> bool:
        """Whether a file with this status is the one that was read."""
        return (self.size, self.mtime_ns, self.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class Contents:
    """`contents.json`."""

    snapshot: str
    """The beginning of its id."""
    paths: tuple[str, ...]
    """What was saved: files and whole directories. No pictures."""
    sums: Mapping[str, Sum] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> Contents | None:
        """Those of the last backup; None: nothing readable is there."""
        try:
            values = json.loads((directory / _FILE).read_text())
            sums = {path: Sum(*fields) for path, fields in values["sums"].items()}
            return cls(str(values["snapshot"]), tuple(values["paths"]), sums)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save(self, directory: Path) -> None:
        sums = {path: [*asdict(one).values()] for path, one in self.sums.items()}
        values = {"snapshot": self.snapshot, "paths": self.paths, "sums": sums}
        write(directory / _FILE, json.dumps(values), 0o600)


def summed(paths: Iterable[str], excluded: Sequence[str], known: Mapping[str, Sum]) -> dict[str, Sum]:
    """The checksums of all regular files in some paths.

    :param excluded: directories, or patterns of names, that aren't saved.
    :param known: of earlier: a file that still is the same isn't read again.
    """
    # Such as Prometheus' blocks, which are linked for each backup under the same name.
    found: dict[str, Sum] = {}
    for path, status in _files(paths, excluded):
        if path in found:
            continue
        before = known.get(path)
        if before and before.is_of(status):
            found[path] = before
            continue
        try:
            with Path(path).open("rb") as file:
                opened = os.fstat(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            continue
        found[path] = Sum(opened.st_size, opened.st_mtime_ns, opened.st_ino, digest)
    return found


def unchanged(sums: Mapping[str, Sum]) -> dict[str, Sum]:
    """Those whose files are still what was read. The others may have been saved in either state."""

    def still(path: str, one: Sum) -> bool:
        try:
            return one.is_of(os.lstat(path))
        except FileNotFoundError:
            return False

    return {path: one for path, one in sums.items() if still(path, one)}


def differing(sums: Mapping[str, Sum], root: Path) -> list[str]:
    """What is wrong with restored files, one line each.

    :param root: where they were restored to.
    """
    found = []
    for path, one in sums.items():
        restored = root / path.lstrip("/")
        try:
            with restored.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            found.append(f"{path}: {error.strerror}")
            continue
        if digest != one.sha256:
            found.append(f"{path}: other bytes than were saved")
    return found


def _files(paths: Iterable[str], excluded: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files, on the file system of the path in which they were found."""
    for path in paths:
        try:
            yield from _below(path, excluded, os.lstat(path).st_dev)
        except FileNotFoundError:
            continue


def _below(path: str, excluded: Sequence[str], device: int) -> Iterator[tuple[str, os.stat_result]]:
    if _is_excluded(path, excluded):
        return
    try:
        status = os.lstat(path)
        inside = sorted(map(str, Path(path).iterdir())) if stat.S_ISDIR(status.st_mode) else []
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode):
        yield path, status
    elif status.st_dev == device:
        for one in inside:
            yield from _below(one, excluded, device)


def _is_excluded(path: str, excluded: Sequence[str]) -> bool:
    """As restic has it: a pattern with a slash is of a path, another of any name."""
    name = Path(path).name
    return any(path == pattern if "/" in pattern else fnmatchcase(name, pattern) for pattern in excluded)

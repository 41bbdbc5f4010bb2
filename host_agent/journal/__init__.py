"""What a host was before a change, kept on the host itself, so that the change can be taken back there.

While the directory of a journal exists, whatever changes files, releases and units records first what each
was: the first record of a thing is the one that counts. A record is whole or not there, also when the host
loses power, and it is there before the change is made.

On the disk, of which later versions must be able to make sense:

    files/ID/path     of a file, link or directory; ID is a part of the hash of its path
             was      what it was,
             made     or, if it was nothing, the directories that weren't there either, the deepest first
             late     if it goes back after the units: stamps of what a unit runs with, and directories, which
                      are only ever removed again
    units/UNIT/active, enabled    as `systemctl is-active` and `is-enabled` tell
               order              its place among the units, from 0
               restart, reload    if that was done to it
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from host_agent import flock
from host_agent.json_output import AgentError
from host_agent.systemd import Systemd

JOURNAL = Path("/var/lib/bitrix-cdn/journal")
"""The journal of a rollout: while it is there, a deploy can be undone."""

_PATIENCE_S = 300


class Journal:
    """A journal, by its directory, which need not be there."""

    def __init__(self, place: Path = JOURNAL) -> None:
        self.place = place

    @property
    def is_open(self) -> bool:
        return self.place.is_dir()

    def open(self) -> None:
        """Opens it; one that is open stays as it is."""
        remove(self._gone)
        self.place.mkdir(parents=True, exist_ok=True)
        synced([self.place.parent])

    def close(self) -> None:
        """Closes it, in one rename, as half a journal would undo half of the change."""
        remove(self._gone)
        self.place.rename(self._gone)
        synced([self.place.parent])
        remove(self._gone)

    def recording(self, descriptor: int) -> bool:
        """Whether this is open. Keeps it from being undone for as long as anybody has the given file open,
        which is its lock: what was recorded is changed meanwhile.

        :raises AgentError: it is being undone.
        """
        if not self.is_open:
            return False
        if not flock.locked(descriptor, flock.SHARED, _PATIENCE_S) or not self.is_open:
            raise AgentError(f"{self.place} is being undone")
        return True

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this is open, once no process records, or changes what was recorded.

        :raises AgentError: what an earlier run left working on the host takes too long.
        """
        if not self.is_open:
            yield False
            return
        with flock.opened(self.lock) as descriptor:
            if not flock.locked(descriptor, flock.EXCLUSIVE, _PATIENCE_S):
                raise AgentError(f"{self.place} is in use by another run")
            yield self.is_open

    @property
    def lock(self) -> Path:
        return self.place.with_name(f"{self.place.name}.lock")

    @property
    def _gone(self) -> Path:
        return self.place.with_name(f"{self.place.name}.gone")

    def was(self, path: Path | str) -> Path:
        """Where this has what a path was; nothing is there if the path isn't recorded or was nothing."""
        return self.place / "files" / _id(str(path)) / "was"

    def records(self) -> list[Path]:
        """The records of paths."""
        return sorted(self.place.glob("files/*"))

    def record(self, path: str, *, late: bool = False) -> None:
        """Records what a path is."""
        kept = self.place / "files" / _id(path)
        if kept.is_dir():
            return
        new = self._new()
        write(new / "path", f"{path}\n")
        if late:
            write(new / "late", "")
        if os.path.lexists(path):
            copied(path, str(new / "was"))
        else:
            above = itertools.takewhile(lambda up: not up.is_dir(), Path(path).parents)
            write(new / "made", "".join(f"{directory}\n" for directory in above))
        self._keep(new, kept)

    def record_unit(self, unit: str, action: str, systemd: Systemd) -> None:
        """Records what a unit is.

        :param action: `restart` or `reload`, which is about to be done to it, or nothing.
        """
        kept = self.place / "units" / unit
        if not kept.is_dir():
            new = self._new()
            write(new / "active", f"{systemd.state(unit)}\n")
            write(new / "enabled", f"{systemd.enabled(unit)}\n")
            write(new / "order", f"{len(list(self.place.glob('units/*')))}\n")
            self._keep(new, kept)
        if action:
            write(kept / action, "")
            synced([kept / action, kept])

    def _new(self) -> Path:
        new = self.place / f"new.{os.getpid()}"
        remove(new)
        new.mkdir()
        return new

    def _keep(self, new: Path, kept: Path) -> None:
        kept.parent.mkdir(exist_ok=True)
        synced(below(new))
        new.rename(kept)
        synced([kept.parent, self.place])


def record(
    systemd: Systemd,
    paths: Iterable[str] = (),
    late: Iterable[str] = (),
    unit: str = "",
    action: str = "",
    trial: str = "",
    *,
    journal: Path = JOURNAL,
    lock: int,
) -> None:
    """Records what is about to be changed, where a journal is open.

    :param paths: files and symbolic links that are about to be written or removed.
    :param late: of those, the ones that go back last.
    :param unit: systemd unit that is about to be enabled.
    :param action: what is about to be done to it besides.
    :param trial: directory of a journal for this one change, which is opened here; see `roles/converter.py`.
    :param lock: the journal's lock, opened by whoever makes the change.
    """
    outer = Journal(journal)
    journals = [outer] if outer.recording(lock) else []
    if trial:
        own = Journal(Path(trial))
        if not own.is_open:
            for each in journals:
                each.record(trial, late=True)
            own.open()
        journals.append(own)
    for each in journals:
        for path in paths:
            each.record(path)
        for path in late:
            each.record(path, late=True)
        if unit:
            each.record_unit(unit, action, systemd)


def write(path: Path, text: str) -> None:
    """Writes a file of a journal."""
    # Names on the disk needn't be UTF-8.
    path.write_text(text, "utf-8", errors="surrogateescape")


def read(path: Path) -> str:
    """What a file of a journal says; nothing if it isn't there."""
    try:
        return path.read_text("utf-8", errors="surrogateescape").rstrip("\n")
    except FileNotFoundError:
        return ""


def copied(path: str, to: str) -> None:
    """Copies a file, link or directory with all that it has: owner, mode, times, attributes.

    :raises AgentError: it can't be copied.
    """
    done = subprocess.run(["cp", "-a", "--", path, to], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AgentError(done.stderr.strip())


def synced(paths: Iterable[Path]) -> None:
    """Syncs files and directories to the disk; what is no longer there, or is neither, is left out."""
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def below(path: Path) -> list[Path]:
    """All that is in a directory, and what the path itself is."""
    return [*path.rglob("*"), path]


def remove(*paths: Path | str) -> None:
    """Removes files, links and whole directories, if they are there."""
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _id(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]

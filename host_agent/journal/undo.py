"""Restores the state that a journal has recorded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from host_agent.journal import Journal, below, copied, read, remove, synced
from host_agent.json_output import AgentError
from host_agent.systemd import Systemd

_TRIES = 5
_BETWEEN_TRIES_S = 3
_ACTIVE_WITHIN_S = 20
_LOOK_EVERY_S = 0.2
_SYSCTL = Path("/etc/sysctl.d")

# What `is-active` tells of a unit that ran, and of one that worked.
_RAN = {"active", "reloading", "activating"}
_WORKED = {"active", "reloading"}


class Undone(NamedTuple):
    """What was put back."""

    paths: int
    units: list[str]
    """What was done to units, such as `restart nginx.service`, in this order."""


class _Unit(NamedTuple):
    name: str
    record: Path

    @property
    def ran(self) -> bool:
        return read(self.record / "active") in _RAN

    @property
    def worked(self) -> bool:
        return read(self.record / "active") in _WORKED

    @property
    def verb(self) -> str:
        if (self.record / "restart").exists():
            return "restart"
        return "reload-or-restart" if (self.record / "reload").exists() else ""


def undo(journal: Journal, systemd: Systemd) -> Undone | None:
    """Puts everything back as the journal has it, then closes it; None: it isn't open.

    Files first, then systemd's units: what was restarted is restarted, what was reloaded is reloaded, in the
    order of the deploy; what was not running before is stopped, and disabled if it was. When all run, the
    stamps go back and what is new in directories goes. Cut short anywhere, it can be run again.

    :raises AgentError: a unit doesn't come back; the journal stays open.
    """
    with journal.alone() as is_open:
        if not is_open:
            return None
        records = journal.records()
        units = sorted(
            (_Unit(record.name, record) for record in journal.place.glob("units/*")),
            key=lambda unit: int(read(unit.record / "order")),
        )
        failed = _stop(units, systemd)
        touched = [_back(record) for record in records if not (record / "late").exists()]
        systemd.do("daemon-reload")
        done, not_back = _start(units, systemd)
        _fail({"does not stop": failed, "does not come back": not_back}, systemd)
        _fail({"does not stay active": _not_staying(units, systemd)}, systemd)
        touched += [_back(record) for record in records if (record / "late").exists()]
        _remove_directories(records)
        # Before the journal is closed: what it has is needed no more only when this is on the disk.
        synced(dict.fromkeys(one for path in touched for one in (*below(path), path.parent)))
        journal.close()
        return Undone(len(records), done)


def _stop(units: list[_Unit], systemd: Systemd) -> list[str]:
    """Stops and disables what is new, while its files are there; returns what doesn't stop."""
    failed = []
    for unit in reversed(units):
        running = not unit.ran and systemd.state(unit.name) == "active"
        if running and not systemd.do("stop", unit.name):
            failed.append(unit.name)
        if read(unit.record / "enabled") in {"disabled", "not-found", ""}:
            systemd.do("disable", unit.name)
    return failed


def _start(units: list[_Unit], systemd: Systemd) -> tuple[list[str], list[str]]:
    """Makes the units that ran load their files; returns what was done, and which don't come back."""
    done, failed = [], []
    for unit in units:
        if not unit.ran or not unit.verb:
            continue
        systemd.do("reset-failed", unit.name)
        for _ in range(_TRIES):
            if systemd.do(unit.verb, unit.name):
                done.append(f"{unit.verb} {unit.name}")
                break
            # A host in need of this may be busy: what does not take its files at once may a moment later.
            systemd.wait(_BETWEEN_TRIES_S)
        else:
            failed += [unit.name] if unit.worked else []
    return done, failed


def _not_staying(units: list[_Unit], systemd: Systemd) -> list[str]:
    failed = []
    # Twice: one that ends at once has been active as well.
    for again in (0, 1):
        systemd.wait(again)
        for unit in units:
            left = _ACTIVE_WITHIN_S / _LOOK_EVERY_S
            while unit.worked and systemd.state(unit.name) != "active":
                if not left:
                    failed.append(unit.name)
                    break
                left -= 1
                systemd.wait(_LOOK_EVERY_S)
    return list(dict.fromkeys(failed))


def _fail(failed: dict[str, list[str]], systemd: Systemd) -> None:
    """:raises AgentError: a unit failed; the last lines of each explain it."""
    found = [(unit, what) for what, units in failed.items() for unit in units]
    if found:
        words = [f"the last lines of {unit}:\n{systemd.last_words(unit)}" for unit, _ in found]
        raise AgentError("; ".join(f"{unit} {what}" for unit, what in found), "\n".join(words))


def _back(record: Path) -> Path:
    """Puts a path back, and returns it."""
    path, was = Path(read(record / "path")), record / "was"
    new = Path(f"{path}.bitrix-cdn-undo")
    remove(f"{path}.bitrix-cdn-new", new)
    if os.path.lexists(was):
        path.parent.mkdir(parents=True, exist_ok=True)
        copied(str(was), str(new))
        if _is_directory(was) and _is_directory(path):
            # No directory takes the place of one that has something in it.
            remove(path)
        new.replace(path)
    elif (record / "late").exists() or not _is_directory(path):
        remove(path)
    if path.parent == _SYSCTL and path.exists():
        # A container may not be allowed to set them.
        subprocess.run(["sysctl", "-q", "-p", str(path)], check=False, stderr=subprocess.DEVNULL)
    return path


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove_directories(records: list[Path]) -> None:
    """Removes the directories that were made for files; one that holds more meanwhile stays."""
    made = {line for record in records for line in read(record / "made").splitlines()}
    for directory in sorted(made, reverse=True):
        try:
            Path(directory).rmdir()
        except OSError:
            continue

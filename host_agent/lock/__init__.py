"""The lock of this host that keeps two operators from changing it at once.

A rollout takes it for as long as it needs, over interruptions: the file says who holds it. Who reads or
writes it holds the directory's `flock` meanwhile, so that of two who come at the same moment one is second.
Everything else takes it for one run: a process holds the `flock` of a second file, `.run`, and ends with the
SSH connection, so that a run that crashes leaves nothing behind. That file has the holder and the process.

Both files are as earlier versions wrote them in shell, which respect this one and are respected by it.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from host_agent import flock
from host_agent.json_output import AgentError

LOCK = Path("/var/lib/bitrix-cdn/lock")

_PATIENCE_S = 10
_RUN_PATIENCE_S = 1


class Holder(NamedTuple):
    """Who holds a host."""

    operator: str
    machine: str
    since: str
    """Date and time, UTC."""
    what: str
    token: str
    """What the holder is known by; empty: the file can't be read."""

    def __str__(self) -> str:
        return f"{self.operator} on {self.machine} since {self.since} ({self.what})"

    def written(self) -> str:
        """One line, as it stands in the file."""
        return json.dumps(self._asdict(), ensure_ascii=False)


_UNKNOWN = Holder("somebody", "an unknown machine", "an unknown time", f"{LOCK} can't be read", "")


def parse(text: str) -> Holder | None:
    """The holder that a lock file names; None: there is no text, so the host is free.

    A file that can't be read holds the host as well: somebody wrote it.
    """
    if not text.strip():
        return None
    try:
        values = json.loads(text)
        return Holder(**{key: str(values[key]) for key in ("operator", "machine", "since", "what", "token")})
    except (ValueError, TypeError, KeyError):
        return _UNKNOWN


class Lock:
    """The lock, by the path of its file."""

    def __init__(self, path: Path = LOCK) -> None:
        self._path = path
        self._run = path.with_name(f"{path.name}.run")

    def holder(self) -> Holder | None:
        """Who holds the host."""
        return self._persistent_holder() or self._run_holder(0)

    def take(self, holder: Holder, instead_of: Holder | None = None) -> Holder | None:
        """Takes the lock until it is released; returns who else has it, or None when it was taken.

        A lock with the same token is one's own.

        :param instead_of: the holder whose lock is broken; if it is somebody else's by now, it stays.
        :raises AgentError: others are changing it all the time.
        """
        allowed = {holder.token} | ({instead_of.token} if instead_of else set())
        with self._alone():
            for other in (self._persistent_holder(), self._run_holder(_RUN_PATIENCE_S)):
                if other and other.token not in allowed:
                    return other
            new = self._path.with_name(f"{self._path.name}.new")
            new.write_text(f"{holder.written()}\n", "utf-8")
            new.replace(self._path)
        return None

    def release(self, token: str) -> None:
        """Releases the lock, if it has this token."""
        if not self._path.parent.is_dir():
            return
        with self._alone():
            persistent = self._persistent_holder()
            if persistent and persistent.token == token:
                self._path.unlink()

    def force_release(self) -> Holder | None:
        """Releases the lock, whoever has it, and ends the process of a run. Returns who had it.

        :raises AgentError: the run's process doesn't end.
        """
        if not self._path.parent.is_dir():
            return None
        with self._alone():
            persistent, running = self._persistent_holder(), self._run_holder(0)
            self._path.unlink(missing_ok=True)
            if running:
                os.kill(self._process(), signal.SIGTERM)
                if self._run_holder(_PATIENCE_S):
                    raise AgentError(f"the run of {running} does not end")
        return persistent or running

    def hold(self, holder: Holder, lease: float, say: Callable[[str, Holder], None]) -> None:
        """Holds the host until standard input ends or is silent for `lease` seconds.

        :param say: is told first `taken`; `ours` where a run with the same token holds it already, or `held`
            by whom: then it isn't taken.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with flock.opened(self._run) as run:
            with self._alone():
                other = self._persistent_holder()
                if not other or other.token == holder.token:
                    free = flock.locked(run, flock.EXCLUSIVE, _RUN_PATIENCE_S)
                    other = None if free else self._of_run() or _UNKNOWN
                if not other:
                    self._run.write_text(f"{holder.written()}\n{os.getpid()}\n", "utf-8")
            if other:
                say("ours" if other.token == holder.token else "held", other)
                return
            say("taken", holder)
            while select.select([0], [], [], lease)[0] and os.read(0, 1 << 10):
                pass
            self._run.write_text("")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with flock.opened(self._path.parent, os.O_RDONLY) as directory:
            if not flock.locked(directory, flock.EXCLUSIVE, _PATIENCE_S):
                raise AgentError(f"{self._path} is being changed by somebody")
            yield

    def _persistent_holder(self) -> Holder | None:
        return parse("".join(_lines(self._path)))

    def _run_holder(self, patience: float) -> Holder | None:
        """For whom a run's process holds the host, if it hasn't ended after `patience` seconds."""
        try:
            with flock.opened(self._run, os.O_RDONLY) as run:
                return None if flock.locked(run, flock.SHARED, patience) else self._of_run()
        except FileNotFoundError:
            return None

    def _of_run(self) -> Holder | None:
        return parse("".join(_lines(self._run)[:1]))

    def _process(self) -> int:
        try:
            return int(_lines(self._run)[1])
        except (IndexError, ValueError):
            raise AgentError(f"{self._run} names no process that could be ended") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []

"""A directory that stands for a host, where what the agent does there can be tried without one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host_agent import flock, journal
from host_agent.journal import Journal
from host_agent.journal.undo import undo
from host_agent.systemd import Systemd


class Services(Systemd):
    """Services that do what they are told, but for those that are broken.

    They are files, so that they outlive a process that is killed.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self.log = place / "log"
        self.log.touch()
        self.start_fails: Callable[[], bool] = lambda: False

    def be(self, unit: str, active: str, enabled: str = "enabled") -> None:
        (self.place / f"{unit}.active").write_text(active)
        (self.place / f"{unit}.enabled").write_text(enabled)

    def done(self) -> list[str]:
        """What was done, and is forgotten now."""
        done = self.log.read_text().splitlines()
        self.log.write_text("")
        return done

    def breaks(self, unit: str, verbs: str = "restart reload-or-restart start") -> None:
        (self.place / f"{unit}.broken").write_text(verbs)

    def mend(self, unit: str) -> None:
        (self.place / f"{unit}.broken").unlink()

    def state(self, unit: str) -> str:
        return self._of(unit, "active") or "inactive"

    def enabled(self, unit: str) -> str:
        return self._of(unit, "enabled")

    def do(self, verb: str, *units: str) -> bool:
        with self.log.open("a") as log:
            log.write(" ".join((verb, *units)) + "\n")
        for unit in units:
            starts = verb in {"start", "restart", "reload-or-restart"}
            if verb in self._of(unit, "broken").split() or (starts and self.start_fails()):
                self.be(unit, "failed", self.enabled(unit))
                return False
            now = {"disable": "disabled", "enable": "enabled"}.get(verb, self.enabled(unit))
            self.be(unit, "active" if starts else "inactive" if verb == "stop" else self.state(unit), now)
        return True

    def result(self, unit: str) -> str:
        return "exit-code"

    def last_words(self, unit: str, lines: int = 15, since: float | None = None) -> str:
        return f"last words of {unit}"

    def wait(self, seconds: float) -> None:
        pass

    def _of(self, unit: str, what: str) -> str:
        try:
            return (self.place / f"{unit}.{what}").read_text().strip()
        except FileNotFoundError:
            return ""


class Machine:
    """A directory that stands for a host."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.etc = root / "etc"
        self.etc.mkdir()
        self.services = Services(root / "units")
        (root / "lib").mkdir()
        self.journal = Journal(root / "lib/journal")

    def record(self, *paths: Path, late: tuple[Path, ...] = (), trial: Path | str = "", **unit: str) -> None:
        with self.changing() as lock:
            journal.record(
                self.services,
                [str(path) for path in paths],
                [str(path) for path in late],
                trial=str(trial),
                journal=self.journal.place,
                lock=lock,
                **unit,
            )

    @contextmanager
    def changing(self) -> Iterator[int]:
        """Where the lock of the journal is open, as in a script that records and changes something."""
        if not self.journal.is_open:
            yield -1
            return
        with flock.opened(self.journal.lock) as lock:
            yield lock

    def undo(self) -> int:
        """Undoes; how many paths that was about."""
        undone = undo(self.journal, self.services)
        assert undone is not None
        assert not self.journal.is_open
        return undone.paths


STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "subprocess.Popen", "fcntl.flock"}


def finishes(do: Callable[[], Any], step: int) -> bool:
    """Does something in a separate process; whether that ended before that step began."""
    child = os.fork()
    if not child:
        steps = 0

        def killed(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if event in STEPS and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(killed)
            do()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0

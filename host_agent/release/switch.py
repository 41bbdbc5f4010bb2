"""Makes a release of the converter the current one, and undoes it if the release doesn't become healthy."""

from __future__ import annotations

import subprocess
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from host_agent import flock
from host_agent.health import converter as health
from host_agent.journal import read, record, remove
from host_agent.journal.undo import undo
from host_agent.json_output import AgentError
from host_agent.release import Releases
from host_agent.systemd import Systemd

CONFIG = Path("/etc/webp-converter/config.toml")
UNIT = health.UNIT

_LAST_WORDS = 8
_BACK_WITHIN_S = 60
"""Seconds for what was healthy before: nothing is won by giving it up."""


class Health:
    """The converter's health."""

    def __init__(self, config: Path = CONFIG) -> None:
        self._config = config

    def now(self) -> str:
        """The parts that are degraded; see :mod:`host_agent.health.converter`."""
        return health.now(self._config)

    def wait(self, release: str, seconds: float, before: str) -> str:
        """The reason why it isn't healthy in the end; empty: it is."""
        try:
            return " ".join(health.wait(health.address(self._config), release, seconds, before).split())
        except (OSError, ValueError) as error:
            return f"{self._config}: {error}"


class Wanted(NamedTuple):
    """What an operator or a deploy wants."""

    release: str
    healthy_within_s: float
    start: str
    """The shell script that has the daemon run, and stamps it; see `bitrix_cdn/engine/services.py`."""
    stamp: str
    """The path of the stamp."""
    action: str = "restart"
    """`restart`, or empty: the daemon runs with its files as they are already."""
    back: bool = False
    """Whether this is an operator's way back, so that what is newer leaves the history."""


class Switch:
    """The change from one release to another."""

    def __init__(
        self,
        releases: Releases,
        systemd: Systemd,
        healthy: Health,
        *,
        config: Path = CONFIG,
    ) -> None:
        self._releases = releases
        self._systemd = systemd
        self._health = healthy
        self._config = config

    def to(self, wanted: Wanted) -> None:
        """Makes a release current, starts it, looks at its health, and undoes it all if that is bad.

        :raises AgentError: what was wrong, and what became of it.
        """
        releases = self._releases
        with releases.alone():
            if wanted.back:
                self._before_going_back(wanted.release)
            lock_of = flock.opened(releases.journal.lock) if releases.journal.is_open else nullcontext(-1)
            with lock_of as lock:
                record(
                    self._systemd,
                    [str(releases.link), str(releases.noted)],
                    [wanted.stamp],
                    UNIT,
                    wanted.action,
                    str(releases.trial.place),
                    journal=releases.journal.place,
                    lock=lock,
                )
                was, before, began = releases.before_trial(), self._health.now(), time.time()
                if releases.current != wanted.release:
                    new = releases.link.with_name("current.new")
                    remove(new)
                    new.symlink_to(f"releases/{wanted.release}")
                    new.replace(releases.link)
                # If this is killed meanwhile, what it has locked stays so until the daemon has started.
                started = subprocess.run(
                    ["sh", "-c", wanted.start], capture_output=True, check=False, close_fds=False
                )
                if started.returncode:
                    why = f"it does not start ({self._systemd.result(UNIT)})"
                else:
                    why = self._health.wait(wanted.release, wanted.healthy_within_s, before)
                if not why:
                    self._note(wanted, was)
                    releases.trial.close()
                    return
                words = self._systemd.last_words(UNIT, _LAST_WORDS, since=began)
                then = self._taken_back(wanted, was, before)
        raise AgentError(
            f"release {wanted.release} does not get healthy: {why}; {then}. Its last lines:\n{words}"
        )

    def _before_going_back(self, release: str) -> None:
        # What a deploy that was cut short has left half changed.
        undo(self._releases.trial, self._systemd)
        program = self._releases.path(release) / "bin/webp-converter"
        checked = subprocess.run(
            [program, "config", "check", "--config", self._config],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if checked.returncode:
            said = (checked.stdout.strip().splitlines() or ["it says nothing"])[-1]
            raise AgentError(
                f"release {release} refuses the configuration that is deployed: {said}; "
                "deploy from its sources"
            )

    def _note(self, wanted: Wanted, was: str) -> None:
        """Writes the history: the release is the last one in it."""
        history = self._releases.history
        if wanted.back:
            # What was current before it, so that going back again goes further back.
            kept = history[: history.index(wanted.release)] if wanted.release in history else history
        else:
            # What was healthy before it is the one to go back to, even if that wasn't recorded.
            last_first = dict.fromkeys(reversed([*history, was]))
            kept = [id for id in reversed(last_first) if id and id != wanted.release]
        noted = [*(id for id in kept if self._releases.is_complete(id)), wanted.release]
        new = self._releases.noted.with_name("history.new")
        new.write_text("".join(f"{id}\n" for id in noted), "utf-8")
        new.replace(self._releases.noted)

    def _taken_back(self, wanted: Wanted, was: str, before: str) -> str:
        """Undoes the change if there is something to go back to; returns the result in words."""
        configured = self._configuration_changed(wanted.stamp)
        if not was:
            return "it stays, as there is no earlier one to go back to"
        if was == wanted.release and not configured:
            return "there is nothing that could be taken back"
        try:
            undo(self._releases.trial, self._systemd)
            if self._systemd.do("start", UNIT):
                said = self._health.wait(was, max(wanted.healthy_within_s, _BACK_WITHIN_S), before)
            else:
                said = f"it does not start ({self._systemd.result(UNIT)})"
        except AgentError as error:
            said = str(error)
        if said:
            return f"release {was} does not come back either: {said}"
        return f"release {was} runs again{', with its configuration' if configured else ''}"

    def _configuration_changed(self, stamp: str) -> bool:
        """Whether more than the release is in the trial."""
        own = (f"{self._releases.home}/", f"{Path(stamp).parent}/")
        return any(not read(one / "path").startswith(own) for one in self._releases.trial.records())

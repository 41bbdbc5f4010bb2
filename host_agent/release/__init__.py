"""The converter's releases on this host: which is current, which were before, and which are no longer needed.

`/opt/webp-converter/releases/<id>` are complete and never change. `current` leads to one of them. `history`
names those that were current, one a line, the last one last: the way back. What was taken back is no longer
in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from host_agent import flock
from host_agent.journal import JOURNAL, Journal, remove
from host_agent.json_output import AgentError

HOME = Path("/opt/webp-converter")
TRIAL = JOURNAL.with_name("converter-trial")
"""Journal of what the converter ran with when it was last healthy; there while that is being changed."""

_PATIENCE_S = 600


class Listed(NamedTuple):
    """The releases of a host."""

    current: str
    """Empty: none."""
    history: list[str]
    """Those that were current and are complete, the last one last."""
    complete: list[str]
    """All that could be made current."""
    surplus: list[str]
    """Those that are no longer needed."""


class Releases:
    """The releases, by the directory that they are in."""

    def __init__(self, home: Path = HOME, trial: Path = TRIAL, journal: Path = JOURNAL) -> None:
        self.home = home
        self.link = home / "current"
        self.noted = home / "history"
        self.trial, self.journal = Journal(trial), Journal(journal)
        self._place = home / "releases"

    @property
    def current(self) -> str:
        """The id of the current one; empty: none."""
        return _led_to(self.link)

    @property
    def history(self) -> list[str]:
        """Those that were current, the last one last, as they are noted."""
        try:
            return self.noted.read_text("utf-8").split()
        except FileNotFoundError:
            return []

    def path(self, id: str) -> Path:
        """Where a release is, or would be."""
        return self._place / id

    def is_complete(self, id: str) -> bool:
        return (self._place / id / "release").exists()

    def listed(self, keep: int | None = None) -> Listed:
        """All of them.

        :param keep: how many are kept; None: none is surplus.
        """
        ids = sorted(self._ids())
        return Listed(
            self.current,
            [id for id in self.history if self.is_complete(id)],
            [id for id in ids if self.is_complete(id)],
            [] if keep is None else self.surplus(keep),
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other deploys and rollbacks from changing the releases.

        :raises AgentError: one is at work for too long.
        """
        with flock.opened(self.home / "lock") as lock:
            if not flock.locked(lock, flock.EXCLUSIVE, _PATIENCE_S):
                raise AgentError("another deploy or rollback is at work here")
            yield

    def before_trial(self) -> str:
        """The release that was current when the converter was last healthy; empty: none."""
        return _led_to(self.trial.was(self.link))

    def surplus(self, keep: int) -> list[str]:
        """Those that are no longer needed.

        They are those that aren't complete, and all but the last `keep`. The current one, the one before it,
        one that still runs and one that a journal could need are needed.
        """
        now = self.current
        before = [id for id in self.history if id != now]
        needed = {now, *before[-1:], *(_led_to(one.was(self.link)) for one in (self.trial, self.journal))}
        newest = sorted(self._ids(), key=lambda id: self.path(id).stat().st_mtime, reverse=True)
        # In the order in which they were current; then those that never were.
        order = [id for id in dict.fromkeys([now, *reversed(self.history), *newest]) if id in newest]
        last = [id for id in order if self.is_complete(id)][:keep]
        found = [id for id in order if id not in {*last, *needed}]
        running = self._running() if found else set()
        return [id for id in found if id not in running]

    def prune(self, keep: int) -> list[str]:
        """Removes those that are no longer needed, and returns them."""
        with self.alone():
            removed = self.surplus(keep)
            for id in removed:
                # Without its id it is incomplete: a half removed release is never gone back to.
                remove(self.path(id) / "release")
                remove(self.path(id))
            return removed

    def _ids(self) -> list[str]:
        found = self._place.iterdir() if self._place.is_dir() else ()
        return [path.name for path in found if path.is_dir() and not path.name.startswith(".")]

    def _running(self) -> set[str]:
        """Those that processes have files of in use."""
        named = re.compile(re.escape(f"{self._place}/") + "([^/\n]+)/")
        found = set()
        for maps in Path("/proc").glob("[0-9]*/maps"):
            try:
                found |= set(named.findall(maps.read_text(errors="replace")))
            except OSError:
                continue  # it has ended
        return found


def _led_to(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""

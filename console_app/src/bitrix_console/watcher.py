"""Asks the hosts how they are, again and again, so that no page waits for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bitrix_cdn.fleet import HostError, Inventory
from bitrix_cdn.status.ask import ask
from bitrix_cdn.status.facts import HostStatus

from bitrix_console import prometheus
from bitrix_console.prometheus import Monitored

EVERY_S = 15.0
_ASKED_FOR_S = 600.0
"""How long charts of a window are kept up to date after somebody has looked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """What is known, and since when."""

    at: float = 0.0
    """Seconds of the wall clock; 0: nothing is known yet."""
    hosts: tuple[HostStatus, ...] = ()
    monitored: Mapping[str, Monitored] = field(default_factory=dict)
    """By window."""
    problem: str = ""
    """Why nothing newer is known."""

    @property
    def latest(self) -> Monitored | None:
        """What the monitoring host told last, whatever the window."""
        return next(iter(self.monitored.values()), None)


class Asks(Protocol):
    """Where what is known comes from."""

    def hosts(self) -> tuple[HostStatus, ...]: ...

    def monitored(self, window: str, now: float) -> Monitored | None: ...


class Fleet:
    """The hosts of an inventory, over SSH."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory

    def hosts(self) -> tuple[HostStatus, ...]:
        return tuple(ask(self.inventory, list(self.inventory.hosts)))

    def monitored(self, window: str, now: float) -> Monitored | None:
        """
        :raises HostError: the monitoring host can't be asked.
        """
        names = self.inventory.groups.get("monitoring", ())
        if not names:
            return None
        remote = self.inventory.hosts[names[0]]
        remote.connect()
        wanted = prometheus.script(self.inventory.settings, window, now)
        return prometheus.read(remote.run(wanted, check=False, silence=30).text)


class Watcher:
    """Keeps what is known of the hosts; one thread asks."""

    def __init__(
        self,
        asks: Asks,
        told: Callable[[Told], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :param told: called with all that is known, after each time that the hosts were asked.
        """
        self._asks = asks
        self._report = told
        self._clock = clock
        self._told = Told()
        self._wanted = {"1d": float("inf")}
        """By window, until when somebody wants it."""
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    @property
    def told(self) -> Told:
        return self._told

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._wake.set()

    def want(self, window: str) -> Monitored | None:
        """What is known of a window; from now on it is asked for."""
        new = window not in self._told.monitored
        self._wanted[window] = max(self._wanted.get(window, 0.0), self._clock() + _ASKED_FOR_S)
        if new:
            self._wake.set()
        return self._told.monitored.get(window)

    def ask_now(self) -> None:
        """Has the hosts asked before it is time."""
        self._wake.set()

    def look(self) -> None:
        """Asks once."""
        now = self._clock()
        windows = [window for window, until in tuple(self._wanted.items()) if until > now]
        try:
            hosts = self._asks.hosts()
            answers = {window: self._asks.monitored(window, now) for window in windows}
            found = {window: one for window, one in answers.items() if one is not None}
            self._told = Told(self._clock(), hosts, found)
        except HostError as error:
            self._told = Told(self._told.at, self._told.hosts, self._told.monitored, str(error))
        self._report(self._told)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                self.look()
            except Exception:
                # Whatever it is: the next look may succeed, and pages tell how old theirs is.
                _log.exception("the hosts could not be asked")
            self._wake.wait(EVERY_S)

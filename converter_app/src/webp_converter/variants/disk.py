"""Whether variants can be published: the tree is usable, and there is space."""

from __future__ import annotations

import os
import threading
import time

from webp_converter.base import log
from webp_converter.config import Config
from webp_converter.variants.store import Store, StoreError

FULL_PAUSE_S = 5.0
"""How long nothing is tried again once something found no space."""


class Disk:
    """The file system that pictures lie on, as all parts of the daemon see it."""

    def __init__(self, config: Config, store: Store, scan_wanted: threading.Event) -> None:
        """`scan_wanted` asks for a reconcile scan."""
        self._root = config.store.root
        self._minimum_free_mib = config.store.minimum_free_mib
        self._store = store
        self._scan_wanted = scan_wanted
        self.problem = ""
        """Why nothing can be published; empty: it can."""

        self._full_until = 0.0

    def check(self) -> None:
        """Looks whether it can be published to."""
        try:
            self._store.check()
            space = os.statvfs(self._root)
            free_mib = space.f_bavail * space.f_frsize // 1024**2
            problem = ""
            if free_mib < self._minimum_free_mib:
                problem = f"{free_mib} MiB free, {self._minimum_free_mib} MiB wanted"
        except (StoreError, OSError) as error:
            problem = str(error)
        if not problem and time.monotonic() < self._full_until:
            return  # too little is free, which only a write that failed shows
        if problem != self.problem:
            if problem:
                log.error("disk", reason=problem)
            else:
                log.info("disk usable again")
                # A verdict that found no room may be missing.
                self._scan_wanted.set()
        self.problem = problem

    def full(self, reason: str) -> None:
        """Takes note that something found no space."""
        if not self.problem:
            log.error("disk", reason=reason)
        self.problem, self._full_until = reason, time.monotonic() + FULL_PAUSE_S

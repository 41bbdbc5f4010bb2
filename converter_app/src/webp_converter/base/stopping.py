"""Tells all loops of the daemon to stop."""

from __future__ import annotations

import threading


class Stopping(threading.Event):
    """Set when the daemon is to end."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = False
        """Whether it ends because it can't work."""

    def fail(self) -> None:
        """Ends the daemon with a failure."""
        self.failed = True
        self.set()

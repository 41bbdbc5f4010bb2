"""The host's services, through `systemctl`; tests use a substitute."""

from __future__ import annotations

import subprocess
import time


class Systemd:
    """The services of this host."""

    def state(self, unit: str) -> str:
        """Such as `active`, `inactive`, `failed`."""
        return self._said("is-active", unit)

    def enabled(self, unit: str) -> str:
        """Such as `enabled`, `disabled`; empty or `not-found`: systemd doesn't know the unit."""
        return self._said("is-enabled", unit)

    def do(self, verb: str, *units: str) -> bool:
        """Starts, stops, and so on; whether that went well."""
        command, nothing = ["systemctl", "-q", verb, *units], subprocess.DEVNULL
        # If this process is killed meanwhile, what it has locked stays so until the unit is done.
        done = subprocess.run(command, check=False, close_fds=False, stdout=nothing, stderr=nothing)
        return not done.returncode

    def result(self, unit: str) -> str:
        """How the unit ended last."""
        return self._said("show", "-p", "Result", "--value", unit)

    def last_words(self, unit: str, lines: int = 15, since: float | None = None) -> str:
        """The last lines of the unit's log."""
        command = ["journalctl", "-u", unit, "--no-pager", "-o", "cat", "-n", str(lines)]
        command += [] if since is None else ["--since", f"@{int(since)}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip("\n")

    def wait(self, seconds: float) -> None:
        """Gives the services time."""
        time.sleep(seconds)

    @staticmethod
    def _said(*arguments: str) -> str:
        return subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, check=False
        ).stdout.strip()

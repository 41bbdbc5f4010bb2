"""Installs the timer that runs the check on the operator's machine.

The keys to all hosts are already here; they must not be on a host that visitors reach.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

from bitrix_cdn.drift.report import DriftError
from bitrix_cdn.fleet import load
from bitrix_cdn.fleet.deploys import ROOT

UNIT = "bitrix-cdn-drift"
PLACE = Path("/etc/systemd/system")
SYSTEMD = Path("/run/systemd/system")
"""There, where systemd runs a machine."""


def install(inventory: str, user: str) -> str:
    """Writes the service and its timer, and starts the timer.

    :param user: the account that may log in to the hosts.
    :returns: what was done, in a sentence.
    :raises DriftError: it can't be; nothing was changed.
    """
    if os.geteuid():
        raise DriftError("only root can write to /etc/systemd/system; use sudo")
    if not SYSTEMD.is_dir():
        raise DriftError("systemd does not run this machine; use cron: docs/drift.md")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise DriftError(f"there is no account {user} on this machine") from None
    calendar = load(inventory).settings.drift.calendar
    _run("systemd-analyze", "calendar", calendar)
    cache = Path(account.pw_dir) / ".cache" / "bitrix-cdn"
    # As that account: a link in its home must lead root nowhere.
    as_user = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    _run(*as_user, "mkdir", "-p", str(cache))
    for name, content in units(Path(inventory).resolve(), user, cache, calendar).items():
        new = PLACE / f"{name}.new"
        new.write_text(content)
        new.chmod(0o644)
        new.rename(PLACE / name)
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", "-q", "--now", f"{UNIT}.timer")
    return f"{UNIT}.timer checks {inventory} at {calendar} as {user}: systemctl list-timers {UNIT}.timer"


def units(inventory: Path, user: str, cache: Path, calendar: str) -> dict[str, str]:
    """The units by name."""
    from bitrix_cdn.engine.files import rendered  # takes a while, and only this needs it

    files = rendered(
        "drift",
        inventory=inventory,
        root=ROOT,
        python=sys.executable,
        user=user,
        cache=cache,
        calendar=calendar,
    )
    return {Path(file.path).name: file.content for file in files}


def _run(*command: str) -> None:
    """Runs a command.

    :raises DriftError: it fails; with what it says.
    """
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:] or [f"exit {result.returncode}"]
        raise DriftError(f"{command[0]}: {reason[0]}")

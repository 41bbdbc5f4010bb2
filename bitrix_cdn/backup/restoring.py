"""A restore as the operator sees it: keys and pictures first, then the deploy, then the services' data."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from bitrix_cdn.backup import fleet
from bitrix_cdn.backup.fleet import Fleet, Member
from bitrix_cdn.fleet import deploys, keep_others_away
from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.fleet.progress import Display
from host_agent.backup.errors import BackupError, Status


def restore(
    everything: Fleet,
    member: Member,
    display: Display,
    *,
    snapshot: str,
    force: bool,
    pictures: bool,
    fingerprint: str | None,
) -> None:
    """Puts a host back as it was when a snapshot was made. Cut short, it goes on where it was.

    :param snapshot: `latest` or the beginning of an id.
    :param force: overwrite a host that is in use, or put back another snapshot than was begun.
    :param pictures: restore them, if they are in the snapshot.
    :param fingerprint: see :func:`bitrix_cdn.backup.fleet.connect`.
    :raises BackupError: the host is in use, there is no such snapshot, or a step fails; run again to go on.
    """
    started = time.monotonic()
    keep_others_away([member.remote], "restore")
    with recorded([member.remote], f"restore {snapshot}", everything.inventory):
        fleet.connect(member, fingerprint)
        fleet.end_what_runs(member)
        begun = _is_begun(member, force=force)
        fleet.prepare(member, everything.settings)
        display.say(f"{member.name}: restic and what opens the backups are in place")

        arguments = [snapshot, "--json"]
        arguments += [] if pictures else ["--without-pictures"]
        arguments += ["--another"] if force else []
        chosen = fleet.answer(member, "restore-begin", *arguments)
        verb = "going on with" if begun else "restoring"
        kind = "" if chosen["pictures"] else ", without pictures"
        display.say(f"{member.name}: {verb} {chosen['snapshot'][:8]} of {chosen['time']}{kind}")

        for line in fleet.follow(member, "restore-before"):
            display.say(f"{member.name}: {line}")
        fleet.reconnect(member)
        _deploy(everything, display)
        for line in fleet.follow(member, "restore-data"):
            display.say(f"{member.name}: {line}")
        display.say(f"{member.name}: restored in {time.monotonic() - started:.0f} s")


def _is_begun(member: Member, *, force: bool) -> bool:
    """Whether a restore was begun there.

    :raises BackupError: the host is in use.
    """
    # Asked without the command, which a bare host doesn't have, and whose older version may not know it.
    found = member.remote.run(
        "if [ -e /var/lib/bitrix-cdn/backup/restore.json ]; then echo begun; fi; "
        'if [ -n "$(ls -A /var/lib/bitrix-cdn/applied 2>/dev/null)" ]; then echo deployed; fi'
    ).text.split()
    begun = "begun" in found
    if "deployed" in found and not begun and not force:
        raise BackupError(
            f"{member.name}: is deployed and in use; a restore would put the backup's data in the place of "
            "what came since. --force does so",
            Status.LIVE,
        )
    return begun


def _deploy(everything: Fleet, display: Display) -> None:
    """Deploys the inventory: all hosts, as others may have to learn a new address of this one."""
    started = time.monotonic()
    display.say("deploying")
    log = Path(tempfile.gettempdir()) / f"bitrix-cdn-restore-{os.getpid()}.log"
    if failure := deploys.run(everything.inventory, log=log).failure:
        raise BackupError(
            f"the deploy fails: {failure.why} (all of it: {log}); put it right, then run the restore again: "
            "it goes on"
        )
    log.unlink()
    display.say(f"deployed in {time.monotonic() - started:.0f} s")

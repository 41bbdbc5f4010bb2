"""The commands for backups on the operator's machine: a function for each."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.backup import fleet
from bitrix_cdn.backup.fleet import Fleet, Member
from bitrix_cdn.backup.restoring import restore
from bitrix_cdn.fleet import HostError
from bitrix_cdn.fleet.progress import Display
from bitrix_cdn.fleet.progress import size as human
from bitrix_cdn.settings.backup import password_file, password_of
from host_agent.backup.errors import BackupError, Status

Say = Callable[[str], object]
Complain = Callable[[Exception], None]


def _each(
    everything: Fleet, limit: Sequence[str], complain: Complain, work: Callable[[Member], None]
) -> None:
    """Does something on one host after the other, and goes on where one fails."""
    for member in everything.chosen(limit):
        try:
            fleet.connect(member, None)
            work(member)
        except (BackupError, HostError) as failure:
            complain(failure)


def run(everything: Fleet, limit: Sequence[str], say: Say, complain: Complain) -> None:
    """Makes a backup of each host now."""

    def work(member: Member) -> None:
        state = _start(member, "bitrix-cdn-backup", "backup")
        say(
            f"{member.name}: backup {state['snapshot'][:8]}, {human(state['size'])}, "
            f"{human(state['added'])} of it new, {state['backup']['seconds']:.0f} s"
        )

    _each(everything, limit, complain, work)


def check(everything: Fleet, limit: Sequence[str], say: Say, complain: Complain) -> None:
    """Clears away what is no longer kept, and checks the rest."""

    def work(member: Member) -> None:
        state = _start(member, "bitrix-cdn-backup-check", "check")
        say(f"{member.name}: the repository is whole, {state['check']['seconds']:.0f} s")

    _each(everything, limit, complain, work)


def drill(everything: Fleet, limit: Sequence[str], say: Say, complain: Complain) -> None:
    """Restores each host's last backup beside what is there, and compares."""

    def work(member: Member) -> None:
        state = _start(member, "bitrix-cdn-backup-drill", "drill")
        say(
            f"{member.name}: the last backup was restored, {state['drilled']} files are what was saved, "
            f"{state['drill']['seconds']:.0f} s"
        )

    _each(everything, limit, complain, work)


def _start(member: Member, unit: str, task: str) -> dict[str, Any]:
    """Runs a unit to its end, in its sandbox, and returns what it left.

    :raises BackupError: it failed.
    """
    before = fleet.answer(member, "status")[task]["run"]
    started = member.remote.run(f"systemctl start {unit}.service", check=False)
    state: dict[str, Any] = fleet.answer(member, "status")
    after = state[task]
    if after["run"] == before:
        said = member.remote.run(f"journalctl -u {unit} -n 3 -o cat --no-pager", check=False).text
        line = next((line for line in said.splitlines() if "bitrix-cdn-backup: " in line), started.reason)
        raise BackupError(f"{member.name}: {line.removeprefix('bitrix-cdn-backup: ')}")
    if after["error"]:
        raise BackupError(f"{member.name}: {after['error']}", Status(after["status"]))
    return state


def snapshots(everything: Fleet, limit: Sequence[str], complain: Complain) -> dict[str, list[dict[str, Any]]]:
    """The backups that there are, by host."""
    found: dict[str, list[dict[str, Any]]] = {}

    def work(member: Member) -> None:
        # A host that is to be restored doesn't have it yet.
        if not fleet.deployed(member):
            fleet.prepare(member, everything.settings)
        found[member.name] = fleet.answer(member, "list", "--json")

    _each(everything, limit, complain, work)
    return found


def listed(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The same for people, a line each."""
    for name, those in found.items():
        if not those:
            yield f"{name}: none"
        for one in those:
            kind = "  with pictures" if one["pictures"] else ""
            yield f"{name}  {one['id'][:8]}  {one['time'][:16]}Z  {human(one['size']):>8}{kind}"


def put_back(
    everything: Fleet,
    host: str | None,
    display: Display,
    *,
    snapshot: str,
    pictures: bool,
    fingerprint: str | None,
    force: bool,
) -> None:
    """Restores a host; see :func:`bitrix_cdn.backup.restoring.restore`.

    :param host: by default the CDN host.
    """
    name = host or next(one.name for one in everything.members.values() if "cdn" in one.groups)
    [member] = everything.chosen([name])
    try:
        password_of(everything.settings.backup)
    except PyinfraError as error:
        raise BackupError(str(error), Status.USAGE) from None
    restore(
        everything,
        member,
        display,
        snapshot=snapshot,
        force=force,
        pictures=pictures,
        fingerprint=fingerprint,
    )


def make_password(everything: Fleet) -> Path:
    """Makes the file with the password, where the settings say.

    :raises BackupError: they name no file, or it is there.
    """
    path: Path | None = password_file(everything.settings.backup)
    if path is None:
        raise BackupError(
            f"{everything.inventory}: settings.backup.password is not a file: PATH of one is allowed here",
            Status.USAGE,
        )
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BackupError(f"{path}: exists; what was backed up with it can't be read without it") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    with os.fdopen(file, "w") as opened:
        opened.write(f"{secrets.token_urlsafe(32)}\n")
    return path

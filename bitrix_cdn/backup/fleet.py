"""The hosts of an inventory, and this project's command on them."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine.distribution import LOOK, read, supported
from bitrix_cdn.engine.files import installation
from bitrix_cdn.fleet import HostError, Inventory, Output, Remote
from bitrix_cdn.fleet.inventory import chosen
from bitrix_cdn.settings import Settings
from host_agent.backup.errors import BackupError, Status
from roles import agent
from roles.backup import COMMAND, KEY, PACKAGES, command_files, comment

_RESTORE_UNIT = "bitrix-cdn-restore.service"


@dataclass(frozen=True)
class Member:
    """One host of the inventory."""

    name: str
    groups: tuple[str, ...]
    remote: Remote


@dataclass(frozen=True)
class Fleet:
    """What an inventory says."""

    inventory: str
    settings: Settings
    members: dict[str, Member]

    def chosen(self, limit: Sequence[str]) -> list[Member]:
        """The hosts that a limit names, or all.

        :raises UsageError: there is none of such a name.
        """
        groups = {name: member.groups for name, member in self.members.items()}
        return [self.members[name] for name in chosen(self.inventory, groups, limit)]


def of(found: Inventory) -> Fleet:
    """The hosts of an inventory.

    :raises BackupError: it has no backup.
    """
    inventory = found.file
    if not found.settings.backup.repository:
        raise BackupError(
            f"{inventory}: settings.backup.repository is not set, so no backups are made; "
            "/path or sftp:user@host:/path is allowed",
            Status.USAGE,
        )
    members = {
        name: Member(name, tuple(group for group, names in found.groups.items() if name in names), remote)
        for name, remote in found.hosts.items()
    }
    return Fleet(inventory, found.settings, members)


def call(member: Member, *arguments: str) -> Output:
    """Runs the command on a host.

    :raises BackupError: it fails, with its own line and status, or isn't there.
    """
    return _checked(member, member.remote.run(f"{COMMAND} {' '.join(arguments)}", check=False))


def answer(member: Member, *arguments: str) -> Any:
    """What the command prints as JSON."""
    return json.loads(call(member, *arguments).text)


def follow(member: Member, *arguments: str) -> Iterator[str]:
    """Runs the command as a unit and yields its lines.

    A connection that is lost, or an operator who interrupts, leaves the unit running; the next run ends it.

    :raises BackupError: it fails.
    """
    end: list[Output] = []
    line = (
        f"systemd-run --quiet --collect --wait --pipe --unit={_RESTORE_UNIT} {COMMAND} {' '.join(arguments)}"
    )
    for said in member.remote.follow(line, end=end):
        yield said.decode(errors="replace")
    _checked(member, end[0])


def end_what_runs(member: Member) -> None:
    """Ends what a run that was cut short left running on a host."""
    member.remote.run(f"systemctl stop {_RESTORE_UNIT} 2>/dev/null; true")


def _checked(member: Member, output: Output) -> Output:
    if not output.status:
        return output
    if output.status in {126, 127}:
        raise BackupError(f"{member.name}: no backup is deployed there; deploy first", Status.USAGE)
    text = output.reason.removeprefix("bitrix-cdn-backup: ")
    status = Status(output.status) if output.status in set(Status) else Status.FAILED
    raise BackupError(f"{member.name}: {text}", status)


def deployed(member: Member) -> bool:
    """Whether the command is there."""
    return not member.remote.run(f"test -x {COMMAND}", check=False).status


def prepare(member: Member, settings: Settings) -> None:
    """Puts restic, the command and what it needs onto a host, as the deploy would; starts no timer.

    :raises BackupError: the password isn't where the settings say, or the host refuses.
    """
    try:
        written = command_files(settings, member.name, member.groups)
    except PyinfraError as error:
        raise BackupError(str(error), Status.USAGE) from None
    here = read(member.remote.run(LOOK).text)
    if here is None:
        raise BackupError(
            f"{member.name}: its distribution is not supported; "
            f"{supported(only_shop=set(member.groups) == {'bitrix'})} is",
            Status.USAGE,
        )
    files = [*agent.files(here), *(file for file in written if not file.path.startswith("/etc/systemd/"))]
    script, archive = installation(files)
    installed = here.install_script(PACKAGES, commands=["restic", here.python, "ssh"])
    key = ""
    if settings.backup.sftp:
        key = (
            f"[ -e {KEY}.pub ] || {{ install -d -m 700 $(dirname {KEY}); rm -f {KEY}; "
            f"ssh-keygen -q -t ed25519 -N '' -C '{comment(member.name)}' -f {KEY}; }}"
        )
    member.remote.run(
        f"""
set -e
{installed}
umask 077
{key}
{script}
""",
        stdin=archive.encode(),
    )


def connect(member: Member, fingerprint: str | None) -> None:
    """Logs in; on a reinstalled host, by the fingerprint of its new key.

    The key that is pinned stays so: it will be the host's again.

    :param fingerprint: `SHA256:...` of the key that the host may show instead of the pinned one.
    :raises BackupError: the host can't be reached, or shows neither key.
    """
    if fingerprint is None:
        try:
            member.remote.connect()
        except HostError as error:
            raise BackupError(f"{error}{_advice(str(error))}") from None
        return
    shown = _shown_key(member)
    print_ = "SHA256:" + base64.b64encode(hashlib.sha256(shown.asbytes()).digest()).decode().rstrip("=")
    if print_ != fingerprint.rstrip("="):
        # It may have its own key back already.
        try:
            member.remote.connect()
        except HostError as error:
            raise BackupError(f"{error}; it shows {print_}, not {fingerprint}") from None
        return
    address, port = member.remote.login
    name = address if port == 22 else f"[{address}]:{port}"
    with tempfile.NamedTemporaryFile("w", prefix="bitrix-cdn-known-hosts-") as file:
        file.write(f"{name} {shown.get_name()} {shown.get_base64()}\n")
        file.flush()
        try:
            member.remote.connect(known_hosts=Path(file.name))
        except HostError as error:
            raise BackupError(str(error)) from None


def reconnect(member: Member) -> None:
    """Logs in again by the key that is pinned, which the host has again.

    :raises BackupError: it shows another one.
    """
    member.remote.close()
    try:
        member.remote.connect(patience=20)
    except HostError as error:
        raise BackupError(
            f"{error}. The host has its own host key back: if this machine learned the one of the bare host, "
            f"forget that (ssh-keygen -R {member.remote.login[0]}), and run the command again"
        ) from None


def _advice(error: str) -> str:
    if "host key" in error.lower() or "does not match" in error.lower():
        return (
            ". A reinstalled host has another key: give its fingerprint as --host-key SHA256:... "
            "(on the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
        )
    return ""


def _shown_key(member: Member) -> paramiko.PKey:
    """The Ed25519 key that a host shows, without logging in."""
    try:
        with socket.create_connection(member.remote.login, timeout=15) as connection:
            transport = paramiko.Transport(connection)
            transport.get_security_options().key_types = ["ssh-ed25519"]
            try:
                transport.start_client(timeout=15)
                return transport.get_remote_server_key()
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise BackupError(f"{member.name}: {error or 'the connection is closed'}") from None

"""The SSH server: hardened, without locking out the operator."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand, deploy, operation
from pyinfra.api.exceptions import ConnectError

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.files import File, rendered, stale, tree
from bitrix_cdn.engine.findings import WrongUnit
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.services import STAMPS, Applied, faults, settled, stamp_script
from bitrix_cdn.fleet.ssh import new_connection
from bitrix_cdn.settings import Settings
from roles.footprints import own_ports
from roles.preflight import distribution

DROP_IN = "/etc/ssh/sshd_config.d/10-bitrix-cdn.conf"
ROLLBACK = "bitrix-cdn-sshd-rollback"


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    places = ("/etc/ssh/sshd_config.d", "/etc/ssh/authorized_keys.d")
    return Footprint((Port(place.ssh_port, "everybody", "SSH server"),), trees=places, saved=places)


@deploy("SSH server")
def sshd(settings: Settings) -> None:
    [drop_in] = rendered(
        "sshd",
        settings=settings,
        accepts_mirror=("cdn" in host.groups),
        accepts_readers=("bitrix" in host.groups),
        allowed=_allowed(settings),
        forwarding=_forwarding(settings),
        pages=[port.number for port in own_ports(settings) if port.page],
    )
    confirmed_sshd_config(
        name="Configure the SSH server (undone if it locks everybody out)",
        drop_in=drop_in,
        unit=distribution(settings).ssh_unit,
        check=_taken(settings),
        timeout=settings.sshd.confirm_timeout,
    )


def _allowed(settings: Settings) -> list[str]:
    """The accounts that may log in; empty: all."""
    if not settings.sshd.allowed_users:
        return []
    transfer = {"cdn": settings.sftp.cache_account, "bitrix": settings.sftp.originals_account}
    accounts = [account for group, account in transfer.items() if group in host.groups]
    return list(dict.fromkeys([host.data.get("ssh_user") or "root", *accounts, *settings.sshd.allowed_users]))


def _forwarding(settings: Settings) -> str:
    """What is done about tunnels: the setting, but for the site's host."""
    theirs = settings.sshd.forwarding == "pages" and "bitrix" in host.groups
    return "yes" if theirs else settings.sshd.forwarding


def _taken(settings: Settings) -> str:
    """A command that fails where sshd doesn't read our drop-in: only the mount would notice."""
    own = settings.sftp
    if "cdn" in host.groups:
        account, root = own.cache_account, settings.cdn.upload
    elif "bitrix" in host.groups:
        account, root = own.originals_account, own.export
    else:
        return "true"
    asked = f"sshd -T -C user={account},host=localhost,addr=127.0.0.1"
    words = f"sshd does not read {DROP_IN}: /etc/ssh/sshd_config must Include /etc/ssh/sshd_config.d/*.conf"
    return (
        f"{{ {asked} | grep -qix {shlex.quote(f'chrootdirectory {root}')}; }} || "
        f"{{ echo {shlex.quote(words)} >&2; false; }}"
    )


@operation()
def confirmed_sshd_config(
    drop_in: File, unit: str, timeout: int, check: str = "true"
) -> Generator[Any, None, None]:
    """Changes sshd's configuration under a dead man's switch.

    Before the server takes the new file, the host arms a timer that restores the old one. Only a new
    connection from the operator's side, made with the new configuration in force, disarms it.

    + drop_in: the file below `/etc/ssh/sshd_config.d/`
    + unit: that of the SSH server
    + timeout: seconds until the host takes the change back by itself
    + check: a command that fails where the server would be another than the file says
    """
    wrong = stale([drop_in])
    now = host.get_fact(Applied, unit=unit, start=(), reload=[drop_in.path], ready="true")
    # Where a socket starts one for each login, each has the file as it is.
    taken = settled(now, "reload") or now.get("active") != "active"
    if not wrong and taken:
        host.noop(f"the SSH server has {drop_in.path} as it must be")
        return
    if not taken and differences.wanted():
        differences.report(WrongUnit(unit, tuple(faults({**now, "enabled": "enabled"}))))
    path = shlex.quote(drop_in.path)
    old = f"/run/{ROLLBACK}.conf"
    restore = (
        f"if [ -e {old} ]; then cp -p {old} {path}; else rm -f {path}; fi; systemctl reload-or-restart {unit}"
    )
    yield StringCommand(
        f"set -e; rm -f {old}; [ ! -e {path} ] || cp -p {path} {old}; "
        f"systemctl stop {ROLLBACK}.timer 2>/dev/null || :; "
        f"systemd-run --quiet --collect --unit={ROLLBACK} --on-active={timeout} "
        f"--timer-property=AccuracySec=1s "
        f"sh -c {shlex.quote(restore)}"
    )
    yield from tree._inner(
        files=[drop_in],
        root="/etc/ssh",
        # sshd's own check wants the directory that its unit makes.
        check=f"mkdir -p /run/sshd && sshd -t && {{ {check} ; }}",
    )
    record = record_script(late=[f"{STAMPS}/{unit}"], unit=unit, action="reload")
    yield StringCommand(f"set -e\n{record}\nrm -f {STAMPS}/{unit}\nsystemctl reload-or-restart {unit}")
    yield FunctionCommand(_confirm, (timeout,), {})
    yield StringCommand(f"set -e\n{stamp_script(unit, reload=[drop_in.path])}")


def _confirm(state: State, host: Host, timeout: int) -> bool:
    """Logs in again and disarms the timer; False when no login works any more."""
    try:
        with new_connection(host) as connection:
            disarm = StringCommand(f"systemctl stop {ROLLBACK}.timer && rm -f /run/{ROLLBACK}.conf")
            done, _ = connection.run_shell_command(disarm, _sudo=bool(host.data.get("_sudo")))
            return done
    except ConnectError as error:
        logger.error(
            f"{host.print_prefix}a new login fails with the new sshd configuration ({error}); "
            f"the host restores the old one within {timeout} s"
        )
        return False

"""Logins that spoil commands, and hosts that are away, are told in one line before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api import Config, Inventory, State

from bitrix_cdn.fleet import HostError, Remote
from dev.lab import state
from tests.kit.deployment import pyinfra, refusal
from tests.kit.hosts import Cdn
from tests.kit.lab import LabDriver
from tests.kit.support import Remote as Guest

# Account: its login shell, what sudo lets it do, and what is told of it.
LOGINS = {
    "odd-good": ("/bin/bash", "NOPASSWD: ALL", ""),
    "odd-talks": ("/bin/bash", "NOPASSWD: ALL", "prints 'Welcome to the host' before"),
    "odd-tcsh": ("/bin/tcsh", "NOPASSWD: ALL", "doesn't run a command as sh does"),
    "odd-fish": ("/usr/bin/fish", "NOPASSWD: ALL", "doesn't run a command as sh does"),
    "odd-none": ("/usr/sbin/nologin", "NOPASSWD: ALL", "answers 'This account is currently not available.'"),
    "odd-asked": ("/bin/bash", "ALL", "may not use sudo without a password"),
    "odd-nobody": ("/bin/bash", "", "may not use sudo without a password"),
}

_MADE = r"""set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends fish sudo tcsh >/dev/null
useradd -m -s "$2" "$1"
[ -z "$3" ] || echo "$1 ALL=(ALL) $3" > /etc/sudoers.d/$1
install -o $1 -m 700 -d /home/$1/.ssh
install -o $1 -m 600 /root/.ssh/authorized_keys /home/$1/.ssh/
[ $1 != odd-talks ] || sed -i '1i echo; echo Welcome to the host' /home/$1/.bashrc
"""

_WITH_LOGIN = """
from bitrix_cdn.settings import groups
from inventories.lab import _entry, _settings

bitrix, cdn, edge, balancer, monitoring = groups(
    bitrix={"bitrix": _entry("bitrix")},
    cdn={"cdn": {**_entry("cdn"), "ssh_user": "odd-asked", "sudo": True}},
    settings=_settings,
)
"""


@pytest.fixture
def accounts(cdn: Cdn) -> Iterator[None]:
    """The accounts of `LOGINS` on the CDN host."""
    try:
        for account, (shell, sudo, _) in LOGINS.items():
            cdn.remote.run("sh", "-c", _MADE, "sh", account, shell, sudo, timeout=120)
        yield
    finally:
        for account in LOGINS:
            cdn.remote.run("sh", "-c", f"userdel -rf {account} 2>/dev/null; rm -f /etc/sudoers.d/{account}")


@pytest.mark.usefixtures("accounts")
def test_a_login_that_spoils_commands_is_told_before_any_change(lab: state.Lab, tmp_path: Path) -> None:
    data = {
        "ssh_hostname": lab.host("cdn").address,
        "ssh_key": str(lab.ssh_key),
        "ssh_known_hosts_file": str(lab.known_hosts),
        "_sudo": True,
    }
    entries = [(account, {**data, "ssh_user": account}) for account in LOGINS]
    inventory = Inventory((entries, {}))  # type: ignore[no-untyped-call]
    State(inventory, Config())  # type: ignore[no-untyped-call]
    for account, (_, _, told) in LOGINS.items():
        remote = Remote(inventory.get_host(account))
        try:
            if told:
                with pytest.raises(HostError) as raised:
                    remote.connect()
                assert str(raised.value).startswith(f"{account}: ")
                assert told in str(raised.value)
            else:
                remote.connect()
                assert remote.run("id -un").text == "root"
        finally:
            remote.close()
    inventory_file = tmp_path / "odd.py"
    inventory_file.write_text(_WITH_LOGIN)
    run = pyinfra("-y", inventory=str(inventory_file), lab=lab.name, timeout=60)
    refusal(run, "cdn: the account odd-asked may not use sudo without a password")
    assert "Starting operation" not in run.output


def test_a_host_whose_peer_is_away_is_not_changed(bitrix: Guest, lab: state.Lab) -> None:
    bitrix.run("systemd-run", "-q", "--unit=back", "--on-active=60", "systemctl", "start", "ssh")
    bitrix.run("systemctl", "stop", "ssh")
    try:
        run = pyinfra("-y", "--limit", "cdn", lab=lab.name, timeout=60)
    finally:
        for words in (("start", "ssh"), ("stop", "back.timer")):
            LabDriver(lab.name).run("exec", "bitrix", "--", "systemctl", *words)
    refusal(run, "bitrix: can't be reached, and cdn needs its keys", "nothing was changed")
    assert "Starting operation" not in run.output

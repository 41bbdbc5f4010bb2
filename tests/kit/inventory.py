"""The hosts of an inventory, as testinfra asks them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from tests.kit.deployment import ROOT


class Inventory:
    """The hosts of a pyinfra inventory, by group, as testinfra asks them."""

    def __init__(self, file: str, sockets: Path, only: Sequence[str] = ()) -> None:
        result = subprocess.run(
            [Path(sys.executable).parent / "pyinfra", "--json", file, "debug-inventory"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        self._entries = json.loads(result.stdout)
        self._sockets = sockets
        if unknown := set(only) - {entry["name"] for entry in self._entries}:
            pytest.exit(f"{file}: no such host: {', '.join(sorted(unknown))}", returncode=4)
        self._only = only
        self.settings = Settings.model_validate(self._entries[0]["data"]["settings"])

    def of(self, group: str) -> dict[str, Host]:
        """The group's hosts, by name; of those that the tests are limited to, if they are."""
        chosen = [name for name in self.names(group) if name in (self._only or self.names(group))]
        if self.names(group) and not chosen:
            pytest.skip(f"concerns {', '.join(self.names(group))}")
        return {name: self._host(name) for name in chosen}

    def data(self, group: str) -> dict[str, str]:
        """What the inventory says of the group's first host."""
        return self.entries(group)[0]

    def entries(self, group: str) -> list[dict[str, str]]:
        """The same of all of the group's hosts."""
        return [entry["data"] for entry in self._entries if group in entry["groups"]]

    def names(self, group: str) -> list[str]:
        """The group's hosts."""
        return [entry["name"] for entry in self._entries if group in entry["groups"]]

    def chosen(self) -> dict[str, Host]:
        """All hosts that the tests are about, by name."""
        names = [entry["name"] for entry in self._entries]
        return {name: self._host(name) for name in names if name in (self._only or names)}

    def host(self, group: str) -> Host:
        """The group's first host."""
        return self._host(self.names(group)[0])

    def _host(self, name: str) -> Host:
        if self._only and name not in self._only:
            pytest.skip(f"concerns {name}")
        data = next(entry for entry in self._entries if entry["name"] == name)["data"]
        options = {
            "ControlMaster": "auto",
            "ControlPersist": "60",
            # Without a path nothing is shared, and each question is a login.
            "ControlPath": f"{self._sockets}/%C",
            "StrictHostKeyChecking": data["ssh_strict_host_key_checking"],
        }
        if "ssh_known_hosts_file" in data:
            options["UserKnownHostsFile"] = data["ssh_known_hosts_file"]
        address = data.get("ssh_hostname", name)
        return testinfra.get_host(
            f"ssh://{data['ssh_user']}@{address}:{data['ssh_port']}",
            ssh_identity_file=data.get("ssh_key"),
            ssh_extra_args=shlex.join(f"-o{key}={value}" for key, value in options.items()),
            sudo=data["_sudo"],
        )


def fetched(host: Host, url: str) -> str:
    """What a host gets when it asks for an address."""
    output: str = host.check_output(
        "python3 -c 'import sys, urllib.request; "
        "print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' %s",
        url,
    )
    return output


def connects(host: Host, address: str, port: int) -> bool:
    """Whether a host can connect to a port."""
    tried = host.run(
        "python3 -c 'import socket, sys; "
        "socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)' %s %s",
        address,
        str(port),
    )
    assert tried.rc == 0 or "Error" in tried.stderr, tried.stderr
    return bool(tried.rc == 0)


def listening(host: Host, port: int) -> set[str]:
    """The addresses that something listens on at a port."""
    lines = host.check_output("ss -Hltn sport = :%s", str(port)).splitlines()
    return {line.split()[3].rpartition(":")[0] for line in lines}


def gixy(cdn: Host, configuration: str, place: Path) -> set[str]:
    """What gixy finds in a configuration as the host's nginx reads it, with everything it includes."""
    dump = place / "nginx.conf"
    dump.write_text(cdn.check_output("nginx -T -c %s 2>/dev/null", configuration))
    result = subprocess.run(
        [Path(sys.executable).parent / "gixy", dump], capture_output=True, text=True, check=False
    )
    assert "Results" in result.stdout, result.stderr
    return set(re.findall(r"Problem: \[(\w+)\]", result.stdout))

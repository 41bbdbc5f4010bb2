"""What the roles do to the shop's host of each distribution, by facts recorded beforehand: none of them but
Debian can be booted in the lab."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from dataclasses import dataclass, field
from typing import Any

import pytest
from pyinfra.api import Config, FactBase, Host, Inventory, State, StringCommand
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.selinux import SEBoolean

from bitrix_cdn.engine.errors import OneLineError
from bitrix_cdn.engine.files import Existing, RealPath
from bitrix_cdn.engine.keys import PublicKey
from bitrix_cdn.engine.packages import NotInstalled
from bitrix_cdn.engine.services import Applied
from bitrix_cdn.settings import Settings
from roles.agent import agent
from roles.backup import backup
from roles.base import base
from roles.exporters import exporters
from roles.firewall import DROP_IN, POLICY, RULES, UNIT, firewall
from roles.mounts import mounts
from roles.preflight import Machine, Shop, preflight
from roles.sftp import keys, sftp
from roles.sshd import sshd
from roles.topology import Addresses

SHOP, PICTURES = "10.0.0.1", "10.0.0.2"
RUNNING = {"active": "active", "enabled": "enabled", "start": "none", "started": "none"}
BITRIXVM = {"root": "/home/bitrix/www", "user": "bitrix", "group": "bitrix"}
RPM = [("rocky", "9.4"), ("almalinux", "9.6"), ("centos", "9")]
DEB = [("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")]


@dataclass
class Recorded:
    """A host that answers each fact with what was recorded; of all others it has nothing."""

    name: str = "rocky"
    version: str = "9.4"
    group: str = "bitrix"
    firewalld: str = "active"
    selinux: str = "yes"
    there: list[str] = field(default_factory=list)
    """Files of ours that exist."""
    shop: dict[str, list[str]] = field(default_factory=lambda: {"missing": [], "found": []})

    def answer(self, fact: type[FactBase[Any]], **asked: Any) -> Any:
        facts: dict[Any, Any] = {
            Machine: {
                "id": self.name,
                "version": self.version,
                "machine": "x86_64",
                "systemd": "yes",
                "firewalld": self.firewalld,
                "selinux": self.selinux,
                "options": "rw,relatime",
            },
            NotInstalled: asked.get("names"),
            SEBoolean: "off",
            RealPath: asked.get("path"),
            PublicKey: "ssh-ed25519 AAAA",
            Applied: RUNNING if asked.get("unit") == "firewalld.service" else {},
            Shop: self.shop,
            Existing: [path for path in asked.get("paths", ()) if path in self.there],
            Addresses: {"": [SHOP], SHOP: [SHOP], PICTURES: [PICTURES]},
        }
        return facts[fact] if fact in facts else getattr(fact, "default", lambda: None)()


@dataclass
class Done:
    """What a deploy would do to the host."""

    commands: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join(self.commands)


def settings(**given: Any) -> Settings:
    backups = {"repository": "/srv/backups", "password": "env:BACKUP_PASSWORD"}
    return Settings.model_validate({"site": BITRIXVM, "backup": backups, **given})


def deployed(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, *, only: str = "", **given: Any) -> Done:
    """What all roles of the site's side do, or only the preflight, which does nothing."""
    monkeypatch.setattr(Host, "get_fact", recorded.answer)
    monkeypatch.setenv("BACKUP_PASSWORD", "a secret")
    own = settings(**given)
    members = {"bitrix": ["shop"], "cdn": ["pics"], "monitoring": ["pics"], recorded.group: ["shop"]}
    inventory = Inventory(  # type: ignore[no-untyped-call]
        ([("shop", {"address": SHOP, "ssh_port": 22}), ("pics", {"address": PICTURES, "ssh_port": 22})], {}),
        **{group: (names, {}) for group, names in members.items()},
    )
    state = State(inventory, Config(), check_for_changes=False)  # type: ignore[no-untyped-call]
    state.set_stage(StateStage.Prepare)
    shop = inventory.get_host("shop")
    for host in inventory:
        host.connected = True
        state.activate_host(host)
    done = Done()
    with ctx_state.use(state), ctx_inventory.use(inventory), ctx_host.use(shop):
        preflight(own)
        if only == "preflight":
            return done
        base(settings=own)
        agent(settings=own)
        keys()
        sftp(settings=own)
        sshd(settings=own)
        firewall(settings=own)
        exporters(settings=own)
        backup(settings=own)
        mounts(settings=own)
        for operation in list(state.ops[shop]):
            for command in state.get_op_data_for_host(shop, operation).command_generator():
                if isinstance(command, StringCommand):
                    done.commands.append(command.get_raw_value())
                    done.files |= _unpacked(command.connector_arguments.get("_stdin"))
    return done


def _unpacked(archive: Any) -> dict[str, str]:
    if not archive:
        return {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as files:
        return {
            f"/{member.name}": content.read().decode()
            for member in files
            if (content := files.extractfile(member))
        }


@pytest.mark.parametrize(("name", "version"), RPM)
def test_an_rpm_host_gets_its_packages_by_dnf_and_under_their_names(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = deployed(Recorded(name, version), monkeypatch)
    assert not re.search(r"\b(apt|apt-get|dpkg)\b", done.text)
    installed = " ".join(re.findall(r"install_weak_deps=False ([^;]*)", done.text)).split()
    assert installed == [
        *("fuse3", "openssh-server", "fuse-sshfs", "ca-certificates", "/usr/bin/curl"),
        *("python3.11", "/usr/bin/node_exporter", "dbus", "restic", "python3.11", "openssh-clients"),
    ]


@pytest.mark.parametrize(("name", "version"), DEB)
def test_a_deb_host_gets_its_packages_by_apt(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = deployed(Recorded(name, version, firewalld="inactive", selinux="no"), monkeypatch)
    assert not re.search(r"\b(dnf|rpm|setsebool|sshd[.]service)\b", done.text)
    python = "python3.11" if version == "22.04" else "python3"
    assert re.search(rf"apt-get .*install .* {re.escape(python)}$", done.text, re.MULTILINE)
    assert done.files["/usr/local/bin/cdn-host"].startswith(f"#!/usr/bin/{python} -B\n")
    assert "/etc/apt/apt.conf.d/80-bitrix-cdn" in done.files


def test_the_agent_runs_with_a_python_that_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    # RHEL 9's own is 3.9.
    done = deployed(Recorded(), monkeypatch)
    assert done.files["/usr/local/bin/cdn-host"].startswith("#!/usr/bin/python3.11 -B\n")


def test_the_ssh_server_is_the_unit_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    done = deployed(Recorded(), monkeypatch)
    # The agent finds out by itself which there is.
    everything = "\n".join(
        [done.text, *(text for path, text in done.files.items() if not path.endswith(".py"))]
    )
    assert not re.search(r"(?<![a-z])ssh[.]service|reload-or-restart ssh\b", everything)
    assert "systemctl reload-or-restart sshd.service" in done.text
    for unit in ("mount-guard@", "originals-export"):
        assert "sshd.service" in done.files[f"/etc/systemd/system/{unit}.service"]


def test_selinux_lets_the_web_server_use_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "setsebool -P httpd_use_fusefs on" in deployed(Recorded(), monkeypatch).commands
    assert "setsebool" not in deployed(Recorded(selinux="no"), monkeypatch).text


def test_firewalld_is_told_instead_of_a_table_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    done = deployed(
        Recorded(), monkeypatch, monitoring={"exporters": {"allowed": ["192.0.2.0/24", "fd00::7"]}}
    )
    assert not {RULES, UNIT, DROP_IN} & done.files.keys()
    policy = done.files[POLICY]
    for family, address in (("ipv4", f"{PICTURES}/32"), ("ipv4", "192.0.2.0/24"), ("ipv6", "fd00::7/128")):
        rule = f'<rule family="{family}" priority="-1"><source address="{address}"/><port port="9100" '
        assert f'{rule}protocol="tcp"/><accept/></rule>' in policy
    assert policy.count("<reject") == 2
    assert "firewall-offline-cmd --check-config" in done.text
    assert "systemctl reload-or-restart firewalld.service" in done.text


def test_what_ran_before_firewalld_did_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    done = deployed(Recorded(there=[RULES, UNIT]), monkeypatch)
    assert "systemctl stop bitrix-cdn-firewall.service" in done.text
    assert f"rm -f {RULES} {UNIT}" in done.text


def test_without_firewalld_an_rpm_host_has_our_table_and_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    done = deployed(Recorded(firewalld="inactive", there=[POLICY]), monkeypatch)
    assert POLICY not in done.files
    assert f"rm -f {POLICY}" in done.text
    assert "fw" not in done.files[RULES]
    assert "install_weak_deps=False nftables iproute;" in done.text


def test_node_exporter_has_a_unit_whatever_its_package_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = "/etc/systemd/system/prometheus-node-exporter.service"
    done = deployed(Recorded(), monkeypatch)
    assert "ExecStart=/usr/bin/node_exporter\n" in done.files[unit]
    assert "ExecStart=/usr/bin/node_exporter \\\n" in done.files[f"{unit}.d/bitrix-cdn.conf"]
    debian = deployed(Recorded("debian", "13", firewalld="inactive", selinux="no"), monkeypatch)
    assert unit not in debian.files
    assert "ExecStart=/usr/bin/prometheus-node-exporter \\\n" in debian.files[f"{unit}.d/bitrix-cdn.conf"]


def test_the_site_is_where_bitrixvm_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done = deployed(Recorded(), monkeypatch)
    assert (
        "bind,ro,nosuid,nodev,noexec,private /home/bitrix/www/upload /srv/originals/upload"
        in (done.files["/etc/systemd/system/originals-export.service"])
    )
    mount = done.files["/etc/mount-guard/resize-cache.toml"]
    assert 'mount_point = "/home/bitrix/www/upload/resize_cache"' in mount
    assert 'owner = "bitrix"\ngroup = "bitrix"' in mount
    # What waits in the spool is saved: it lies in somebody's home.
    assert "ProtectHome=read-only" in done.files["/etc/systemd/system/bitrix-cdn-backup.service"]


@pytest.mark.parametrize(
    ("recorded", "given", "refusal"),
    [
        (Recorded("fedora", "41"), {}, "shop: fedora 41 is not supported on the shop's host; Debian 12, "),
        (Recorded("rocky", "8.10"), {}, "shop: rocky 8.10 is not supported on the shop's host; Debian 12, "),
        (
            Recorded(group="monitoring"),
            {},
            "shop: Rocky Linux 9 is not supported on a host of monitoring; Debian 12 or Debian 13 is",
        ),
        (
            Recorded("ubuntu", "24.04", group="cdn"),
            {},
            "shop: Ubuntu 24.04 is not supported on a host of cdn; Debian 12 or Debian 13 is",
        ),
        (
            Recorded(),
            {"lab_site": {"enabled": True}},
            "shop: Rocky Linux 9 is not supported on a host of bitrix with settings.lab_site; Debian 12 or ",
        ),
    ],
)
def test_what_nobody_has_tried_is_refused_before_anything_changes(
    recorded: Recorded, given: dict[str, Any], refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OneLineError) as error:
        deployed(recorded, monkeypatch, only="preflight", **given)
    assert str(error.value).startswith(refusal)


def test_a_shop_that_is_found_elsewhere_is_named_as_the_inventory_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = ["directory /var/www/bitrix/upload", "account www-data"]
    found = Recorded(shop={"missing": missing, "found": ["/home/bitrix/ext_www/two shops bitrix bitrix"]})
    with pytest.raises(OneLineError) as error:
        deployed(found, monkeypatch, only="preflight", site={})
    assert "there is no directory /var/www/bitrix/upload, no account www-data; " in str(error.value)
    assert str(error.value).endswith(
        '; this looks like a shop: {"site": {"root": "/home/bitrix/ext_www/two shops", '
        '"user": "bitrix", "group": "bitrix"}}'
    )

"""Role firewall: the exporters' ports are the monitoring hosts', and nothing else of the host is changed."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from tests.kit.deployment import Deployment
from tests.kit.inventory import Inventory, connects
from tests.kit.support import wait_until

UNIT = "bitrix-cdn-firewall.service"
TABLE = "nft list chain inet bitrix_cdn exporters"


def _refused(address: str, port: int) -> bool:
    """Whether this machine, which no monitoring runs on, is refused."""
    try:
        socket.create_connection((address, port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_monitoring_host_may_ask_and_nobody_else(
    inventory: Inventory, monitoring: Host, settings: Settings
) -> None:
    data = inventory.data("bitrix")
    port = settings.monitoring.exporters.node_port
    assert connects(monitoring, data["address"], port)
    assert _refused(data.get("ssh_hostname", data["address"]), port)


@pytest.mark.parametrize(
    "port", ["node", "edge", "nginx", "varnish", "redis_cache", "redis_queue", "blackbox"]
)
def test_the_site_cant_ask_the_cdn_hosts_exporters(
    port: str, inventory: Inventory, bitrix: Host, settings: Settings
) -> None:
    number = getattr(settings.monitoring.exporters, f"{port}_port")
    assert not connects(bitrix, inventory.data("cdn")["address"], number)


def test_a_port_is_closed_even_where_something_listens_for_all(
    inventory: Inventory, cdn: Host, bitrix: Host, settings: Settings
) -> None:
    # As an exporter would that was told the wrong address.
    port = settings.monitoring.exporters.blackbox_port
    address = inventory.data("cdn")["address"]
    cdn.check_output(
        "systemd-run -q --collect --unit=testinfra-listener -p DynamicUser=yes "
        "python3 -m http.server --directory /usr/share/doc --bind %s %s",
        address,
        str(port),
    )
    try:
        wait_until("the listener", lambda: connects(cdn, address, port))
        assert not connects(bitrix, address, port)
        cdn.check_output("systemctl stop %s", UNIT)
        assert connects(bitrix, address, port)
    finally:
        cdn.check_output("systemctl start %s; systemctl stop testinfra-listener", UNIT)


def test_what_is_not_the_projects_cant_be_reached(inventory: Inventory, cdn: Host, bitrix: Host) -> None:
    address = inventory.data("cdn")["address"]
    cdn.check_output(
        "systemd-run -q --collect --unit=testinfra-stranger -p DynamicUser=yes "
        "python3 -m http.server --directory /usr/share/doc --bind %s 8888",
        address,
    )
    try:
        wait_until("the listener", lambda: connects(cdn, address, 8888))
        assert not connects(bitrix, address, 8888)
        assert _refused(address, 8888)
    finally:
        cdn.check_output("systemctl stop testinfra-stranger")


@pytest.fixture
def stranger(deployment: Deployment, inventory: Inventory) -> Iterator[str]:
    """An address of this machine that the hosts don't know."""
    if deployment.lab is None:
        pytest.skip("needs the network of a lab")
    address = inventory.data("cdn")["address"].rsplit(".", 1)[0] + ".251"
    route = subprocess.run(
        ["ip", "-o", "route", "get", inventory.data("cdn")["address"]],
        capture_output=True,
        text=True,
        check=True,
    )
    link = re.findall(r" dev (\S+)", route.stdout)[0]
    subprocess.run(["ip", "address", "add", f"{address}/24", "dev", link], check=True)
    yield address
    subprocess.run(["ip", "address", "del", f"{address}/24", "dev", link], check=True)


def test_who_comes_too_often_by_ssh_waits_and_nobody_else(
    stranger: str, inventory: Inventory, settings: Settings
) -> None:
    data = inventory.data("cdn")
    limit = settings.baseline.ssh_per_minute
    assert [_comes(stranger, data) for _ in range(limit)].count(False) == 0
    assert [_comes(stranger, data) for _ in range(5)].count(True) <= 2
    # Whoever deploys, from the lab's own address.
    assert _comes("", data)


def _comes(source: str, data: Mapping[str, str]) -> bool:
    try:
        socket.create_connection((data["address"], int(data["ssh_port"])), 10, (source, 0)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_visitors_and_operators_are_let_in(inventory: Inventory, settings: Settings) -> None:
    data = inventory.data("cdn")
    address = data.get("ssh_hostname", data["address"])
    for port in (int(data["ssh_port"]), settings.nginx.http_port):
        assert not _refused(address, port)


@pytest.mark.smoke
@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_it_starts_at_boot(group: str, inventory: Inventory) -> None:
    host = inventory.host(group)
    assert host.service(UNIT).is_enabled
    assert host.run(TABLE).rc == 0


@pytest.fixture
def other_rules(cdn: Host) -> Iterator[str]:
    """A table that somebody else made."""
    cdn.check_output("nft add table inet testinfra")
    yield "nft list table inet testinfra"
    cdn.run("nft delete table inet testinfra")


@pytest.mark.parametrize("action", ["reload", "restart", "stop"])
def test_other_rules_stay(action: str, cdn: Host, other_rules: str) -> None:
    try:
        cdn.check_output("systemctl %s %s", action, UNIT)
        assert cdn.run(other_rules).rc == 0
        assert (cdn.run(TABLE).rc == 0) == (action != "stop")
    finally:
        cdn.check_output("systemctl start %s", UNIT)


def test_it_outlives_the_distributions_rules(cdn: Host) -> None:
    # Which begin by removing all tables, and end so.
    was_running = cdn.service("nftables.service").is_running
    try:
        for action in ("start", "reload", "restart", "stop"):
            cdn.check_output("systemctl %s nftables", action)
            assert cdn.run(TABLE).rc == 0, action
            assert cdn.run("nft list chain inet bitrix_cdn_gate accounts").rc == 0, action
    finally:
        if was_running:
            cdn.check_output("systemctl start nftables")
        cdn.check_output("systemctl reload %s", UNIT)

"""Role balancer: HAProxy in front of the edges."""

from __future__ import annotations

import re
import socket
import ssl
import uuid

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.balancer import CONFIG, JOINED, SOCKET
from tests.kit.inventory import Inventory, connects, fetched, listening
from tests.kit.support import wait_until

pytestmark = pytest.mark.edges


def address_of(inventory: Inventory) -> str:
    """The balancer, as this machine reaches it."""
    data = inventory.data("balancer")
    return data.get("ssh_hostname", data["address"])


def metrics(inventory: Inventory, monitoring: Host, settings: Settings) -> str:
    address = inventory.data("balancer")["address"]
    return fetched(monitoring, f"http://{address}:{settings.monitoring.exporters.haproxy_port}/metrics")


@pytest.mark.smoke
def test_it_runs_with_a_configuration_that_it_agrees_with(balancer: Host) -> None:
    assert balancer.service("haproxy.service").is_running
    assert balancer.service("haproxy.service").is_enabled
    said = balancer.run("haproxy -c -f %s", CONFIG)
    assert said.rc == 0
    assert "WARNING" not in said.stderr + said.stdout


def test_it_finds_all_edges_and_the_cdn_host_up(
    inventory: Inventory, balancer: Host, monitoring: Host, settings: Settings
) -> None:
    found = re.findall(
        r'haproxy_server_status\{proxy="edges",server="([^"]+)",state="UP"\} 1',
        metrics(inventory, monitoring, settings),
    )
    assert sorted(found) == sorted([*inventory.names("edge"), *inventory.names("cdn")])


def test_only_the_monitoring_host_gets_its_numbers(
    inventory: Inventory, balancer: Host, bitrix: Host, monitoring: Host, settings: Settings
) -> None:
    address, port = inventory.data("balancer")["address"], settings.monitoring.exporters.haproxy_port
    assert connects(monitoring, address, port)
    assert not connects(bitrix, address, port)
    assert listening(balancer, port) == {address}


def test_its_socket_is_roots_alone(balancer: Host) -> None:
    found = balancer.file(SOCKET)
    assert (found.user, found.group, found.mode) == ("root", "root", 0o600)


def test_its_key_is_roots_alone(balancer: Host, settings: Settings) -> None:
    if not settings.tls.enabled:
        pytest.skip("no TLS")
    found = balancer.file(JOINED)
    assert (found.user, found.mode) == ("root", 0o600)


@pytest.mark.smoke
def test_its_worker_is_not_root(balancer: Host) -> None:
    users = balancer.check_output("ps -o user= -C haproxy").split()
    assert "haproxy" in users
    # The master opens ports and reads the key; no visitor's byte reaches it.
    assert users.count("root") <= 1


def test_http_2_is_spoken_and_tls_1_1_is_not(
    inventory: Inventory, balancer: Host, settings: Settings
) -> None:
    if not settings.tls.enabled:
        pytest.skip("no TLS")
    place = (address_of(inventory), settings.tls.port)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(place, timeout=10) as plain, context.wrap_socket(plain) as secure:
        assert secure.selected_alpn_protocol() == "h2"
        assert secure.version() == "TLSv1.3"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(place, timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain)


def test_a_configuration_that_it_refuses_never_replaces_the_running_one(balancer: Host) -> None:
    # What the deploy's check runs, with an edge that has no address.
    assert (
        balancer.run(
            "sed 's/^    server [^ ]* [^ ]*/    server broken/' %s > /tmp/broken.cfg; "
            "haproxy -c -q -f /tmp/broken.cfg; s=$?; rm /tmp/broken.cfg; exit $s",
            CONFIG,
        ).rc
        != 0
    )


def test_what_failed_is_in_the_journal_and_what_went_well_is_not(
    inventory: Inventory, balancer: Host, settings: Settings
) -> None:
    place, mark = (address_of(inventory), settings.nginx.http_port), uuid.uuid4().hex
    for request in (
        f"GET /upload/{mark}-good.jpg HTTP/1.1\r\nHost: x\r\n",
        f"GET /upload/{mark}-bad.jpg\r\n",
    ):
        with socket.create_connection(place, timeout=10) as visitor:
            visitor.sendall(f"{request}Connection: close\r\n\r\n".encode())
            visitor.recv(1000)

    def journal() -> str:
        return str(balancer.check_output("journalctl -u haproxy -n 200 --no-pager -o cat"))

    wait_until("the bad request", lambda: "<BADREQ>" in journal(), timeout=10)
    assert f"{mark}-good" not in journal()

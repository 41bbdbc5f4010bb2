"""An edge: nginx and Varnish in front of the CDN host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.nginx import DRAIN, HEALTH
from roles.varnish import source_of_edge
from tests.kit.deployment import ROOT
from tests.kit.inventory import Inventory, connects, gixy, listening
from tests.kit.support import wait_until
from tests.testinfra.vcl import Case, outcomes, quick

pytestmark = pytest.mark.edges

CASES = [
    *sorted((ROOT / "tests/varnish").glob("*.vtc")),
    *sorted((ROOT / "tests/varnish/edge").glob("*.vtc")),
]


@pytest.fixture(scope="module")
def edge(edges: dict[str, Host]) -> Host:
    """One of them."""
    return next(iter(edges.values()))


@pytest.fixture(scope="module")
def results(edge: Host, settings: Settings) -> dict[str, Case]:
    def vcl(port: int) -> str:
        # Instead of a day, of which Varnish knows whole seconds only.
        source = source_of_edge(settings, "127.0.0.1")
        assert source.whole_after == "1d"
        return quick(settings, replace(source, port=port, whole_after="5s"))

    return outcomes(edge, CASES, vcl)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_vcl_keeps_its_promises(results: dict[str, Case], case: Path) -> None:
    result = results[case.stem]
    assert result.status == 0, result.output


@pytest.mark.smoke
def test_its_probe_finds_the_cdn_host(edges: dict[str, Host], settings: Settings) -> None:
    for name, host in edges.items():
        console = ("varnishadm -T 127.0.0.1:%s -S /etc/varnish/secret", str(settings.varnish.console_port))
        listed = host.check_output(f"{console[0]} backend.list", console[1])
        assert re.search(r"shield\s+probe\s+\S+\s+healthy", listed), f"{name}: {listed}"


@pytest.mark.smoke
def test_varnish_listens_for_the_edge_alone(edge: Host, settings: Settings) -> None:
    for port in (settings.varnish.port, settings.varnish.console_port):
        assert listening(edge, port) == {"127.0.0.1"}


def test_its_memory_is_what_was_set_for_edges(edge: Host, settings: Settings) -> None:
    pid = edge.check_output("systemctl show -p MainPID --value varnish.service")
    command = edge.check_output("tr '\\0' ' ' < /proc/%s/cmdline", pid)
    assert f"malloc,{settings.edges.memory.removesuffix('b')}" in command


def test_tls_ends_at_the_balancer(edge: Host, balancer: Host, settings: Settings) -> None:
    assert balancer.service("haproxy").is_running
    assert listening(edge, settings.nginx.http_port) == {"0.0.0.0", "[::]"}
    assert listening(edge, settings.tls.port) == set()


def test_only_the_balancer_the_monitoring_and_who_is_allowed_reach_it(
    inventory: Inventory,
    bitrix: Host,
    balancer: Host,
    monitoring: Host,
    edges: dict[str, Host],
    settings: Settings,
) -> None:
    port = settings.nginx.http_port
    for entry in inventory.entries("edge"):
        address = entry["address"]
        assert fetches(balancer, address, port)
        assert connects(monitoring, address, port)
        assert not connects(bitrix, address, port)


def test_only_edges_and_the_balancer_reach_the_cdn_hosts_side_for_them(
    inventory: Inventory, bitrix: Host, balancer: Host, edges: dict[str, Host], settings: Settings
) -> None:
    address, port = inventory.data("cdn")["address"], settings.edges.shield_port
    for host in (balancer, *edges.values()):
        assert fetches(host, address, port)
    assert not connects(bitrix, address, port)


def test_the_cdn_host_serves_edges_at_its_private_address(
    inventory: Inventory, cdn: Host, edges: dict[str, Host], settings: Settings
) -> None:
    assert edges
    assert listening(cdn, settings.edges.shield_port) == {inventory.data("cdn")["address"]}


@pytest.fixture
def drained(edge: Host) -> Iterator[Host]:
    edge.check_output("touch %s", DRAIN)
    yield edge
    edge.check_output("rm -f %s", DRAIN)


def health(host: Host, settings: Settings) -> tuple[int, str]:
    """The status and the body of the answer to the balancer's question."""
    answer = host.check_output(
        "printf 'GET %s HTTP/1.0\\r\\n\\r\\n' | bash -c 'exec 3<>/dev/tcp/127.0.0.1/%s; cat >&3; cat <&3'",
        HEALTH,
        str(settings.nginx.http_port),
    )
    head, _, body = answer.replace("\r", "").partition("\n\n")
    status = int(head.split()[1])
    assert f"Cache-Control: {'no-store' if status == 200 else 'no-cache'}" in head
    return status, body.strip()


def test_health_follows_the_drain_file(drained: Host, settings: Settings) -> None:
    assert health(drained, settings) == (503, "drained")
    drained.check_output("rm %s", DRAIN)
    assert health(drained, settings) == (200, "ok")


def test_health_of_the_cdn_host_follows_its_own(
    cdn: Host, edges: dict[str, Host], settings: Settings
) -> None:
    assert health(cdn, settings) == (200, "ok")
    cdn.check_output("touch %s", DRAIN)
    try:
        assert health(cdn, settings) == (503, "drained")
        # It still feeds the edges.
        for host in edges.values():
            console = (
                "varnishadm -T 127.0.0.1:%s -S /etc/varnish/secret",
                str(settings.varnish.console_port),
            )
            assert "healthy" in host.check_output(f"sleep 4; {console[0]} backend.list", console[1])
    finally:
        cdn.check_output("rm %s", DRAIN)


def test_it_has_neither_the_mounts_nor_their_keys(edge: Host) -> None:
    assert not edge.file("/etc/bitrix-cdn/ssh").exists
    assert not edge.file("/etc/mount-guard").exists
    assert not edge.file("/etc/webp-converter").exists
    assert "Match User" not in edge.file("/etc/ssh/sshd_config.d/10-bitrix-cdn.conf").content_string


def test_its_logs_have_limits(edge: Host) -> None:
    assert edge.file("/etc/logrotate.d/nginx").exists
    assert edge.service("logrotate.timer").is_enabled


def test_gixy_finds_no_weakness_here_that_the_cdn_host_has_not(edge: Host, tmp_path: Path) -> None:
    assert gixy(edge, "/etc/nginx/nginx.conf", tmp_path) <= {"http_splitting", "hsts_header"}


def test_varnish_may_be_away(edge: Host, settings: Settings) -> None:
    """Then nginx asks the CDN host itself."""
    ask = (
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/%s; "
        'printf "GET /upload/resize_cache/bitrix-cdn/probe.jpg HTTP/1.0\\r\\n\\r\\n" >&3; head -n 1 <&3\''
    )
    edge.check_output("systemctl stop varnish")
    try:
        answer = wait_until(
            "the picture", lambda: edge.check_output(ask, str(settings.nginx.http_port)), timeout=10
        )
        assert " 200 " in answer
    finally:
        edge.check_output("systemctl start varnish")


def fetches(host: Host, address: str, port: int) -> bool:
    """Whether a host, which need not have Python, can connect to a port."""
    return bool(host.run("timeout 5 bash -c 'exec 3<>/dev/tcp/%s/%s'", address, str(port)).rc == 0)

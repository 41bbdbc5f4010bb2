"""What `tests/e2e/test_smuggling.py` promises, at the balancer, the edges and the shield."""

from __future__ import annotations

import inspect
import json

import pytest

from tests.e2e import smuggling, smuggling_h2
from tests.kit.edges import Balancer, Expected
from tests.kit.hosts import Cdn
from tests.kit.support import Figure, Remote

pytestmark = pytest.mark.edges


@pytest.fixture(scope="session")
def paths(gallery: list[Expected]) -> list[str]:
    return sorted({one.path for one in gallery})[:12]


@pytest.mark.parametrize("host", ["balancer", "edge1"])
def test_visitors_get_their_own_pictures_between_requests_that_smuggle(
    host: str, remotes: dict[str, Remote], cdn: Cdn, paths: list[str], figure: Figure
) -> None:
    server = "haproxy" if host == "balancer" else "nginx"
    outcome = smuggling.run(remotes[host].address, cdn.settings.nginx.http_port, paths, 10_000, server)
    assert outcome.wrong == []
    figure(f"{host}: {outcome.attacks} requests with bodies, {outcome.answers} answers, 0 of them wrong")


def test_nor_does_the_shield_take_a_body_for_a_request(cdn: Cdn, paths: list[str]) -> None:
    # From the host itself: the firewall lets edges in, and these have no Python.
    arguments = {
        "host": cdn.remote.address,
        "port": cdn.settings.edges.shield_port,
        "paths": paths,
        "answers": 500,
    }
    script = inspect.getsource(smuggling)
    said = cdn.remote.run("python3", "-c", script, input=json.dumps(arguments).encode(), timeout=120)
    assert json.loads(said)["wrong"] == []


def test_nor_does_a_body_in_http_2_reach_an_edge(balancer: Balancer, cdn: Cdn, paths: list[str]) -> None:
    settings = cdn.settings
    outcome = smuggling_h2.run(
        balancer.remote.address,
        settings.tls.port,
        paths,
        smuggling_h2.EXPECTED["haproxy"],
        visitors=settings.nginx.http_port,
        connect=smuggling_h2.connection,
    )
    assert outcome.wrong == []


def test_clients_that_go_away_take_no_edge_out_of_use(
    balancer: Balancer, cdn: Cdn, paths: list[str], figure: Figure
) -> None:
    outcome = smuggling.abandon(balancer.remote.address, cdn.settings.nginx.http_port, paths)
    assert outcome.wrong == []
    assert {balancer.states()[name] for name in ("edge1", "edge2", "cdn")} == {"UP"}
    figure(
        f"{outcome.attacks} clients that went away, {outcome.answers} answers to others, "
        f"slowest {outcome.slowest:.2f} s"
    )

"""No body and no length of a client reaches an upstream, and no client gets another's answer."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e import smuggling, smuggling_h2, smuggling_h3
from tests.kit.hosts import OLD_BROWSER, Cdn, Shop
from tests.kit.support import Figure, wait_until


@pytest.fixture
def paths(shop: Shop, cdn: Cdn) -> list[str]:
    """Originals and resized pictures, decided, with bytes of their own each."""
    pictures = [shop.upload(300, 200) for _ in range(4)]
    pictures += [shop.site.resize(picture, 100, 100) for picture in pictures]
    for picture in pictures:
        cdn.as_webp(picture)
        cdn.get(picture, OLD_BROWSER)
    return [picture.url_path for picture in pictures]


def test_visitors_get_their_own_pictures_between_requests_that_smuggle(
    cdn: Cdn, paths: list[str], figure: Figure
) -> None:
    outcome = smuggling.run(cdn.remote.address, cdn.settings.nginx.http_port, paths, 1000)
    assert outcome.wrong == []
    figure(
        f"{outcome.attacks} requests with bodies, {outcome.answers} answers between them, 0 of them wrong, "
        f"slowest {outcome.slowest:.2f} s"
    )


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
def test_nor_does_a_body_without_a_need_for_a_length_reach_anybody(
    cdn: Cdn, paths: list[str], version: str, figure: Figure
) -> None:
    settings = cdn.settings
    of_debian_12 = "http_v3_module" not in cdn.remote.run("sh", "-c", "nginx -V 2>&1")
    if version == "HTTP/3" and of_debian_12:
        # Debian 12's nginx; another test checks that nothing listens there.
        return
    expected, connect = {
        "HTTP/2": (
            smuggling_h2.EXPECTED["nginx 1.22" if of_debian_12 else "nginx"],
            smuggling_h2.connection,
        ),
        "HTTP/3": (smuggling_h3.EXPECTED, smuggling_h3.connection),
    }[version]
    # Resized pictures are answered from the disk, before the frames behind the head are looked at.
    originals = [path for path in paths if "resize_cache" not in path]
    outcome = smuggling_h2.run(
        cdn.remote.address,
        settings.tls.port,
        originals,
        expected,
        visitors=settings.nginx.http_port,
        connect=connect,
    )
    assert outcome.wrong == []
    figure(
        f"{outcome.attacks} bodies over {version}, {outcome.answers} answers between them, 0 of them wrong"
    )


@pytest.mark.parametrize("hop", ["varnish", "originals"])
def test_nor_do_the_servers_behind_take_a_body_for_a_request(cdn: Cdn, paths: list[str], hop: str) -> None:
    port = getattr(cdn.settings, hop).port
    originals = [path for path in paths if "resize_cache" not in path]
    arguments = {"host": "127.0.0.1", "port": port, "paths": originals, "answers": 500, "server": hop}
    script = inspect.getsource(smuggling)
    said = cdn.remote.run("python3", "-c", script, input=json.dumps(arguments).encode(), timeout=120)
    assert json.loads(said)["wrong"] == []


def test_while_varnish_is_away_its_stand_in_is_safe_as_well(cdn: Cdn, paths: list[str]) -> None:
    cdn.remote.run("systemctl", "stop", "varnish")
    try:
        outcome = smuggling.run(cdn.remote.address, cdn.settings.nginx.http_port, paths, 200)
    finally:
        cdn.remote.run("systemctl", "start", "varnish")
        # Its child listens a moment after systemd calls it started.
        wait_until("Varnish to answer again", lambda: _varnish_answers(cdn, paths))
    assert outcome.wrong == []


def test_clients_that_go_away_cost_others_nothing(cdn: Cdn, paths: list[str], figure: Figure) -> None:
    outcome = smuggling.abandon(cdn.remote.address, cdn.settings.nginx.http_port, paths)
    assert outcome.wrong == []
    assert _varnish_answers(cdn, paths)
    figure(
        f"{outcome.attacks} clients that went away, {outcome.answers} answers to others, "
        f"slowest {outcome.slowest:.2f} s"
    )


def test_requests_that_fail_take_varnish_from_nobody(cdn: Cdn, paths: list[str]) -> None:
    # Stopped, it answers too late; so often that each of nginx's workers has had that.
    cdn.remote.run("systemctl", "kill", "--signal=STOP", "varnish")
    try:
        with ThreadPoolExecutor(20) as clients:
            failed = set(clients.map(lambda _: _ask(cdn, paths).status_code, range(20)))
    finally:
        cdn.remote.run("systemctl", "kill", "--signal=CONT", "varnish")
    assert failed == {httpx.codes.GATEWAY_TIMEOUT}
    assert _varnish_answers(cdn, paths)


def _ask(cdn: Cdn, paths: list[str]) -> httpx.Response:
    """Asks for an original on a new connection."""
    return httpx.get(f"{cdn.client.base_url}{paths[0]}", timeout=20)


def _varnish_answers(cdn: Cdn, paths: list[str]) -> bool:
    """Whether it does each time: its stand-in would as well, but keeps nothing and asks the site's host."""
    return all("X-Cache" in _ask(cdn, paths).headers for _ in range(20))


@pytest.mark.long
def test_of_ten_thousand_answers_each_is_the_one_that_was_asked_for(cdn: Cdn, paths: list[str]) -> None:
    outcome = smuggling.run(cdn.remote.address, cdn.settings.nginx.http_port, paths, 10_000)
    assert outcome.answers >= 10_000
    assert outcome.wrong == []

"""What a machine that is no host of the deployment finds out by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitrix_cdn.engine.footprint import Place
from bitrix_cdn.fleet import Inventory
from bitrix_cdn.settings import Settings
from bitrix_cdn.status.verify import Check, names, pictures, ports


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def settings(port: int, **differs: Any) -> Settings:
    return Settings.model_validate({"nginx": {"http_port": port, "server_names": ["localhost"]}, **differs})


def place(port: int, **differs: Any) -> Place:
    return Place(settings(port, **differs), frozenset({"cdn", "monitoring"}))


@contextmanager
def serving(status: int, kinds: dict[str, str], variant: str) -> Iterator[int]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = "webp" if "webp" in self.headers["Accept"] else "jpeg"
            self.send_response(status)
            self.send_header("Content-Type", kinds[kind])
            self.send_header("X-Image-Variant", variant)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def asked(port: int) -> list[Check]:
    remote = SimpleNamespace(login=("127.0.0.1", 22), run=lambda *_, **__: SimpleNamespace(text=""))
    inventory = SimpleNamespace(settings=settings(port), hosts={"cdn": remote}, groups={"cdn": ("cdn",)})
    return list(pictures(cast(Inventory, inventory), "cdn"))


@pytest.mark.parametrize(
    ("status", "kinds", "variant", "right"),
    [
        (200, {"webp": "image/webp", "jpeg": "image/jpeg"}, "webp", [True, True]),
        (200, {"webp": "image/jpeg", "jpeg": "image/jpeg"}, "original", [True, True]),
        (200, {"webp": "image/jpeg", "jpeg": "image/jpeg"}, "pending", [False, True]),
        (200, {"webp": "image/webp", "jpeg": "image/webp"}, "webp", [True, False]),
        (404, {"webp": "text/plain", "jpeg": "text/plain"}, "", [False, False]),
    ],
)
def test_a_picture_comes_as_webp_and_as_it_is(
    status: int, kinds: dict[str, str], variant: str, right: list[bool]
) -> None:
    with serving(status, kinds, variant) as port:
        found = asked(port)
    assert [one.ok for one in found] == right
    assert all("explain" in one.remedy for one in found)


def test_where_nobody_answers_that_is_told() -> None:
    assert [one.ok for one in asked(free_port())] == [False, False]


def test_a_port_that_is_closed_to_visitors_and_one_that_is_open_to_all_are_told() -> None:
    closed, also_closed = free_port(), free_port()
    quiet = {
        "varnish": {"port": also_closed},
        "originals": {"port": free_port()},
        "redis": {"cache_port": free_port(), "queue_port": free_port()},
    }
    with socket.create_server(("127.0.0.1", 0)) as visitors, socket.create_server(("127.0.0.1", 0)) as all_:
        public, private = visitors.getsockname()[1], all_.getsockname()[1]
        good = list(ports("cdn", "127.0.0.1", place(public, **quiet)))
        assert good[0] == Check("cdn: port " + str(public), "open", True, good[0].remedy)
        bad = list(ports("cdn", "127.0.0.1", place(closed, **{**quiet, "varnish": {"port": private}})))
    assert (bad[0].found, bad[0].ok) == ("closed", False)
    assert (bad[1].ok, f"{private} (Varnish)" in bad[1].found) == (False, True)


def test_a_name_that_leads_nowhere_is_told() -> None:
    given = Settings.model_validate({"nginx": {"server_names": ["localhost", "nosuch.invalid", "_"]}})
    assert [(one.name, one.ok) for one in names(given)] == [
        ("DNS of localhost", True),
        ("DNS of nosuch.invalid", False),
    ]

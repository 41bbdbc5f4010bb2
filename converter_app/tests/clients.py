"""The daemon's API and page, as clients ask them."""

from __future__ import annotations

import http.client
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from converter_app.tests.harness import TOKEN, DaemonProcess, decided, wait_until
from tests.kit import pictures

from webp_converter.variants.store import XATTR, Mark

NASTY = os.fsdecode(b"new\nline '\"%41$(x)`y` \\ \xff\xfe.jpg")


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks the API of a daemon."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._port = daemon.api_port

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = TOKEN,
        raw: bytes | None = None,
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, raw, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()


def give_up(daemon: DaemonProcess, ask: Client, name: str) -> tuple[Path, dict[str, Any]]:
    """A picture that the worker's memory doesn't suffice for, and its letter."""
    path = daemon.root / name
    path.write_bytes(pictures.encoded(pictures.photograph(side=64).resize((5500, 5500))))

    def letter() -> dict[str, Any] | None:
        return next((letter for letter in ask("GET", "/api/dead").json if letter["path"] == str(path)), None)

    found: dict[str, Any] = wait_until(letter, timeout_s=30)
    wait_until(lambda: verdict_read(path) == "failed")
    return path, found


class Page(HTMLParser):
    """A page, taken apart. Fails where an element is not closed, or closed that was not open."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.by_id: dict[str, dict[str, Any]] = {}
        self.feed(html.decode("utf-8"))
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if identity := attributes.get("id"):
            assert identity not in self.by_id
            self.by_id[identity] = {**attributes, "text": ""}
        if tag not in VOID:
            self._open.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        for _, attributes in self._open:
            if identity := attributes.get("id"):
                self.by_id[identity]["text"] += data

    def number(self, identity: str) -> int:
        return int(self.by_id[identity]["value"])

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def converted(daemon: DaemonProcess, name: str, data: bytes | None = None) -> Path:
    """A picture that was just converted, and is told of."""
    path = daemon.root / name
    path.write_bytes(data or pictures.jpeg(side=200))
    wait_until(lambda: decided(path) and conversion_of(daemon, path))
    return path


VOID = {"input", "img", "meta", "link"}


def conversion_of(daemon: DaemonProcess, path: Path) -> dict[str, Any] | None:
    told = Client(daemon)("GET", "/api/recent?count=1000").json["conversions"]
    return next((one for one in told if one["path"] == str(path)), None)


def verdict_read(path: Path) -> str | None:
    try:
        mark = Mark.parse(os.getxattr(f"{path}.keep", XATTR))
    except FileNotFoundError:
        return None
    return mark.verdict if mark else None

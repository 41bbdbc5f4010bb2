"""Whether the converter is healthy, asked of a small server that answers like one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from host_agent.health import converter as health


class Converter:
    """What a daemon answers, and how often systemd has started it again."""

    def __init__(self) -> None:
        self.answers: dict[float, dict[str, Any] | str] = {}
        self.started = time.monotonic()
        self.state = (False, 0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/api/status"
                now = time.monotonic() - outer.started
                answer = [what for since, what in sorted(outer.answers.items()) if since <= now][-1]
                self.send_response(200)
                self.end_headers()
                self.wfile.write((answer if isinstance(answer, str) else json.dumps(answer)).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api/status"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def says(self, *, after: float = 0, status: str = "", release: str = "new", **problems: str) -> None:
        parts = {part: {"status": "ok", "reason": ""} for part in ("queue", "cache", "watch", "pool", "disk")}
        parts |= {part: {"status": "degraded", "reason": why} for part, why in problems.items()}
        overall = status or ("degraded" if problems else "ok")
        self.answers[after] = {"release": release, "health": {"status": overall, "parts": parts}}

    def wait(self, before: str = "none", seconds: float = 0.3) -> str:
        self.started = time.monotonic()
        return health.wait(self.url, "new", seconds, before, state=lambda: self.state)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Converter]:
    monkeypatch.setattr(health, "STEADY_S", 0.1)
    converter = Converter()
    yield converter
    converter.server.shutdown()
    converter.server.server_close()


def test_one_that_does_well_is_healthy_also_while_it_scans(converter: Converter) -> None:
    converter.says()
    answer = converter.answers[0]
    assert isinstance(answer, dict)
    answer["health"]["scanning"] = True
    assert converter.wait() == ""


def test_one_that_gets_there_in_time_is_healthy(converter: Converter) -> None:
    converter.says(queue="starting")
    converter.says(after=0.5)
    assert converter.wait(seconds=5) == ""
    assert time.monotonic() - converter.started > 0.5


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({"release": "old"}, "release old answers"),
        ({"release": ""}, "release of unknown id answers"),
        ({"status": "failed"}, "it says that it can't work"),
        ({"status": "failed", "watch": "gone"}, "it says that it can't work (watch: gone)"),
        ({"queue": "Redis is away", "pool": "broken"}, "queue: Redis is away; pool: broken"),
    ],
)
def test_what_speaks_against_one_is_said(converter: Converter, says: dict[str, str], reason: str) -> None:
    converter.says(**says)  # type: ignore[arg-type]
    assert converter.wait() == reason


def test_what_was_so_before_does_not_speak_against_it(converter: Converter) -> None:
    converter.says(disk="full")
    assert converter.wait(before="cache,disk") == ""
    converter.says(disk="full", queue="Redis is away")
    assert converter.wait(before="cache,disk") == "queue: Redis is away"


def test_where_nobody_answered_before_one_that_works_in_part_will_do(converter: Converter) -> None:
    converter.says(disk="full")
    assert converter.wait(before=health.UNKNOWN) == ""
    assert time.monotonic() - converter.started > 0.3
    converter.says(status="failed")
    assert converter.wait(before=health.UNKNOWN) == "it says that it can't work"
    converter.says(release="old", disk="full")
    assert converter.wait(before=health.UNKNOWN) == "release old answers"


def test_one_that_gets_ill_within_a_second_is_not_healthy(
    converter: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STEADY_S", 1.0)
    converter.says()
    converter.says(after=0.4, status="failed")
    assert converter.wait(seconds=0.5) == "it says that it can't work"


@pytest.mark.parametrize("state", [(True, 0), (False, 1)])
def test_one_that_ends_is_not_waited_for(converter: Converter, state: tuple[bool, int]) -> None:
    converter.says(queue="starting")
    states = iter([(False, 0), (False, 0), state])
    converter.started = time.monotonic()
    assert health.wait(converter.url, "new", 60, "none", state=lambda: next(states)) == "it ends by itself"
    assert time.monotonic() - converter.started < 5


def test_what_is_not_the_converter_is_said(converter: Converter) -> None:
    converter.answers[0] = "<html>"
    assert "Expecting value" in converter.wait()
    converter.answers[0] = '{"other": 1}'
    assert converter.wait() == f"{converter.url}: {converter.url} is not the converter's"
    converter.server.shutdown()
    converter.server.server_close()
    assert "refused" in converter.wait()


def test_how_it_does_now_is_one_word(
    converter: Converter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[api]\naddress = '127.0.0.1'\nport = {converter.server.server_address[1]}\n")
    converter.says()
    converter.says(after=0.0, disk="full", cache="Redis is away")
    assert health.main([str(config)]) == 0
    assert capsys.readouterr().out == "cache,disk\n"
    converter.says()
    health.main([str(config)])
    assert capsys.readouterr().out == "none\n"
    converter.server.shutdown()
    converter.server.server_close()
    health.main([str(config)])
    assert capsys.readouterr().out == "unknown\n"


def test_an_address_of_ipv6_is_in_brackets(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[api]\naddress = '::1'\nport = 1\n")
    assert health.address(config) == "http://[::1]:1/api/status"

"""Why a picture is delivered as it is: which one is meant, what is told of it, and what is wrong."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from converter_app.tests.harness import DaemonProcess, RedisServer, command, free_port
from tests.kit import pictures

from webp_converter.api.explain import is_well, place_of
from webp_converter.api.service import Service
from webp_converter.config import Config, load
from webp_converter.queue.jobs import Done, Job, Jobs, Priority

CONFIG = Config()


@pytest.mark.parametrize(
    ("asked", "kind", "url"),
    [
        ("https://cdn.shop.example/upload/iblock/a.jpg?v=1#x", "original", "/upload/iblock/a.jpg"),
        ("http://c/upload/resize_cache/a/1_1_1/b.png", "resized", "/upload/resize_cache/a/1_1_1/b.png"),
        ("/upload/iblock/%D0%BA.jpg", "original", "/upload/iblock/%D0%BA.jpg"),
        ("/upload/iblock/\u043a.jpg?1", "original", "/upload/iblock/%D0%BA.jpg"),
        ("/upload//iblock/a.jpg", "original", "/upload/iblock/a.jpg"),
        ("/var/www/cdn/upload/resize_cache/a/b.jpg", "resized", "/upload/resize_cache/a/b.jpg"),
        ("/var/www/cdn/upload/resize_cache/a/100%25.jpg", "resized", "/upload/resize_cache/a/100%2525.jpg"),
        ("/var/cache/webp/upload/iblock/a.jpg", "original", "/upload/iblock/a.jpg"),
        ("/mnt/bitrix/upload/iblock/a.jpg", "original", "/upload/iblock/a.jpg"),
        ("/var/www/bitrix/upload/resize_cache/a.jpg", "resized", "/upload/resize_cache/a.jpg"),
        ("/upload/resize_cache/a.jpg.webp", "resized", "/upload/resize_cache/a.jpg"),
        ("/upload/resize_cache/a.webp.keep", "resized", "/upload/resize_cache/a.webp"),
        ("/upload/a.webp", "original", "/upload/a.webp"),
        ("/upload/a.svg", "original", "/upload/a.svg"),
    ],
)
def test_which_picture_is_meant(asked: str, kind: str, url: str) -> None:
    place = place_of(asked, CONFIG)
    assert (place.kind, place.url) == (kind, url)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "photo.jpg",
        "/etc/passwd",
        "/etc/photo.jpg",
        "ftp://cdn/upload/a.jpg",
        "http:///upload/a.jpg",
        "http://[/upload/a.jpg",
        "https://cdn/bitrix/a.jpg",
        "/upload/a.php",
        "/upload/",
        "/upload/iblock/",
        "/upload/../etc/a.jpg",
        "/upload/.hidden.jpg",
        "/upload/%2e%2e/a.jpg",
        "/upload/a%00.jpg",
        "/upload/1c_exchange/a.jpg",
        "/upload/TMP/a.jpg",
        "/upload/support/not_image/a.jpg",
    ],
)
def test_what_the_cdn_does_not_serve_is_refused_in_one_line(asked: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        place_of(asked, CONFIG)
    assert len(str(raised.value).splitlines()) == 1


class _Nginx(BaseHTTPRequestHandler):
    """Answers by what a visitor accepts."""

    def do_HEAD(self) -> None:
        webp = "image/webp" in self.headers["Accept"]
        self.send_response(200)
        self.send_header("Content-Type", "image/webp" if webp else "image/jpeg")
        self.send_header("Content-Length", "7" if webp else "11")
        self.send_header("X-Image-Variant", "webp" if webp else "original")
        self.send_header("X-Cache", "hit")
        self.send_header("Age", "42")
        self.send_header("Cache-Control", "public, max-age=5")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def nginx() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Nginx)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer, nginx: str) -> DaemonProcess:
    absent = f"http://127.0.0.1:{free_port()}"
    originals = {
        "variants": str(tmp_path / "variants"),
        "temporary": str(tmp_path / "temporary"),
        "url": absent,
        "purge_url": nginx,
        "deadline_s": 0.5,
    }
    (tmp_path / "variants").mkdir()
    return DaemonProcess(tmp_path / "cdn", redis_server.url, originals=originals, delivery={"url": nginx})


def told(settings: DaemonProcess, target: str | Path, status: int = 0) -> dict[str, Any]:
    """In this process: a command takes a second to start."""
    service = Service(load(settings.config_file))
    try:
        explained = service.explain(str(target))
    finally:
        service.close()
    assert is_well(explained) is (status == 0), explained
    return explained.model_dump(mode="json")


def test_a_converted_picture(settings: DaemonProcess) -> None:
    path = settings.root / "a" / "450_450_1" / "photo.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(pictures.jpeg())
    command("convert", path, "--config", settings.config_file)
    explained = told(settings, "https://cdn.example/upload/resize_cache/a/450_450_1/photo.jpg?v=1")
    variant = path.with_name("photo.jpg.webp")
    assert (explained["state"], explained["kind"]) == ("webp", "resized")
    original = explained["original"]
    assert (original["present"], original["bytes"]) == (True, path.stat().st_size)
    assert (original["format"], original["width"], original["height"]) == ("jpeg", 450, 450)
    assert original["modified_at"] == pytest.approx(path.stat().st_mtime)
    webp, keep, avif = explained["variants"]
    assert (webp["state"], webp["bytes"]) == ("fresh", variant.stat().st_size)
    assert webp["quality"] >= 75
    assert webp["ssim"] >= 0.95
    assert webp["mark_version"] == "1"
    assert (keep["state"], avif["state"]) == ("missing", "missing")
    assert explained["queue"]["state"] == "none"
    assert [answer["variant"] for answer in explained["visitors"]] == ["webp", "webp", "original", "original"]
    assert {answer["bytes"] for answer in explained["visitors"]} == {7, 11}

    human = command("explain", path, "--config", settings.config_file)
    assert (human.returncode, human.stderr) == (0, "")
    for words in (f"It is WebP at quality {webp['quality']}", "450x450", "photo.jpg.webp is fresh", "a bot"):
        assert words in human.stdout

    os.utime(path, (1, 1))
    explained = told(settings, path, status=1)
    assert explained["variants"][0]["state"] == "stale"
    assert (explained["state"], "changed" in explained["why"]) == ("pending", True)


@pytest.mark.parametrize(
    ("content", "name", "state", "words"),
    [
        (b"<html>", "photo.jpg", "original", "not those of a picture"),
        (None, "photo.jpg", "missing", "no such picture"),
        (b"<svg/>", "photo.svg", "original", "served as it is"),
        (b"long", "\u0444" * 124 + ".jpg", "original", "no room for a suffix"),
    ],
)
def test_why_there_is_no_webp(
    settings: DaemonProcess, content: bytes | None, name: str, state: str, words: str
) -> None:
    path = settings.root / name
    if content is not None:
        path.write_bytes(content)
        command("convert", path, "--config", settings.config_file)
    explained = told(settings, path, status=state == "missing")
    assert explained["state"] == state
    assert words in explained["why"]


def test_what_others_made(settings: DaemonProcess) -> None:
    path = settings.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    path.with_name("photo.jpg.webp").write_bytes(b"theirs")
    assert told(settings, path)["state"] == "foreign"


def test_where_it_stands_in_the_queue(settings: DaemonProcess, redis_server: RedisServer) -> None:
    path = settings.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    jobs = Jobs(load(settings.config_file).queue)
    jobs.ensure_group()
    raw = os.fsencode(path)
    assert told(settings, path, 1)["queue"]["state"] == "none"
    jobs.push([Job(raw, time.time_ns(), Priority.HIGH)])
    waiting = told(settings, path, 1)
    assert (waiting["queue"]["state"], waiting["queue"]["stream"]) == ("waiting", "high")
    assert "waits" in waiting["why"]
    [job] = jobs.fetch(1, 0)
    running = told(settings, path, 1)["queue"]
    assert (running["state"], running["consumer"]) == ("running", jobs.consumer)
    jobs.finish([Done(job, job._replace(tries=2), after_s=60)])
    put_off = told(settings, path, 1)["queue"]
    assert (put_off["state"], put_off["tries"]) == ("put-off", 2)
    assert 0 < put_off["due_s"] <= 60
    jobs.push([Job(raw, time.time_ns())])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job._replace(tries=3), dead="worker crashed")])
    dead = told(settings, path, 1)["queue"]["dead"]
    assert (dead["reason"], dead["tries"]) == ("worker crashed", 3)


def test_parts_that_are_away_are_told_of(settings: DaemonProcess, redis_server: RedisServer) -> None:
    """Redis and the site's host don't answer, and what does is told all the same."""
    redis_server.kill()
    started = time.monotonic()
    explained = told(settings, "/upload/iblock/a.jpg", status=1)
    assert time.monotonic() - started < 15
    assert "Redis is away" in explained["queue"]["problem"]
    assert explained["original"]["present"] is None
    assert "can't be asked" in explained["original"]["problem"]
    assert [(answer["cache"], answer["age_s"]) for answer in explained["varnish"]] == [("hit", 42)] * 3
    human = command("explain", "/upload/iblock/a.jpg", "--config", settings.config_file)
    assert (human.returncode, human.stderr) == (1, "")
    assert "Redis is away" in human.stdout
    result = command("explain", "--json", "/upload/iblock/a.jpg", "--config", settings.config_file)
    assert (result.returncode, json.loads(result.stdout)["queue"]) == (1, explained["queue"])


def test_a_cache_that_is_away(tmp_path: Path, redis_server: RedisServer) -> None:
    absent = f"http://127.0.0.1:{free_port()}"
    originals = {"variants": str(tmp_path), "url": absent, "purge_url": absent}
    settings = DaemonProcess(
        tmp_path / "cdn", redis_server.url, originals=originals, delivery={"url": absent}
    )
    explained = told(settings, "/upload/iblock/a.jpg", status=1)
    assert all("refused" in answer["problem"] for answer in explained["varnish"] + explained["visitors"])


def test_refusals(settings: DaemonProcess) -> None:
    result = command("explain", "/etc/passwd", "--config", settings.config_file)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


def test_over_http(settings: DaemonProcess) -> None:
    path = settings.root / os.fsdecode(b"\xff.jpg")
    path.write_bytes(b"<html>")
    command("convert", path, "--config", settings.config_file)
    settings.start()
    try:
        query = urlencode({"target": "/upload/resize_cache/%FF.jpg"})
        with urlopen(f"http://127.0.0.1:{settings.api_port}/api/explain?{query}", timeout=30) as answer:
            explained = json.load(answer)
        assert (explained["state"], explained["original"]["path"]) == ("original", str(path))
    finally:
        settings.stop()


def test_convert_tells_of_what_was_decided_before(settings: DaemonProcess) -> None:
    good, bad = settings.root / "good.jpg", settings.root / "bad.jpg"
    good.write_bytes(pictures.jpeg())
    bad.write_text("<html>")
    lines = []
    for _ in range(2):
        result = command("convert", "--json", good, bad, "--config", settings.config_file)
        lines.append({line["path"]: line for line in map(json.loads, result.stdout.splitlines())})
        for line in lines[-1].values():  # the mark has four places
            line["similarity"] = line["similarity"] and round(line["similarity"], 4)
    first, second = lines
    for path in (str(good), str(bad)):
        assert second[path] == {**first[path], "outcome": "fresh"}
    assert second[str(good)]["similarity"] >= 0.95
    assert (second[str(bad)]["similarity"], second[str(bad)]["verdict"]) == (None, "no-picture")


def test_a_server_that_is_silent_is_waited_for_once(tmp_path: Path, redis_server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        originals = {"variants": str(tmp_path), "url": url, "purge_url": url, "deadline_s": 0.5}
        delivery = {"url": url, "deadline_s": 0.5}
        settings = DaemonProcess(tmp_path / "cdn", redis_server.url, originals=originals, delivery=delivery)
        started = time.monotonic()
        explained = told(settings, "/upload/iblock/a.jpg", status=1)
        assert time.monotonic() - started < 3
    assert all("timed out" in answer["problem"] for answer in explained["varnish"] + explained["visitors"])


def test_names_of_any_bytes(settings: DaemonProcess) -> None:
    name = os.fsdecode(b"a \xff\n\xd0.jpg")
    path = settings.root / name
    path.write_bytes(b"no picture")
    command("convert", path, "--config", settings.config_file)
    for target in (str(path), "https://cdn/upload/resize_cache/a%20%FF%0A%D0.jpg"):
        result = command("explain", "--json", target, "--config", settings.config_file)
        assert (result.returncode, result.stderr) == (0, "")
        explained = json.loads(result.stdout)
        assert (explained["state"], explained["original"]["path"]) == ("original", str(path))
    human = command("explain", path, "--config", settings.config_file)
    assert (human.returncode, human.stderr) == (0, "")
    assert "a \\xff\\n\\xd0.jpg.keep is fresh" in human.stdout

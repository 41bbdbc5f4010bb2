"""The HTTP API of a real daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from converter_app.tests.clients import NASTY, Answer, Client, give_up, verdict_read
from converter_app.tests.harness import (
    TOKEN,
    DaemonProcess,
    RedisServer,
    StartDaemon,
    daemon_in,
    decided,
    variant_of,
    wait_until,
)
from tests.kit import pictures

from webp_converter.api import models
from webp_converter.api.service import Picture
from webp_converter.queue.jobs import Letter, LetterSummary, Overview
from webp_converter.variants.statistics import Totals
from webp_converter.work.cleanup import Cleanup
from webp_converter.work.health import Health


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon whose worker has little memory, with a token."""
    directory = tmp_path_factory.mktemp("api")
    (directory / "variants").mkdir()
    originals = {"variants": str(directory / "variants"), "temporary": str(directory / "temporary2")}
    with daemon_in(directory, api={"hosts": ["pictures.example"]}, originals=originals) as daemon:
        yield daemon


@pytest.fixture
def ask(served: DaemonProcess) -> Client:
    return Client(served)


@pytest.fixture
def picture(served: DaemonProcess, request: pytest.FixtureRequest) -> Path:
    """A picture that was converted."""
    path = served.root / request.node.name.replace("/", "_") / "450_450_1" / "photo.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    return path


# What it tells


def test_health_and_status_fit_their_models(ask: Client) -> None:
    health = ask("GET", "/health")
    assert health.status == 200
    assert Health.model_validate(health.json).status == "ok"
    status = models.Status.model_validate(ask("GET", "/api/status").json)
    assert status.health.status == "ok"
    assert len(status.disks) == 2
    assert all(0 < disk.share < 1 for disk in status.disks)


def test_pictures_and_statistics(ask: Client, picture: Path) -> None:
    def known() -> Picture | None:
        answer = ask("GET", f"/api/pictures?path={quote_from_bytes(os.fsencode(picture))}")
        assert answer.status == 200
        told = Picture.model_validate(answer.json)
        return told if told.format else None

    told: Picture = wait_until(known)
    assert (told.path, told.format, told.evicted) == (str(picture), "jpeg", False)
    assert told.variant_bytes == variant_of(picture).stat().st_size
    statistics = Totals.model_validate(ask("GET", "/api/statistics").json)
    assert statistics.converted >= 1
    assert statistics.saved_bytes == statistics.original_bytes - statistics.variant_bytes > 0
    assert statistics.formats["jpeg"].converted == statistics.converted
    assert sum(day.converted for day in statistics.days.values()) >= statistics.converted
    assert ask("GET", "/api/statistics?days=0").json["days"] == {}


def test_queue(ask: Client) -> None:
    view = Overview.model_validate(ask("GET", "/api/queue").json)
    assert set(view.streams) == {"high", "normal", "low"}
    assert len(view.consumers) == 1


def test_a_path_of_any_bytes(served: DaemonProcess, ask: Client) -> None:
    path = served.root / NASTY
    path.write_bytes(pictures.jpeg(side=64))
    wait_until(lambda: decided(path))
    answer = ask("GET", f"/api/pictures?path={quote_from_bytes(os.fsencode(path))}")
    assert (answer.status, answer.json["path"]) == (200, str(path))
    variant_of(path).unlink()
    answer = ask("POST", "/api/convert", {"paths": [str(path)]})
    assert (answer.status, answer.json) == (202, {"pictures": [{"path": str(path), "state": "queued"}]})
    wait_until(lambda: decided(path))


# Orders


def test_convert(served: DaemonProcess, ask: Client, picture: Path) -> None:
    again, missing = picture.with_name("again.jpg"), picture.with_name("missing.jpg")
    again.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(again))
    variant_of(again).unlink()
    answer = ask("POST", "/api/convert", {"paths": [str(picture), str(again), str(missing)]})
    states = {
        Path(told.path).name: told.state
        for told in models.ConvertResponse.model_validate(answer.json).pictures
    }
    assert states == {"photo.jpg": "decided", "again.jpg": "queued", "missing.jpg": "missing"}
    wait_until(lambda: decided(again))


def test_scan(ask: Client, picture: Path) -> None:
    variant_of(picture).unlink()
    answer = ask("POST", "/api/scan")
    assert (answer.status, answer.json) == (202, {"asked": True})
    wait_until(lambda: decided(picture))


def test_cleanup(ask: Client, picture: Path) -> None:
    os.utime(variant_of(picture), ns=(0, picture.stat().st_mtime_ns))
    plan = Cleanup.model_validate(ask("POST", "/api/cleanup?dry_run=true").json)
    assert (plan.dry_run, plan.evicted["age"].files) == (True, 1)
    assert variant_of(picture).exists()
    done = Cleanup.model_validate(ask("POST", "/api/cleanup").json)
    assert (done.dry_run, done.evicted["age"].files, done.evicted["age"].bytes > 0) == (False, 1, True)
    assert not variant_of(picture).exists()
    last = models.Status.model_validate(ask("GET", "/api/status").json).last_eviction
    assert last is not None
    assert (last.age_files, last.refused) == (1, 0)
    known = Picture.model_validate(
        ask("GET", f"/api/pictures?path={quote_from_bytes(os.fsencode(picture))}").json
    )
    assert (known.evicted, known.format) == (True, "jpeg")
    assert ask("GET", "/api/statistics").json["evicted"] >= 1


def test_dead_letters_there_and_back(served: DaemonProcess, ask: Client) -> None:
    path, summary = give_up(served, ask, "api " + NASTY)
    assert LetterSummary.model_validate(summary).tries == 1
    letter = Letter.model_validate(ask("GET", f"/api/dead/{summary['id']}").json)
    assert (letter.path, letter.reason) == (str(path), "MemoryError")
    assert letter.traceback.startswith("Traceback (most recent call last):")
    assert letter.command == f"webp-converter dead retry {letter.id}"

    answer = ask("POST", f"/api/dead/{letter.id}/retry")
    assert (answer.status, answer.json) == (202, {"id": letter.id, "path": str(path)})
    assert ask("GET", f"/api/dead/{letter.id}").status == 404

    def newer() -> dict[str, Any] | None:
        letters: list[dict[str, Any]] = ask("GET", "/api/dead").json
        return next((found for found in letters if found["path"] == str(path)), None)

    again: dict[str, Any] = wait_until(newer, timeout_s=30)
    assert again["given_up_at"] > letter.given_up_at
    assert ask("DELETE", f"/api/dead/{again['id']}").status == 204
    assert ask("DELETE", f"/api/dead/{again['id']}").status == 404
    assert newer() is None
    wait_until(lambda: verdict_read(path) == "failed")  # nothing tries it again
    path.unlink()


def test_a_letter_goes_with_its_picture_converted_after_all(served: DaemonProcess, ask: Client) -> None:
    path, letter = give_up(served, ask, "after all.jpg")
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path) and variant_of(path).exists())
    wait_until(lambda: ask("GET", f"/api/dead/{letter['id']}").status == 404)


# Who may

ORDERS = (
    ("POST", "/api/scan"),
    ("POST", "/api/cleanup"),
    ("POST", "/api/convert"),
    ("POST", "/api/dead/1-1/retry"),
    ("DELETE", "/api/dead/1-1"),
    ("POST", "/api/nothing"),
    ("PUT", "/health"),
)


@pytest.mark.parametrize(("method", "path"), ORDERS)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "0", "\xff" * 32])
def test_orders_need_the_token(ask: Client, method: str, path: str, token: str | None) -> None:
    answer = ask(method, path, token=token)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert one_line(answer)


@pytest.mark.parametrize("scheme", ["Basic", "", "Bearer:"])
def test_the_token_alone_is_not_enough(ask: Client, scheme: str) -> None:
    answer = ask("POST", "/api/scan", token=None, Authorization=f"{scheme} {TOKEN}")
    assert answer.status == 401


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_without_a_token_file_reading_works(
    start_daemon: StartDaemon, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    client = Client(start_daemon(api={"token_file": str(file)}))
    answer = client("POST", "/api/scan", token=(content or "x").strip())
    assert answer.status == 503
    assert str(file) in one_line(answer)
    assert client("GET", "/api/queue").status == 200
    file.write_text(TOKEN)
    assert client("POST", "/api/scan").status == 202


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8088", 200),
        ("localhost", 200),
        ("[::1]:8088", 200),
        ("LOCALHOST:1", 200),
        ("pictures.example", 200),
        ("evil.example", 400),
        ("evil.example:8088", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_only_by_its_own_name(ask: Client, host: str, status: int) -> None:
    assert ask("GET", "/api/queue", Host=host).status == status


# Bad input


def one_line(answer: Answer) -> str:
    """The error, which is one line."""
    told = models.Problem.model_validate(answer.json).detail
    assert told
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "required"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", ""),
        (b"null", ""),
        (b'"x"', ""),
        (b"{}", "paths"),
        (b'{"paths": []}', "paths"),
        (b'{"paths": "x"}', "paths"),
        (b'{"paths": [1]}', "paths.0"),
        (b'{"paths": [""]}', "outside"),
        (b'{"paths": ["/etc/passwd"]}', "outside"),
        (b'{"paths": ["photo.jpg"]}', "outside"),
        (b'{"paths": ["/x.jpg"], "other": 1}', "other"),
        (b'{"paths": ["ROOT"]}', "outside"),
        (b'{"paths": ["ROOT/"]}', "no picture"),
        (b'{"paths": ["ROOT/../../etc/passwd.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT/a/../b.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT/./b.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT//b.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT/.hidden.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT/a\\u0000.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT/\\ud800.jpg"]}', ""),
        (b'{"paths": ["ROOT/text.txt"]}', "extensions"),
        (b'{"paths": ["ROOT/photo.jpg.webp"]}', "variant"),
        (b'{"paths": ["ROOT/%s.jpg"]}' % (b"a" * 247), "no room for a suffix"),
        (b'{"paths": ["ROOT/' + b"x" * 300 + b'.jpg"]}', "no picture"),
        (b'{"paths": ["ROOT' + b"/x" * 2100 + b'.jpg"]}', ""),
        (b'{"paths": ["VARIANTS/../x.jpg"]}', "no picture"),
    ],
)
def test_bad_wishes(served: DaemonProcess, ask: Client, raw: bytes, words: str) -> None:
    variants = served.root.parent.parent.parent / "variants"
    raw = raw.replace(b"ROOT", os.fsencode(served.root)).replace(b"VARIANTS", os.fsencode(variants))
    answer = ask("POST", "/api/convert", raw=raw)
    assert answer.status == 422
    assert words.lower() in one_line(answer).lower()


def test_a_link_out_of_the_tree_is_not_followed(served: DaemonProcess, ask: Client, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(pictures.jpeg())
    (served.root / "outside").symlink_to(tmp_path)
    path = served.root / "outside" / "photo.jpg"
    answer = ask("POST", "/api/convert", {"paths": [str(path)]})
    assert answer.json["pictures"][0]["state"] == "missing"
    assert ask("GET", f"/api/pictures?path={path}").status == 404
    (served.root / "outside").unlink()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/pictures", 422),
        ("/api/pictures?path=", 422),
        ("/api/pictures?path=/etc/passwd", 422),
        ("/api/pictures?path=%00", 422),
        ("/api/pictures?path=" + "/x" * 9000, 422),
        ("/api/pictures?path=ROOT/never.jpg", 404),
        ("/api/pictures?path=ROOT/a%0Ab%FF.jpg", 404),
        ("/api/statistics?days=x", 422),
        ("/api/statistics?days=-1", 422),
        ("/api/dead?count=0", 422),
        ("/api/dead?after=x", 422),
        ("/api/dead/x", 422),
        ("/api/dead/1-1", 404),
        ("/api/dead/1-1%0A", 422),
        ("/api/dead/%FF", 422),
        ("/api/dead/99999999999999999999-0", 422),
        ("/api/recent?count=-1", 422),
        ("/api/nothing", 404),
    ],
)
def test_bad_questions(served: DaemonProcess, ask: Client, path: str, status: int) -> None:
    answer = ask("GET", path.replace("ROOT", str(served.root)))
    assert answer.status == status
    one_line(answer)


def test_bad_ids_in_orders(ask: Client) -> None:
    assert ask("POST", "/api/dead/x/retry").status == 422
    assert ask("POST", "/api/dead/1-1/retry").status == 404
    assert ask("DELETE", "/api/dead/1-1").status == 404
    assert ask("POST", "/api/cleanup?dry_run=perhaps").status == 422
    assert ask("GET", "/api/scan").status == 405


def test_redis_away(start_daemon: StartDaemon, redis_server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    daemon = start_daemon(api={"token_file": str(file)})
    client = Client(daemon)
    path = daemon.root / "photo.jpg"
    redis_server.kill()
    path.write_bytes(pictures.jpeg())
    for method, where, body in (
        ("GET", "/api/queue", None),
        ("GET", "/api/statistics", None),
        ("GET", "/api/dead", None),
        ("GET", "/api/dead/1-1", None),
        ("POST", "/api/dead/1-1/retry", None),
        ("POST", "/api/convert", {"paths": [str(path)]}),
    ):
        answer = client(method, where, body)
        assert answer.status == 503, where
        assert "Redis is away" in one_line(answer)
    assert client("POST", "/api/cleanup").json["missed"] is True
    assert client("GET", "/health").json["status"] == "degraded"


# Its document


def test_the_document_is_whole(ask: Client) -> None:
    document = ask("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "webp-converter"
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for reference in re.findall(r'"\$ref": "([^"]+)"', text):
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert "HTTPValidationError" not in text
    for schema in schemas.values():
        assert schema.get("description"), schema
    seen = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert operation["tags"], where
            assert operation["operationId"] not in seen, where
            seen.add(operation["operationId"])
            for parameter in operation.get("parameters", []):
                assert parameter["description"], where
                assert parameter["schema"]["type"], where
            assert {f"{{{p['name']}}}" for p in operation.get("parameters", []) if p["in"] == "path"} == set(
                re.findall(r"\{\w+\}", path)
            )
            for status, response in operation["responses"].items():
                assert response["description"], where
                if status != "204":
                    assert "$ref" in json.dumps(response["content"]["application/json"]["schema"]), where
            writes = method != "get"
            assert bool(operation.get("security")) == writes, where
            assert ("401" in operation["responses"]) == writes, where
    [scheme] = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_all_that_is_documented_is_there_and_nothing_else(ask: Client) -> None:
    document = ask("GET", "/openapi.json").json
    documented = {(m.upper(), p) for p, operations in document["paths"].items() for m in operations}
    assert documented == {
        ("GET", "/health"),
        ("GET", "/api/status"),
        ("GET", "/api/pictures"),
        ("GET", "/api/explain"),
        ("GET", "/api/statistics"),
        ("GET", "/api/recent"),
        ("GET", "/api/queue"),
        ("GET", "/api/dead"),
        ("GET", "/api/dead/{id}"),
        ("POST", "/api/dead/{id}/retry"),
        ("DELETE", "/api/dead/{id}"),
        ("POST", "/api/scan"),
        ("POST", "/api/cleanup"),
        ("POST", "/api/convert"),
    }
    for method, path in documented:
        answer = ask(method, path.replace("{id}", "1-1"))
        # Each status that comes is one that is documented.
        operation = document["paths"][path][method.lower()]
        assert str(answer.status) in operation["responses"], (method, path, answer.status)


# The same by the command line


def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    file = Path(sys.executable).parent / "webp-converter"
    return subprocess.run([str(file), *map(str, arguments)], capture_output=True, text=True, check=False)


def test_dead_letters_on_the_command_line(served: DaemonProcess, ask: Client) -> None:
    file = served.config_file
    result = program("dead", "list", "--config", file)
    assert (result.returncode, result.stdout) == (0, "no dead letters\n")
    path, letter = give_up(served, ask, "cli " + NASTY)

    result = program("dead", "list", "--config", file)
    assert result.returncode == 1
    assert letter["id"] in result.stdout
    assert "\\n" in result.stdout
    assert "\\xff\\xfe" in result.stdout
    result = program("dead", "list", "--json", "--config", file)
    assert (result.returncode, json.loads(result.stdout)) == (1, [letter])

    result = program("dead", "show", letter["id"], "--json", "--config", file)
    shown = json.loads(result.stdout)
    assert (result.returncode, shown["path"]) == (0, str(path))
    for word in ("MemoryError", "Traceback (most recent call last)", shown["command"]):
        assert word in program("dead", "show", letter["id"], "--config", file).stdout

    # As it is shown, into a shell.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pasted = subprocess.run(
        ["sh", "-c", shown["command"]], env=environment, capture_output=True, text=True, check=False
    )
    assert (pasted.returncode, pasted.stdout) == (0, "1 retried\n")

    def given_up_again() -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = json.loads(program("dead", "list", "--json", "--config", file).stdout)
        return [found for found in letters if found["id"] != letter["id"]]

    [again] = wait_until(given_up_again, timeout_s=30)
    assert again["path"] == str(path)
    result = program("dead", "retry", letter["id"], "--config", file)
    assert (result.returncode, letter["id"] in result.stderr) == (1, True)
    result = program("dead", "drop", "--all", "--json", "--config", file)
    assert (result.returncode, json.loads(result.stdout)) == (0, {"dropped": [again["id"]], "missing": []})
    assert program("dead", "list", "--config", file).returncode == 0
    path.unlink()


def test_the_limit_raised_and_all_tried_again(start_daemon: StartDaemon) -> None:
    """What is put back is really tried again."""
    daemon = start_daemon(
        workers={"memory_limit_mib": 256, "count": 1}, queue={"tries": 1, "retry_pause_s": 0}
    )
    path, _ = give_up(daemon, Client(daemon), "large.jpg")
    daemon.stop()
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("memory_limit_mib = 256", "memory_limit_mib = 2048"))
    daemon.start()
    assert verdict_read(path) == "failed"
    result = program("dead", "retry", "--all", "--config", daemon.config_file)
    assert (result.returncode, result.stdout) == (0, "1 retried\n")
    wait_until(lambda: variant_of(path).exists() and decided(path), timeout_s=60)
    assert program("dead", "list", "--config", daemon.config_file).returncode == 0


def test_killed_between_the_letter_and_the_verdict(start_daemon: StartDaemon) -> None:
    """Whether it was given up or put back at that moment: a letter, and no verdict. The scan sees to it."""
    daemon = start_daemon(
        workers={"memory_limit_mib": 256, "count": 1}, queue={"tries": 1, "retry_pause_s": 0}
    )
    path, letter = give_up(daemon, Client(daemon), "large.jpg")
    daemon.kill()
    path.with_name("large.jpg.keep").unlink()
    daemon.start(ready=False)
    wait_until(lambda: verdict_read(path) == "failed", timeout_s=30)
    [again] = Client(daemon)("GET", "/api/dead").json
    assert again["path"] == letter["path"]
    assert again["given_up_at"] > letter["given_up_at"]


def test_queue_and_stats_on_the_command_line(served: DaemonProcess, ask: Client, picture: Path) -> None:
    file = served.config_file
    told = json.loads(program("queue", "--json", "--config", file).stdout)
    assert Overview.model_validate(told).dead == 0
    assert "Daemons" in program("queue", "--config", file).stdout
    wait_until(lambda: ask("GET", "/api/statistics").json["converted"])
    told = json.loads(program("stats", "--json", "--days", "1", "--config", file).stdout)
    assert Totals.model_validate(told).converted >= 1
    assert "jpeg" in program("stats", "--config", file).stdout


def test_cleanup_on_the_command_line(served: DaemonProcess, picture: Path) -> None:
    orphan = picture.with_name("orphan.jpg")
    orphan.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(orphan))
    # What the daemon isn't told of: its directory is away while the original goes.
    away = served.root.parent / "away"
    picture.parent.rename(away)
    (away / "orphan.jpg").unlink()
    os.utime(away / "photo.jpg.webp", ns=(0, picture_time(away / "photo.jpg")))
    leftover = served.temporary / "1-dead"
    leftover.mkdir()
    (leftover / "1-0").write_bytes(b"unfinished" * 1000)
    os.utime(leftover, (1, 1))
    starting = served.temporary / "1-starting"
    starting.mkdir()
    away.rename(picture.parent)

    result = program("cleanup", "--dry-run", "--json", "--config", served.config_file)
    plan = Cleanup.model_validate_json(result.stdout)
    assert result.returncode == 1
    assert (plan.unfinished.files, plan.evicted["age"].files) == (1, 1)
    assert plan.unfinished.bytes >= 10_000
    assert (leftover / "1-0").exists()
    result = program("cleanup", "--config", served.config_file)
    assert (result.returncode, "Removed" in result.stdout) == (0, True)
    assert not leftover.exists()
    assert starting.exists()
    assert not variant_of(orphan).exists()
    assert not variant_of(picture).exists()
    result = program("cleanup", "--dry-run", "--config", served.config_file)
    assert (result.returncode, "Would go" in result.stdout) == (0, True)


def picture_time(path: Path) -> int:
    return path.stat().st_mtime_ns

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from converter_app.tests.harness import DaemonProcess, RedisServer, command, decided, variant_of, wait_until
from tests.kit import pictures


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer) -> DaemonProcess:
    """A daemon's directories and settings, without the daemon."""
    return DaemonProcess(tmp_path / "cdn", redis_server.url)


def test_config_check(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[api]\nport = 8088\n")
    result = command("config", "check", "--config", file)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    file.write_text("[api]\nport = 88888\n")
    result = command("config", "check", "--config", file)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    for word in (str(file), "api.port", "88888", "65535"):
        assert word in line
    assert command("run", "--config", file).returncode == 2


def test_help_tells_the_exit_status() -> None:
    result = command("--help")
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for word in ("Exit status: 0", "1 something failed", "2 the settings or the arguments are wrong"):
        assert word in text
    for name in ("run", "convert", "scan", "status", "stats", "queue", "cleanup"):
        assert "xit status 1" in " ".join(command(name, "--help").stdout.split()), name


@pytest.mark.parametrize(
    "arguments",
    [
        ("dead", "retry"),
        ("dead", "drop"),
        ("dead", "retry", "--all", "1-1"),
        ("dead", "show", "x"),
        ("dead", "retry", "1-1", "x"),
        ("stats", "--days", "-1"),
        ("convert",),
    ],
)
def test_wrong_arguments(settings: DaemonProcess, arguments: tuple[str, ...]) -> None:
    result = command(*arguments, "--config", settings.config_file)
    assert result.returncode == 2
    assert result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("queue",), ("stats",), ("dead", "list"), ("dead", "show", "1-1"), ("dead", "retry", "--all")],
)
def test_redis_away(settings: DaemonProcess, redis_server: RedisServer, arguments: tuple[str, ...]) -> None:
    redis_server.kill()
    result = command(*arguments, "--config", settings.config_file)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert redis_server.url in line


def test_evicted_originals_are_converted_when_a_person_asks(settings: DaemonProcess) -> None:
    path = settings.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    assert command("convert", path, "--config", settings.config_file).returncode == 0
    os.utime(variant_of(path), ns=(0, path.stat().st_mtime_ns))
    result = command("cleanup", "--json", "--config", settings.config_file)
    assert (result.returncode, json.loads(result.stdout)["evicted"]["age"]["files"]) == (0, 1)
    tally = json.loads(command("scan", "--json", "--config", settings.config_file).stdout)
    assert (tally["queued"], tally["evicted"]) == (0, 1)
    assert command("convert", settings.root, "--config", settings.config_file).returncode == 0
    assert decided(path)


def test_convert(settings: DaemonProcess) -> None:
    directory = settings.root / "iblock" / "450_450_1"
    directory.mkdir(parents=True)
    good, bad = directory / "good.jpg", directory / "bad.jpg"
    good.write_bytes(pictures.jpeg())
    bad.write_text("<html>")
    result = command("convert", "--json", directory, "--config", settings.config_file)
    assert result.returncode == 0, result.stderr
    outcomes = {line["path"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert outcomes[str(good)]["outcome"] == "webp"
    assert outcomes[str(good)]["variant_bytes"] == variant_of(good).stat().st_size
    assert outcomes[str(bad)]["verdict"] == "no-picture"
    assert decided(good)
    assert decided(bad)
    result = command("convert", good, "--config", settings.config_file)
    assert (result.returncode, "fresh" in result.stdout) == (0, True)
    assert not list(settings.temporary.iterdir())


def test_convert_to_avif_too(tmp_path: Path, redis_server: RedisServer) -> None:
    settings = DaemonProcess(tmp_path / "cdn", redis_server.url, encoding={"avif": True})
    paths = [settings.root / name for name in ("one.jpg", "two.jpg")]
    for path in paths:
        path.write_bytes(pictures.jpeg())
    result = command("convert", "--json", paths[0], "--config", settings.config_file)
    assert result.returncode == 0, result.stderr
    avif = paths[0].with_name("one.jpg.avif")
    assert json.loads(result.stdout)["avif_bytes"] == avif.stat().st_size > 0
    result = command("convert", paths[1], "--config", settings.config_file)
    assert (result.returncode, "avif" in result.stdout) == (0, True)


def test_convert_what_can_t_be_decided(settings: DaemonProcess) -> None:
    path = settings.root / "450_450_1" / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(pictures.jpeg()[:1000])
    result = command("convert", path, "--config", settings.config_file)
    assert result.returncode == 1
    assert "cut off" in result.stdout


@pytest.mark.parametrize("path", ["/etc/passwd", "absent.jpg"])
def test_convert_refuses(settings: DaemonProcess, path: str) -> None:
    result = command("convert", settings.root / path, "--config", settings.config_file)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


def test_scan_queues(settings: DaemonProcess) -> None:
    (settings.root / "a.jpg").write_bytes(pictures.jpeg())
    result = command("scan", "--json", "--config", settings.config_file)
    assert result.returncode == 0, result.stderr
    tally = json.loads(result.stdout)
    assert (tally["originals"], tally["queued"], tally["removed"], tally["missed"]) == (1, 1, 0, False)


def test_without_redis(settings: DaemonProcess, redis_server: RedisServer) -> None:
    redis_server.kill()
    result = command("scan", "--config", settings.config_file)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert redis_server.url in line


def test_status(settings: DaemonProcess) -> None:
    result = command("status", "--config", settings.config_file)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    settings.start()
    try:
        result = command("status", "--config", settings.config_file)
        assert (result.returncode, "webp-converter: ok" in result.stdout) == (0, True)
        result = command("status", "--json", "--config", settings.config_file)
        assert json.loads(result.stdout)["status"] == "ok"
        second = command("run", "--config", settings.config_file)
        assert second.returncode == 1
        [line] = second.stderr.splitlines()
        assert json.loads(line)["event"] == "cannot start"
    finally:
        settings.kill()


def test_scan_hands_its_findings_to_a_running_daemon(settings: DaemonProcess) -> None:
    settings.start()
    try:
        path = settings.root / "photo.jpg"
        path.write_bytes(pictures.jpeg())
        wait_until(lambda: decided(path))
        os.unlink(variant_of(path))
        assert command("scan", "--config", settings.config_file).returncode == 0
        wait_until(lambda: decided(path))
    finally:
        settings.kill()

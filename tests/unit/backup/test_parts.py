"""The data of services is saved whole while they run, and put back so that they load it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from host_agent.backup import files
from host_agent.backup.config import Redis
from host_agent.backup.errors import BackupError
from host_agent.backup.parts import GrafanaPart, PrometheusPart, RedisPart, _checked
from tests.kit.support import wait_until
from tests.kit.tools import needs
from tests.unit.backup.hosts import config


@contextmanager
def redis(directory: Path) -> Iterator[Callable[..., str]]:
    """A Redis as the deploy sets them up: `appendonly yes`, no snapshots."""
    directory.mkdir(parents=True, exist_ok=True)
    socket = directory.parent / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--appendonly", "yes"]
    with subprocess.Popen(
        ["redis-server", *options, "--save", "", "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL
    ) as server:

        def say(*command: str) -> str:
            return subprocess.run(
                ["redis-cli", "-s", str(socket), *command], capture_output=True, text=True, check=False
            ).stdout.strip()

        try:
            wait_until("Redis", lambda: say("ping"), lambda answer: answer == "PONG")
            yield say
        finally:
            server.terminate()


def test_redis_loads_what_another_one_saved(tmp_path: Path) -> None:
    needs("redis-server", "redis-server")
    needs("redis-check-rdb", "redis-tools")
    instance = Redis(
        "queue", str(tmp_path / "redis.sock"), str(tmp_path / "data"), "redis-server@queue.service"
    )
    part = RedisPart(config(tmp_path), instance)
    part.stage().mkdir(parents=True)
    with redis(tmp_path / "data") as say:
        say("xadd", "jobs", "1-1", "path", "/a.jpg")
        say("xgroup", "create", "jobs", "converters", "0")
        say("xreadgroup", "group", "converters", "one", "count", "1", "streams", "jobs", ">")
        say("set", "short", "lived", "ex", "1000")
        facts = part.save()
    assert facts == {"keys": 2, "expiring": 1}

    files.remove(tmp_path / "data")
    with redis(tmp_path / "data") as say:
        # As after the deploy: it runs, and already has data.
        say("set", "new", "since the deploy")
    part.put_back()
    with redis(tmp_path / "data") as say:
        assert sorted(say("keys", "*").split()) == ["jobs", "short"]
        assert "/a.jpg" in say("xrange", "jobs", "-", "+")
        # What a worker had under way is so still: it is claimed by another one.
        assert say("xpending", "jobs", "converters").split()[0] == "1"
        say("set", "later", "1")
    with redis(tmp_path / "data") as say:
        assert sorted(say("keys", "*").split()) == ["jobs", "later", "short"]


def test_a_damaged_snapshot_of_redis_is_never_put_back(tmp_path: Path) -> None:
    needs("redis-check-rdb", "redis-tools")
    directory = tmp_path / "data"
    (directory / "appendonlydir").mkdir(parents=True)
    part = RedisPart(config(tmp_path), Redis("queue", "", str(directory), "unit"))
    part.stage().mkdir(parents=True)
    (part.stage() / RedisPart.DUMP).write_bytes(b"REDIS0011\xfa\x09redis-ver\x05")
    with pytest.raises(BackupError):
        part.put_back()
    assert (directory / "appendonlydir").is_dir()
    with pytest.raises(BackupError):
        _checked(tmp_path / "none.rdb")


def prometheus_data(directory: Path) -> None:
    for block in ("01AAA", "01BBB", "01CCC.tmp-for-creation"):
        (directory / block / "chunks").mkdir(parents=True)
        (directory / block / "chunks" / "000001").write_text(block)
        (directory / block / "meta.json").write_text(json.dumps({"ulid": block}))
    (directory / "wal" / "checkpoint.00000003").mkdir(parents=True)
    (directory / "wal" / "checkpoint.00000003" / "00000000").write_text("series")
    for segment in ("00000004", "00000005"):
        (directory / "wal" / segment).write_text("samples")
    (directory / "chunks_head").mkdir()
    (directory / "lock").write_text("")


def test_prometheus_is_saved_as_blocks_and_log(tmp_path: Path) -> None:
    data = tmp_path / "metrics2"
    prometheus_data(data)
    part = PrometheusPart(config(tmp_path, prometheus=str(data)))
    assert part.present()
    assert part.save() == {"blocks": 2}
    assert sorted(path.name for path in part.stage().iterdir()) == ["01AAA", "01BBB", "wal"]
    assert part.stage().stat().st_mode & 0o777 == 0o700


def test_a_log_that_is_cut_off_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "metrics2"
    prometheus_data(data)
    part = PrometheusPart(config(tmp_path, prometheus=str(data)))
    link = files.link_tree
    calls: list[Path] = []

    def cut_once(source: Path, to: Path) -> None:
        link(source, to)
        if source.name == "wal" and not calls:
            calls.append(source)
            (data / "wal" / "00000004").unlink()
            (data / "wal" / "checkpoint.00000003").rename(data / "wal" / "checkpoint.00000004")

    monkeypatch.setattr(files, "link_tree", cut_once)
    part.save()
    names = sorted(path.name for path in (part.stage() / "wal").iterdir())
    assert names == ["00000005", "checkpoint.00000004"]


def test_a_log_that_never_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "metrics2"
    prometheus_data(data)

    def gone(source: Path, to: Path) -> None:
        raise FileNotFoundError(source)

    monkeypatch.setattr(files, "link_tree", gone)
    with pytest.raises(BackupError, match="again and again"):
        PrometheusPart(config(tmp_path, prometheus=str(data))).save()


def test_grafanas_database_is_whole_while_it_is_written(tmp_path: Path) -> None:
    data = tmp_path / "grafana"
    data.mkdir()
    part = GrafanaPart(config(tmp_path, grafana=str(data)))
    assert not part.present()
    ready, enough = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(data / "grafana.db")) as database:
            database.execute("pragma journal_mode=wal")
            database.execute("create table stars (one integer, two integer)")
            number = 0
            while not enough.is_set():
                with database:
                    database.execute("insert into stars values (?, 0)", (number,))
                    database.execute("update stars set two = ? where one = ?", (number, number))
                number += 1
                if number == 50:
                    ready.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert ready.wait(20)
        part.stage().mkdir(parents=True)
        part.save()
    finally:
        enough.set()
        writer.join()
    with closing(sqlite3.connect(part.stage() / "grafana.db")) as copy:
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
        rows, differing = copy.execute("select count(*), sum(one != two) from stars").fetchone()
    assert rows >= 50
    assert differing == 0

    (data / "grafana.db-wal").write_text("of another database")
    part.put_back()
    with closing(sqlite3.connect(data / "grafana.db")) as database:
        assert database.execute("select count(*) from stars").fetchone() == (rows,)

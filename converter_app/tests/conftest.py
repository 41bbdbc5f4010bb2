"""Fixtures: real Redis servers and real daemons, each in a separate directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from converter_app.tests.harness import DaemonProcess, RedisServer, StartDaemon, redis_in
from converter_app.tests.site import Site


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_in(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["open", "users"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One Redis, shared by the tests of a module, without users and with them: see `raw`."""
    with redis_in(tmp_path_factory.mktemp("server") / "redis", users=request.param) as server:
        yield server
        refused: Any = server.operator().acl_log()
    assert not refused, "what our own clients need is refused"


@pytest.fixture
def raw(server: RedisServer) -> redis.Redis:
    """The module's Redis, empty."""
    client = server.operator()
    client.flushall()
    return client


@pytest.fixture
def start_daemon(tmp_path: Path, redis_server: RedisServer) -> Iterator[StartDaemon]:
    """Starts a daemon with the sections given; all are killed at the end."""
    daemons: list[DaemonProcess] = []

    def start(ready: bool = True, **sections: dict[str, Any]) -> DaemonProcess:
        daemon = DaemonProcess(tmp_path / f"cdn{len(daemons)}", redis_server.url, **sections)
        daemons.append(daemon)
        daemon.start(ready)
        return daemon

    yield start
    for daemon in daemons:
        daemon.kill()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon with short rests, shared by the tests of a module: each works in a separate directory."""
    directory = tmp_path_factory.mktemp("shared")
    rests = {"watch": {"intermediate_rest_s": 1.0, "damaged_rest_s": 1.5}, "store": {"directory_rest_s": 0.5}}
    with redis_in(directory / "redis") as server:
        daemon = DaemonProcess(directory / "cdn", server.url, **rests)
        daemon.start()
        yield daemon
        daemon.kill()


@pytest.fixture
def resized(daemon: DaemonProcess, request: pytest.FixtureRequest) -> Path:
    """A directory for pictures of up to 450x450 pixels, this test's own."""
    directory = daemon.root / "iblock" / request.node.name / "450_450_1"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()

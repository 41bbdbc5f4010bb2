"""A host's connection: one, however many ask for it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest
from paramiko import common
from pyinfra.api import Config, Inventory, State

from bitrix_cdn.fleet import HostError, RefusedError, Remote, keep_others_away
from host_agent.lock import LOCK, Lock
from tests.kit.agent import sent_with
from tests.unit.lock.holders import ANN


class _Login(paramiko.ServerInterface):
    """Lets in whoever knows the password, and runs what they say."""

    def check_auth_password(self, username: str, password: str) -> int:
        return common.AUTH_SUCCESSFUL if password == "right" else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        threading.Thread(target=self._feed, args=(channel, process), daemon=True).start()
        with suppress(OSError):  # the other side has gone
            while chunk := os.read(process.stdout.fileno(), 65536):
                channel.sendall(chunk)
            channel.send_exit_status(process.wait())
            channel.close()

    def _feed(self, channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        while chunk := channel.recv(65536):
            os.write(process.stdin.fileno(), chunk)
        process.stdin.close()


class Server:
    """An SSH server on this machine."""

    def __init__(self) -> None:
        self._key = paramiko.ECDSAKey.generate()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.logins: list[paramiko.Transport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self._key)
            transport.start_server(server=_Login(), event=threading.Event())
            self.logins.append(transport)

    @property
    def open(self) -> int:
        """How many connections are open; one that was closed may take a moment."""
        for transport in self.logins[:-1]:
            transport.join(5)
        return sum(transport.is_active() for transport in self.logins)

    def close(self) -> None:
        self._socket.close()
        for transport in self.logins:
            transport.close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def remote(server: Server, tmp_path: Path) -> Iterator[Remote]:
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": server.port,
        "ssh_user": "root",
        "ssh_password": "right",
        "ssh_known_hosts_file": str(tmp_path / "known_hosts"),
    }
    inventory = Inventory(([("cdn", data)], {}))  # type: ignore[no-untyped-call]
    State(inventory, Config())  # type: ignore[no-untyped-call]
    found = Remote(inventory.get_host("cdn"))
    yield found
    found.close()


def test_a_host_is_logged_in_to_once_however_many_ask(server: Server, remote: Remote) -> None:
    remote.connect()
    remote.connect(patience=5)
    assert [remote.run("echo one").text, remote.run("echo two").text] == ["one", "two"]
    remote.connect()
    assert (len(server.logins), server.open) == (1, 1)
    remote.close()
    server.logins[0].join(5)
    assert not server.logins[0].is_active()


def test_a_lost_connection_is_replaced(server: Server, remote: Remote) -> None:
    remote.connect()
    server.logins[0].close()
    while remote._transport:
        time.sleep(0.01)
    assert remote.run("echo again").text == "again"
    assert (len(server.logins), server.open) == (2, 1)


def test_keys_that_are_named_are_asked_for(server: Server, remote: Remote, tmp_path: Path) -> None:
    remote.connect()
    nobody = tmp_path / "nobody"
    nobody.touch()
    with pytest.raises(HostError, match=r"(?i)host key|known_hosts"):
        remote.connect(known_hosts=nobody)
    assert remote.run("echo by the usual ones").text
    assert server.open == 1


def test_an_open_connection_takes_the_lock(server: Server, remote: Remote, tmp_path: Path) -> None:
    place = tmp_path / "state/lock"
    with sent_with("lock", LOCK, place, tmp_path / "agent"):
        remote.connect()
        keep_others_away([remote], "remove")
        assert place.with_suffix(".run").read_text()
        remote.close()
        while Lock(place).take(ANN):  # until the run's end has arrived there
            time.sleep(0.01)
        with pytest.raises(RefusedError, match="held by ann"):
            remote.connect()

"""Connections to servers that don't answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import paramiko
import pytest

from bitrix_cdn.fleet import ssh


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that lets anybody in and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def vague() -> Iterator[int]:
    """The port of a server that speaks of something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize("timeout", [1, None])
def test_a_silent_port_is_named_as_one(
    mute: int, timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_GREETING", 2)
    client = paramiko.SSHClient()
    with pytest.raises(paramiko.SSHException, match="no SSH server answered there within 2 s"):
        client.connect("127.0.0.1", mute, timeout=timeout, look_for_keys=False, allow_agent=False)
    client.close()


def test_another_service_is_no_ssh_server(vague: int) -> None:
    client = paramiko.SSHClient()
    with pytest.raises(paramiko.SSHException, match="no SSH server"):
        client.connect("127.0.0.1", vague, look_for_keys=False, allow_agent=False)
    client.close()

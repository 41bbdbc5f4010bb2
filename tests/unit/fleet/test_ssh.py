"""Connections to servers that don't answer."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator

import paramiko
import pytest
from pyinfra.api import StringCommand
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, OutputLine

from bitrix_cdn.fleet import ssh
from tests.unit.engine.machines import machines


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


@pytest.mark.parametrize(
    ("stdout", "stderr", "told"),
    [
        (ssh._SAID, "", ""),
        (f"{ssh._SAID}\nwhat it is for", "sudo: unable to resolve host cdn", ""),
        (f"hello\n{ssh._SAID}", "", "prints 'hello' before"),
        (f"hello{ssh._SAID}", "", "prints 'hello' before"),
        (f"\n\n{ssh._SAID}", "", "prints '' before"),
        ("", "Unmatched '''.", "answers \"Unmatched '''.\""),
        (ssh._SAID.replace("\\\\", "\\"), "", "doesn't run a command as sh does"),
        ("", "", "says nothing"),
        ("", "sudo: a password is required", "NOPASSWD"),
        ("", "odd is not in the sudoers file.", "NOPASSWD"),
        ("", "sh: 1: sudo: not found", "sudo: not found; the account odd must"),
        ("", "sudo: sorry, you must have a tty to run sudo", "you must have a tty to run sudo; the account"),
    ],
)
def test_a_login_is_judged_by_what_its_first_command_prints(stdout: str, stderr: str, told: str) -> None:
    lines = [OutputLine("stdout", line) for line in stdout.split("\n") if stdout]
    fault = ssh.login_fault(CommandOutput([*lines, OutputLine("stderr", stderr)]), "odd")
    assert told in fault
    assert bool(told) == bool(fault)


def test_the_first_command_proves_the_login_and_answers_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(self: object, command: StringCommand | str, **arguments: object) -> tuple[bool, CommandOutput]:
        ran.append(command if isinstance(command, str) else command.get_raw_value())
        output = subprocess.check_output(["sh", "-c", ran[-1]], text=True)
        return True, CommandOutput([OutputLine("stdout", line) for line in output.splitlines()])

    with machines("here") as state:
        connector = SSHConnector(state, state.inventory.get_host("here"))
    proven = ssh._proven(run)
    for _ in range(2):
        status, output = proven(connector, StringCommand("echo", "one;", "echo", "one"))
        assert (status, output.stdout_lines) == (True, ["one", "one"])
    assert len(ran) == 2
    assert ran[1] == "echo one; echo one"

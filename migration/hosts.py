"""The two hosts, reached as pyinfra reaches them: same inventory, same login, same sudo."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api import Config, Host, Inventory, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

from extensions.ssh import send_at_once
from migration.errors import MigrationError
from settings import Settings

# A silent connection is given up after about a minute.
_KEEP_ALIVE = 20.0


@dataclass(frozen=True)
class Output:
    """What a command printed, and how it ended."""

    status: int
    out: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace").strip()

    @property
    def reason(self) -> str:
        """The last line of its errors."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.status}"


class Remote:
    """A host of the inventory; commands run there as root."""

    def __init__(self, host: Host) -> None:
        self.name = host.name
        self._host = host
        self._client: paramiko.SSHClient | None = None

    def connect(self, patience: float = 0) -> None:
        """Logs in, again and again for `patience` seconds.

        :raises MigrationError: the host lets nobody in.
        """
        deadline = time.monotonic() + patience
        while True:
            connector = SSHConnector(self._host.state, self._host)
            try:
                connector.connect()
                break
            except ConnectError as error:
                if time.monotonic() > deadline:
                    raise MigrationError(f"{self.name}: {error}") from None
                time.sleep(2)
        self._host.connector = connector
        send_at_once(self._host)
        self._client = connector.client
        transport = self._client and self._client.get_transport()
        if transport:
            transport.set_keepalive(int(_KEEP_ALIVE))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def run(self, script: str, *, stdin: bytes = b"", check: bool = True, within: float = 60) -> Output:
        """Runs a shell script as root and returns what it printed.

        :param within: seconds to wait for the host if the connection is gone.
        :raises MigrationError: it fails (unless `check` is False), or the connection is lost.
        """
        out = bytearray()
        errors: list[str] = []
        with self._channel(script, within) as channel:
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            reader = threading.Thread(target=_drain_errors, args=(channel, errors), daemon=True)
            reader.start()
            while chunk := channel.recv(1 << 16):
                out += chunk
            reader.join()
            status = channel.recv_exit_status()
        output = Output(status, bytes(out), "".join(errors))
        if status == -1:
            raise MigrationError(f"{self.name}: the connection is lost")
        if check and status:
            raise MigrationError(f"{self.name}: {output.reason}")
        return output

    def follow(self, script: str, *, stdin: bytes = b"", end: list[Output]) -> Iterator[bytes]:
        """Runs a shell script as root and yields its lines as they come; `end` gets how it ended.

        :raises MigrationError: the connection is lost.
        """
        errors: list[str] = []
        rest = b""
        with self._channel(script, 60) as channel:
            channel.sendall(stdin)
            channel.shutdown_write()
            reader = threading.Thread(target=_drain_errors, args=(channel, errors), daemon=True)
            reader.start()
            while chunk := channel.recv(1 << 16):
                *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                yield from (line for line in lines if line)
            if rest:
                yield rest
            reader.join()
            status = channel.recv_exit_status()
        if status == -1:
            raise MigrationError(f"{self.name}: the connection is lost")
        end.append(Output(status, b"", "".join(errors)))

    @contextlib.contextmanager
    def _channel(self, script: str, within: float) -> Iterator[paramiko.Channel]:
        transport = self._client.get_transport() if self._client else None
        if transport is None or not transport.is_active():
            self.connect(within)
            assert self._client is not None
            transport = self._client.get_transport()
        assert transport is not None
        command = make_unix_command_for_host(
            self._host.state, self._host, StringCommand(script), _sudo=bool(self._host.data.get("_sudo"))
        )
        try:
            with transport.open_session() as channel:
                channel.exec_command(command.get_raw_value())
                yield channel
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise MigrationError(f"{self.name}: the connection is lost ({error or 'closed'})") from None


def _drain_errors(channel: paramiko.Channel, errors: list[str]) -> None:
    while chunk := channel.recv_stderr(1 << 16):
        errors.append(chunk.decode(errors="replace"))


@dataclass(frozen=True)
class Deployment:
    """What an inventory says."""

    bitrix: Remote
    cdn: Remote
    settings: Settings


def read(inventory: str) -> list[dict[str, Any]]:
    """The hosts of an inventory, which pyinfra checks: each with `name`, `groups` and `data`.

    :raises MigrationError: the inventory can't be.
    """
    if not Path(inventory).is_file():
        raise MigrationError(f"{inventory}: no such inventory")
    result = subprocess.run(
        [str(Path(sys.executable).parent / "pyinfra"), inventory, "debug-inventory", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode or not result.stdout.strip():
        raise MigrationError(_complaint(result.stderr) or f"{inventory}: pyinfra can't read it")
    entries: list[dict[str, Any]] = json.loads(result.stdout)
    return entries


def load(inventory: str) -> Deployment:
    """Reads an inventory through pyinfra, which checks it; connects to nothing.

    :raises MigrationError: the inventory can't be.
    """
    entries = read(inventory)
    hosts = [(entry["name"], entry["data"]) for entry in entries]
    state = State(Inventory((hosts, {})), Config())  # type: ignore[no-untyped-call]
    found: dict[str, Remote] = {}
    for entry in entries:
        for group in {"bitrix", "cdn"} & set(entry["groups"]):
            found[group] = Remote(state.inventory.get_host(entry["name"]))
    if missing := {"bitrix", "cdn"} - set(found):
        raise MigrationError(f"{inventory}: group {sorted(missing)[0]!r} is missing")
    settings = Settings.model_validate(entries[0]["data"]["settings"])
    return Deployment(found["bitrix"], found["cdn"], settings)


def _complaint(errors: str) -> str:
    """What pyinfra says is wrong, without where in the code it noticed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for line in reversed(lines):
        if match := re.search(r"pyinfra error(?: in \S+ line \d+)?: (.*)", line):
            return match[1]
    return lines[-1] if lines else ""

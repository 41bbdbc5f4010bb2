"""A host, and commands that run there as root."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from pyinfra.api import Host, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

from bitrix_cdn.fleet.errors import HostError, RefusedError
from bitrix_cdn.fleet.hold import HeldError, hold
from bitrix_cdn.fleet.lock import for_run, use_token
from bitrix_cdn.fleet.ssh import LoginError, lost
from host_agent.lock import Holder

if TYPE_CHECKING:
    from bitrix_cdn.fleet.audit import Writer


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
    """A host of the inventory; commands run there as root, over one connection."""

    def __init__(self, host: Host) -> None:
        self.name = host.name
        self._host = host
        self._client: paramiko.SSHClient | None = None
        self._holder: Holder | None = None
        self.writer: Writer | None = None
        """What records in the host's audit log what is done to it; see :meth:`record`."""

    @property
    def login(self) -> tuple[str, int]:
        """Address and port that the operator reaches it at."""
        data = self._host.data
        return str(data.get("ssh_hostname") or self.name), int(data.get("ssh_port") or 22)

    @property
    def _transport(self) -> paramiko.Transport | None:
        """The connection, if there is one."""
        transport = self._client.get_transport() if self._client else None
        return transport if transport and transport.is_active() else None

    def connect(self, patience: float = 0, known_hosts: Path | None = None) -> None:
        """Logs in, again and again for `patience` seconds, where there is no connection yet.

        :param known_hosts: of a new connection, the only keys that the host may show; by default those that
            the inventory says.
        :raises HostError: the login failed.
        """
        if known_hosts is None:
            if self._transport is None:
                self._log_in(patience)
            return
        data = self._host.data.override_datas
        usual = dict(data)
        data |= {"ssh_known_hosts_file": str(known_hosts), "ssh_strict_host_key_checking": "yes"}
        try:
            self._log_in(patience)
        finally:
            data.clear()
            data |= usual

    def _log_in(self, patience: float) -> None:
        self.close()  # what is left of a connection that is lost
        deadline = time.monotonic() + patience
        while True:
            connector = SSHConnector(self._host.state, self._host)
            try:
                connector.connect()
                # The first command shows what kind of login it is.
                connector.run_shell_command(StringCommand("true"), _sudo=bool(self._host.data.get("_sudo")))
                break
            except ConnectError as error:
                if connector.client is not None:
                    connector.client.close()
                if isinstance(error, LoginError):
                    raise HostError(str(error)) from None
                if time.monotonic() > deadline:
                    raise HostError(f"{self.name}: {error}") from None
                time.sleep(2)
        self._host.connector = connector
        self._client = connector.client
        if self._holder:
            self.hold(self._holder)
        if self.writer:
            self.writer.begin(self._host)

    def hold(self, holder: Holder) -> None:
        """Takes the host's lock for as long as it is connected to, from now on or from when it is.

        :raises RefusedError: somebody else has it.
        """
        self._holder = holder
        if self._transport is not None:
            try:
                hold(self._host, holder)
            except HeldError as error:
                raise RefusedError(str(error)) from None

    def record(self, writer: Writer) -> None:
        """Records what is done to the host in its audit log, from its connection on."""
        self.writer = writer
        if self._client is not None:
            writer.begin(self._host)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(
        self,
        script: str,
        *,
        stdin: bytes = b"",
        check: bool = True,
        within: float = 60,
        silence: float | None = None,
    ) -> Output:
        """Runs a shell script as root and returns what it printed.

        :param within: seconds to wait for the host if the connection is gone.
        :param silence: seconds without a byte of its output after which it is given up; None: never.
        :raises HostError: it fails (unless `check` is False), or the connection is lost.
        """
        out = bytearray()
        errors: list[str] = []
        with self._channel(script, within, silence) as channel:
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
            raise self._lost()
        if check and status:
            raise HostError(f"{self.name}: {output.reason}")
        return output

    def follow(self, script: str, *, stdin: bytes = b"", end: list[Output]) -> Iterator[bytes]:
        """Runs a shell script as root and yields its lines as they come; `end` gets how it ended.

        :raises HostError: the connection is lost.
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
            raise self._lost()
        end.append(Output(status, b"", "".join(errors)))

    def _lost(self, error: BaseException | None = None) -> HostError:
        why = lost(self._client) or f"the connection is lost ({error or 'closed'})"
        return HostError(f"{self.name}: {why}")

    @contextlib.contextmanager
    def _channel(
        self, script: str, within: float, silence: float | None = None
    ) -> Iterator[paramiko.Channel]:
        self.connect(within)
        transport = self._transport
        if transport is None:
            raise self._lost()
        command = make_unix_command_for_host(
            self._host.state, self._host, StringCommand(script), _sudo=bool(self._host.data.get("_sudo"))
        )
        try:
            with transport.open_session(timeout=silence) as channel:
                channel.settimeout(silence)
                channel.exec_command(command.get_raw_value())
                yield channel
        except TimeoutError:
            raise HostError(f"{self.name}: has not answered for {silence:.0f} s") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from None


def _drain_errors(channel: paramiko.Channel, errors: list[str]) -> None:
    with contextlib.suppress(TimeoutError):  # then nothing came on the other stream either, and it says so
        while chunk := channel.recv_stderr(1 << 16):
            errors.append(chunk.decode(errors="replace"))


def keep_others_away(remotes: Iterable[Remote], what: str) -> None:
    """Locks these hosts for this process, and for the runs that it starts, once they are connected.

    :raises RefusedError: somebody else holds one that is.
    """
    holder = for_run(what)
    use_token(holder.token)
    # In the order of their names: of two runs at once, one is first at the first host.
    for remote in sorted(remotes, key=lambda one: one.name):
        remote.hold(holder)

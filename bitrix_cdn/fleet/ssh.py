"""The operator's SSH connections: fast, and closed when the other side falls silent.

Importing this module makes it so for every connection of the process; `config.py` does, for pyinfra.
"""

from __future__ import annotations

import errno
import functools
import getpass
import shlex
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paramiko import Message, SSHClient, SSHException, Transport
from paramiko.common import cMSG_GLOBAL_REQUEST
from pyinfra.api import Host, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput

from bitrix_cdn.engine import patches
from bitrix_cdn.engine.errors import OneLineError

# Seconds without a word after which the other side is asked for one, and questions without an answer after
# which it is given up: 20 to 25 s.
_ASK_AFTER = 5
_UNANSWERED = 3
# Milliseconds after which the kernel gives up what the other side doesn't confirm.
_UNCONFIRMED = 20_000
# Seconds until a server must have said what it is, have agreed on keys, and have let one in.
_GREETING = 10
_LOGIN = 20

# What the first command of a connection prints before anything else: each of csh and fish reads another part
# of it in its own way.
_SAID = "a login\n!of 'any' \\\\ shell"


class SilentError(ConnectionError):
    """A connection ended because nothing came from its other side any more."""


class LoginError(OneLineError, ConnectError):
    """A login that would spoil each command; the message is one line that says what to do."""


class _NoTerminalError(Exception):
    """There is no terminal to ask for a password at."""


class PatientTransport(Transport):
    """A connection that is not waited for endlessly.

    paramiko's own keep-alive asks for no answer, so it never notices that none comes. Two watch instead: this
    class counts its questions, which also finds a server that hangs, and the kernel counts what it sent,
    which also ends a write that is stuck.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.banner_timeout = self.handshake_timeout = _GREETING
        self.auth_timeout = _LOGIN
        self.ended_because = ""
        """Why this side has ended it, in words."""
        self._questions = 0
        read = self.packetizer.read_message

        def heard() -> Any:
            message = read()
            self._questions = 0
            return message

        self.packetizer.read_message = heard  # type: ignore[method-assign]
        if isinstance(self.sock, socket.socket):
            # paramiko leaves Nagle's algorithm on, and every command waits for the other side's delayed
            # acknowledgement (about 40 ms).
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNCONFIRMED)
        self.set_keepalive(_ASK_AFTER)

    def start_client(self, event: Any = None, timeout: float | None = None) -> None:
        """Agrees with the server on keys, within separate time limits.

        paramiko goes on when `timeout` is over, and fails later for another reason.
        """
        try:
            super().start_client(event)
        except SSHException as error:
            if "banner" not in str(error):
                raise
            raise SSHException(f"no SSH server answered there within {_GREETING} s") from None

    def set_keepalive(self, interval: float) -> None:
        self.packetizer.set_keepalive(min(interval or _ASK_AFTER, _ASK_AFTER), self._ask)

    def _ask(self) -> None:
        """Called when nothing was sent or read for a while."""
        if not self.authenticated:
            return  # the login has a separate limit
        if self._questions >= _UNANSWERED:
            self.ended_because = f"has been silent for {(_UNANSWERED + 1) * _ASK_AFTER} s"
            raise SilentError(errno.ETIMEDOUT, self.ended_because)
        self._questions += 1
        question = Message()
        question.add_byte(cMSG_GLOBAL_REQUEST)
        question.add_string("keepalive@openssh.com")
        question.add_boolean(True)
        self._send_user_message(question)  # type: ignore[attr-defined]

    def end(self, because: str) -> None:
        """Ends the connection, and with it whatever waits for it."""
        self.ended_because = because
        self.close()


def lost(client: SSHClient | None) -> SilentError | None:
    """Why a connection is of no use any more, in words; None: it is."""
    transport = client and client.get_transport()
    if not transport or transport.is_active():
        return None
    because = getattr(transport, "ended_because", "")
    return SilentError(
        f"{because or 'the connection is lost'}; what ran there may be half done, run it again"
    )


def _with_lost_connections(original: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a method of pyinfra's connector report a lost connection, where it would say nothing."""

    @functools.wraps(original)
    def method(self: SSHConnector, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(self, *args, **kwargs)
        except (EOFError, OSError, SSHException) as error:
            raise lost(self.client) or (
                SilentError("the connection is lost") if isinstance(error, EOFError) else error
            ) from None
        failed = not (result[0] if isinstance(result, tuple) else result)
        if failed and (error_ := lost(self.client)):
            raise error_
        return result

    return method


def _proven(original: Callable[..., Any]) -> Callable[..., Any]:
    """Checks with the first command of a connection that the login passes commands and output unchanged.

    It rides with that command, so that it costs no round trip.
    """

    @functools.wraps(original)
    def method(
        self: SSHConnector, command: StringCommand | str, *args: Any, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        name, user = self.host.name, self.data["ssh_user"] or getpass.getuser()
        proven = hasattr(self, "proven")
        if not proven:
            command = StringCommand("printf '%s\\n'", f"{shlex.quote(_SAID)};", command)
        try:
            status, output = original(self, command, *args, **arguments)
        except _NoTerminalError:
            raise LoginError(f"{name}: {_NO_SUDO.format(user=user)}") from None
        if proven:
            return status, output
        if fault := login_fault(output, user):
            raise LoginError(f"{name}: {fault}")
        self.proven = True  # type: ignore[attr-defined]
        said = [line for line in output if line.buffer_name == "stdout"][: _SAID.count("\n") + 1]
        return status, CommandOutput([line for line in output if not any(line is one for one in said)])

    return method


_NO_SUDO = (
    "the account {user} may not use sudo without a password; allow it by a line in a file of /etc/sudoers.d "
    "there: {user} ALL=(ALL) NOPASSWD: ALL"
)


def login_fault(output: CommandOutput, user: str) -> str:
    """What is wrong with a login, of what its first command printed; empty: nothing."""
    before, said, _ = output.stdout.partition(_SAID)
    if said and not before:
        return ""
    if said:
        line = next((line.strip() for line in before.splitlines() if line.strip()), "")
        return (
            f"the login of {user} prints {line[:60]!r} before each command's own output; what its shell "
            "reads, such as .bashrc, may print in terminals only"
        )
    lines = [line.strip() for line in output.output_lines if line.strip()]
    if any("password is required" in line or "not in the sudoers" in line for line in lines):
        return _NO_SUDO.format(user=user)
    for line in lines:
        if "sudo:" in line:
            return f"{line}; the account {user} must be able to use sudo"
    answer = f"answers {lines[-1][:100]!r}" if lines else "says nothing"
    return (
        f"the login shell of {user} doesn't run a command as sh does, and {answer}; another one is needed: "
        f"chsh -s /bin/bash {user}"
    )


def _ask_for_password(prompt: str) -> str:
    """Asks whoever sits at the terminal; pyinfra itself would read a password from a pipe as well."""
    try:
        Path("/dev/tty").open().close()
    except OSError:
        raise _NoTerminalError from None
    return getpass.getpass(prompt)


patches.connections(PatientTransport, every=_with_lost_connections, commands=_proven, ask=_ask_for_password)


@contextmanager
def new_connection(host: Host) -> Generator[SSHConnector, None, None]:
    """A separate login, beside the one that the deploy uses.

    :raises pyinfra.api.exceptions.ConnectError: the login failed.
    """
    connector = SSHConnector(host.state, host)
    try:
        connector.connect()
        yield connector
    finally:
        if connector.client is not None:
            connector.client.close()

"""Holds the hosts' lock (see `host_agent/lock`) while a run changes them.

    hold_while_changing(host.state)    # anywhere in a deploy

The lock is taken before the first operation, on all hosts or on none: a dry run takes none, and nor does a
plan that waits for somebody's consent.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.state import BaseStateCallback
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

from bitrix_cdn.engine.errors import OneLineError
from bitrix_cdn.fleet.lock import LEASE, for_run, hold_script, refusal
from bitrix_cdn.fleet.ssh import PatientTransport
from host_agent.lock import Holder, parse

_BEAT = LEASE / 5


class HeldError(OneLineError):
    """Somebody else is at work on a host; the message is one line that says who."""


def hold(host: Host, holder: Holder) -> None:
    """Takes the lock of a connected host; it is free again when this process or the connection ends.

    :raises HeldError: somebody else has it, or it can't be taken.
    """
    connector = host.connector
    if not isinstance(connector, SSHConnector) or connector.client is None:
        return
    transport = connector.client.get_transport()
    assert isinstance(transport, PatientTransport)
    script = StringCommand(hold_script(holder))
    command = make_unix_command_for_host(host.state, host, script, _sudo=bool(host.data.get("_sudo")))
    try:
        channel = transport.open_session()
        channel.exec_command(command.get_raw_value())
        said: dict[str, Any] = {}
        # What a login's own files print may come first.
        for line in channel.makefile("r"):
            if line.startswith('{"lock": '):
                said = json.loads(line)
                break
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise HeldError(f"{host.name}: the connection is lost ({error or 'closed'})") from None
    lock = said.get("lock")
    if lock == "taken":
        threading.Thread(target=_beat, args=(transport, channel), daemon=True).start()
    elif lock == "held":
        raise HeldError(refusal(host.name, parse(json.dumps(said["holder"])), ""))
    elif lock != "ours":
        errors = channel.recv_stderr(4096).decode(errors="replace").strip().splitlines()
        raise HeldError(f"{host.name}: can't be locked: {errors[-1] if errors else 'it says nothing'}")


def _beat(transport: PatientTransport, channel: paramiko.Channel) -> None:
    """Tells the host that this run is there; ends the connection when the lock is somebody else's."""
    with suppress(OSError, EOFError, paramiko.SSHException):
        while not channel.exit_status_ready():
            channel.sendall(b"\n")
            time.sleep(_BEAT)
    if transport.is_active():
        transport.end("has been taken over by somebody else")


class _Lock(BaseStateCallback):
    """Takes the lock at the first operation of a run."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._once = threading.Lock()
        self._taken = False

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._take(state)

    def operation_host_start(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str
    ) -> None:
        self._take(state)  # with --serial and --no-wait nothing else is told

    def _take(self, state: State) -> None:
        with self._once:
            if not self._taken:
                # In the order of their names: of two runs at once, one is first at the first host.
                for host in sorted(state.inventory.get_active_hosts(), key=lambda host: host.name):
                    hold(host, self._holder)
                self._taken = True


def hold_while_changing(state: State) -> None:
    """Makes this run take the lock before it changes anything."""
    if not any(isinstance(handler, _Lock) for handler in state.callback_handlers):
        deploys = [Path(argument).name for argument in sys.argv[1:] if argument.endswith(".py")]
        # Before what looks at the hosts: that must see what the run before this one left.
        state.callback_handlers.insert(0, _Lock(for_run(" ".join(deploys[-1:]) or "pyinfra")))

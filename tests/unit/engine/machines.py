"""Hosts of pyinfra's that are this machine, and remember what was run on them."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyinfra.api import Config, Host, Inventory, State, StringCommand
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command
from pyinfra.context import ctx_host, ctx_inventory, ctx_state


class Machine(BaseConnector):
    """Runs commands here."""

    handles_execution = True

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self.ran: list[str] = []

    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        raise NotImplementedError

    def connect(self) -> None:
        """Nothing to connect to."""

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        stdin = arguments.pop("_stdin", None)
        for name in ("_timeout", "_get_pty", "_success_exit_codes"):
            arguments.pop(name, None)
        text = make_unix_command(command, **arguments).get_raw_value()
        self.ran.append(stdin or text)
        result = subprocess.run(
            ["sh", "-c", text], input=stdin or "", capture_output=True, text=True, check=False
        )
        lines = [OutputLine("stdout", line) for line in result.stdout.splitlines()]
        lines += [OutputLine("stderr", line) for line in result.stderr.splitlines()]
        return result.returncode == 0, CommandOutput(lines)

    def put_file(self, filename_or_io: Any, remote_filename: str, *args: Any, **kwargs: Any) -> bool:
        Path(remote_filename).write_text(filename_or_io.read())
        self.ran.append(f"put {remote_filename}")
        return True

    def get_file(self, *args: Any, **kwargs: Any) -> bool:
        raise NotImplementedError


@contextmanager
def machines(*names: str, plan: bool = False) -> Iterator[State]:
    """A run on hosts of these names, connected and with no operation yet.

    :param plan: whether pyinfra is to find out what would change, as for `--dry`.
    """
    inventory = Inventory((list(names), {}))  # type: ignore[no-untyped-call]
    state = State(inventory, Config(), check_for_changes=plan)  # type: ignore[no-untyped-call]
    state.set_stage(StateStage.Prepare)
    for host in inventory:
        host.connector = Machine(state, host)
        host.connected = True
        state.activate_host(host)
    with ctx_state.use(state), ctx_inventory.use(inventory), ctx_host.use(inventory.get_host(names[0])):
        yield state


def ran(host: Host) -> list[str]:
    """What was run on a host, one entry a round trip."""
    assert isinstance(host.connector, Machine)
    return host.connector.ran


def execute(state: State) -> None:
    state.set_stage(StateStage.Execute)
    run_ops(state)


def add(state: State, operation: Any, *hosts: str, **arguments: Any) -> None:
    named = [state.inventory.get_host(host) for host in hosts]
    add_op(state, operation, host=named, name=f"{operation.__name__} {arguments}", **arguments)


def host_of(state: State, name: str = "one") -> Host:
    return state.inventory.get_host(name)


def changed(state: State) -> list[bool]:
    return [
        data.operation_meta.did_change() for operations in state.ops.values() for data in operations.values()
    ]


OWNER = pwd.getpwuid(os.getuid()).pw_name


GROUP = grp.getgrgid(os.getgid()).gr_name

"""Writes the beginning and the end of each run that changes hosts to their audit logs: `host_agent/audit`.

A process on the host adds both. It lasts as long as the run, so that it also notes the end of a run that was
killed, and costs no round trip but one at the end.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.state import BaseStateCallback
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

from bitrix_cdn.engine import patches
from bitrix_cdn.engine.agent import PYTHON, call
from bitrix_cdn.fleet.errors import HostError
from bitrix_cdn.fleet.lock import machine, operator
from bitrix_cdn.fleet.remote import Remote
from host_agent.audit.log import DIRECTORY, SILENCE_S, hash_of, now

_BEAT = SILENCE_S / 5
# Seconds that a host gets to write its last line.
_PATIENCE = 10.0

# What pyinfra is run with, by the name of its operations.
_DEPLOYS = {"deploy.py": "deploy", "rollback.py": "release back", "rotate_keys.py": "keys rotate"}


def add_script(run: str) -> str:
    """Adds the lines of its input. Those of a host without Python wait in a file until it has one."""
    bare = (
        f"umask 027; mkdir -p {DIRECTORY}; "
        f"while IFS= read -r line; do printf '%s' \"${{line:+$line\n}}\" >> {DIRECTORY}/audit.pending; done; "
        f"[ -x {PYTHON} ] || exit 0"
    )
    return call("audit", "add", run, bare=bare)


def list_script() -> str:
    """Prints what `bitrix-cdn log` tells of a host; one that was never changed has nothing."""
    bare = (
        f"""[ -e {DIRECTORY} ] || {{ echo '{{"entries": [], "broken": []}}'; exit 0; }}; """
        "echo 'its audit log needs Python, which is gone there: install python3' >&2; exit 1"
    )
    return call("audit", "list", bare=bare)


@dataclass(frozen=True)
class Run:
    """What is done to the hosts, by whom."""

    what: str
    inventory: str
    plan: str = ""
    """A hash of what was planned, or of the operations that changed the host."""
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    operator: str = field(default_factory=operator)
    machine: str = field(default_factory=machine)

    def entry(self, event: str, **more: Any) -> dict[str, Any]:
        """A line of the log."""
        given = {**vars(self), **more}
        given["run"] = given.pop("name")
        return {
            "event": event,
            "time": now(),
            **{key: value for key, value in given.items() if value not in ("", None)},
        }


class Writer:
    """What adds a run's lines to the log of one host."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._channel: paramiko.Channel | None = None

    @property
    def begun(self) -> bool:
        """Whether the first line was sent."""
        return self._channel is not None

    def begin(self, host: Host) -> None:
        """Adds the first line, and waits for nothing.

        A host whose log can't be written is changed all the same: it may be a full disk that is to be mended.
        """
        connector = host.connector
        if not isinstance(connector, SSHConnector) or connector.client is None:
            return
        transport = connector.client.get_transport()
        assert transport is not None
        command = make_unix_command_for_host(
            host.state, host, StringCommand(add_script(self.run.name)), _sudo=bool(host.data.get("_sudo"))
        )
        again = self.begun
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel = transport.open_session()
            self._channel.exec_command(command.get_raw_value())
            if not again:
                self._send(self.run.entry("begin"))
            threading.Thread(target=_beat, args=(self._channel,), daemon=True).start()

    def end(self, result: str, **more: Any) -> bool:
        """Adds the last line; returns whether the host has it."""
        channel = self._channel
        if channel is None:
            return False
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._send(self.last(result, **more))
            channel.shutdown_write()
            deadline = time.monotonic() + _PATIENCE
            while not channel.exit_status_ready() and time.monotonic() < deadline:
                time.sleep(0.005)
            return channel.exit_status_ready() and channel.recv_exit_status() == 0
        return False

    def last(self, result: str, **more: Any) -> dict[str, Any]:
        """The last line."""
        return self.run.entry("end", result=result, **more)

    def _send(self, entry: Mapping[str, Any]) -> None:
        assert self._channel is not None
        self._channel.sendall(json.dumps(entry).encode() + b"\n")


def _beat(channel: paramiko.Channel) -> None:
    """Tells the host that this run is there."""
    with suppress(OSError, EOFError, paramiko.SSHException):
        # After the last line nothing can be sent any more, and `sendall` would try for ever.
        while not channel.exit_status_ready() and channel.send(b"\n"):
            time.sleep(_BEAT)


@dataclass
class Outcome:
    """How a run ends, unless it raises."""

    result: str = "ok"
    why: str = ""


@contextmanager
def recorded(remotes: Iterable[Remote], what: str, inventory: str) -> Iterator[Outcome]:
    """Records in these hosts' audit logs what is done to them meanwhile, from each host's connection on."""
    run, outcome = Run(what, Path(inventory).name), Outcome()
    hosts = list(remotes)
    started = time.monotonic()
    for remote in hosts:
        remote.record(Writer(run))
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.result = "interrupted"
        raise
    except BaseException as error:
        outcome.result, outcome.why = "failed", str(error)
        raise
    finally:
        more = {"why": outcome.why, "seconds": round(time.monotonic() - started, 1)}
        for remote in hosts:
            _end(remote, outcome.result, more)


def _end(remote: Remote, result: str, more: Mapping[str, Any]) -> None:
    writer = remote.writer
    remote.writer = None
    if writer is None or not writer.begun or writer.end(result, **more):
        return
    # The connection that it began with is gone; maybe there is a new one.
    line = json.dumps(writer.last(result, **more)).encode() + b"\n"
    try:
        remote.run(add_script(writer.run.name), stdin=line, within=0)
    except HostError as error:
        print(f"{error}: its audit log could not be written", file=sys.stderr)


class _Recorder(BaseStateCallback):
    """Records a run of pyinfra."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writers: dict[Host, Writer] | None = None
        self._failed = ""
        self._started = time.monotonic()

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._begin(state)

    def operation_host_start(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str
    ) -> None:
        self._begin(state)  # with --serial and --no-wait nothing else is told

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self._failed = self._failed or f"{host.name}: {', '.join(state.get_op_meta(op_hash).names)}"

    def _begin(self, state: State) -> None:
        if self._writers is not None:
            return
        self._writers = {host: Writer(self._run) for host in state.inventory.get_active_hosts()}
        for host in self._writers:
            patches.disconnecting(host, partial(self._end, state, host))
        for greenlet in [state.pool.spawn(writer.begin, host) for host, writer in self._writers.items()]:
            greenlet.get()

    def _end(self, state: State, host: Host) -> None:
        writer = (self._writers or {}).pop(host, None)
        if writer is None:
            return
        done = [(op_hash, data.operation_meta) for op_hash, data in state.ops[host].items()]
        changed = [
            name
            for op_hash, meta in done
            if meta.is_complete() and meta.did_change()
            for name in state.get_op_meta(op_hash).names
        ]
        complete = all(meta.is_complete() for _, meta in done)
        result = "failed" if self._failed else "ok" if complete else "interrupted"
        more = {
            "why": self._failed,
            "changes": len(changed),
            "plan": self._run.plan or digest(changed),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        if writer.begun and not writer.end(result, **more):
            print(f"{host.name}: its audit log could not be written", file=sys.stderr)


def digest(names: Iterable[str]) -> str:
    """A hash of what changed a host; empty: nothing did."""
    told = "\n".join(names)
    return hash_of(told.encode())[:16] if told else ""


def record_while_changing(state: State, plan: str = "") -> None:
    """Writes this run's lines to the audit logs, once it begins to change anything.

    :param plan: a hash of the saved plan that is applied.
    """
    if any(isinstance(handler, _Recorder) for handler in state.callback_handlers):
        return
    files = [Path(argument).name for argument in sys.argv[1:] if argument.endswith(".py")]
    what = next((name for file, name in _DEPLOYS.items() if file in files[-1:]), " ".join(files[-1:]))
    state.add_callback_handler(_Recorder(Run(what or "pyinfra", " ".join(files[:-1]), plan)))  # type: ignore[no-untyped-call]

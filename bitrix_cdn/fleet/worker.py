"""The process that runs pyinfra: it gets one request, sends steps and findings, and in the end its result.

What `pyinfra INVENTORY OPERATIONS` does on the command line, done by pyinfra's API; the way there and back is
:mod:`bitrix_cdn.fleet.deploys`.
"""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operations import run_ops
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.exceptions import CliError, UnexpectedExternalError  # type: ignore[import-untyped]
from pyinfra_cli.log import setup_logging  # type: ignore[import-untyped]
from pyinfra_cli.prints import (  # type: ignore[import-untyped]
    build_plan_json,
    build_results_json,
    pretty_op_name,
)
from pyinfra_cli.util import exec_file, json_encode, load_deploy_file  # type: ignore[import-untyped]

from bitrix_cdn.engine import findings, patches
from bitrix_cdn.fleet import lock, reading
from bitrix_cdn.fleet.errors import RefusedError, UsageError
from bitrix_cdn.fleet.hold import HeldError
from bitrix_cdn.fleet.inventory import chosen
from bitrix_cdn.fleet.results import Entry, Failure, Operation, Request, Result, Step
from bitrix_cdn.settings.types import InventoryError


def main(descriptor: int) -> None:
    """Does what it is asked for.

    :param descriptor: of the connection to whoever asks.
    """
    signal.signal(signal.SIGINT, partial(_interrupt, gevent.getcurrent()))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log has what the deploy's files print among what pyinfra says, in its order.
        sys.stdout.reconfigure(line_buffering=True)
    connection: Connection[Any, Any] = Connection(descriptor)
    request: Request = connection.recv()
    if request.survives:
        # A terminal that is closed, or lost, sends it to all that was started there.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    worker = Worker(request, partial(_send, connection, request.survives))
    worker.send(worker.run())


def _interrupt(main: gevent.Greenlet, *_: object) -> None:
    """Ends the run, once: from a terminal it comes to this process and to the one that asks alike."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gevent.getcurrent() is main:
        raise KeyboardInterrupt
    gevent.get_hub().loop.run_callback(main.throw, KeyboardInterrupt)


def _send(connection: Connection[Any, Any], survives: bool, one: object) -> None:
    try:
        connection.send(one)
    except ConnectionError:
        if not survives:
            raise


class Worker:
    """One run."""

    def __init__(self, request: Request, send: Callable[[object], object]) -> None:
        self.send = send
        self._request = request
        self._said = _Said()
        self._listener = _Listener(send, self._said)
        self._state = State(check_for_changes=request.dry)
        self._inventory = Inventory(([], {}))  # type: ignore[no-untyped-call]

    def run(self) -> Result:
        failure: Failure | None = None
        operations: tuple[Operation, ...] = ()
        try:
            self._run()
        except BaseException as error:
            failure = self._failure(error)
        try:
            operations = self._operations()
        except PyinfraError as error:  # they have no order, as each comes before the other
            failure = failure or self._failure(error)
        entries = tuple(Entry(host.name, tuple(host.groups), _plain(host.data)) for host in self._inventory)
        return Result(entries, frozenset(self._listener.connected), self._faults(), operations, failure)

    def _run(self) -> None:
        request, state = self._request, self._state
        patches.as_command()
        setup_logging(logging.INFO)
        logger.addHandler(self._said)
        state.cwd = str(Path.cwd())
        ctx_state.set(state)  # type: ignore[no-untyped-call]
        config = Config()  # type: ignore[no-untyped-call]
        ctx_config.set(config)  # type: ignore[no-untyped-call]
        exec_file("config.py")
        if request.tolerant:
            config.FAIL_PERCENT = 100
        config.lock_current_state()
        self._inventory = reading.read(request.inventory, cwd=state.cwd, override_data=dict(request.data))
        ctx_inventory.set(self._inventory)  # type: ignore[no-untyped-call]
        if any(host.data.get("settings") is None for host in self._inventory):
            raise UsageError(f"{request.inventory}: has no settings; make it like inventories/production.py")
        state.init(self._inventory, config, initial_limit=self._limited())
        self._said.hosts = list(self._inventory)
        if request.operations is None:
            return
        # By these the lock and the audit log name the run, whoever began it.
        sys.argv = ["pyinfra", request.inventory, request.operations]
        lock.use_token(request.token)
        if request.findings:
            findings.collect(self.send)
        state.add_callback_handler(self._listener)  # type: ignore[no-untyped-call]
        try:
            self._operate(request.operations)
        finally:
            # Of a run that is ended: its hosts fill the pool, in which they would be left as well.
            state.pool.kill()
            disconnect_all(state)

    def _limited(self) -> list[Host] | None:
        if not self._request.limit:
            return None
        groups = {host.name: host.groups for host in self._inventory}
        names = chosen(self._request.inventory, groups, self._request.limit)
        return [self._inventory.get_host(name) for name in names]

    def _operate(self, operations: str) -> None:
        state = self._state
        logger.info("--> Connecting to hosts...")
        state.set_stage(StateStage.Connect)
        connect_all(state)
        logger.info(f"--> Preparing {operations}...")
        state.set_stage(StateStage.Prepare)
        load_deploy_file(state, operations)
        state.config.reset_locked_state()
        if not self._request.dry:
            state.set_stage(StateStage.Execute)
            run_ops(state)

    def _failure(self, error: BaseException) -> Failure:
        """Why the run ended, of what ended it."""
        if isinstance(error, KeyboardInterrupt):
            logger.warning("--> Interrupted")
            return Failure("interrupted", kind=KeyboardInterrupt)
        if isinstance(error, InventoryError):
            return Failure("\n".join(error.lines), kind=UsageError)
        if isinstance(error, UsageError):
            return Failure(str(error), kind=UsageError)
        if isinstance(error, HeldError):
            return Failure(str(error), kind=RefusedError)
        if isinstance(error, UnexpectedExternalError):
            logger.error(error.get_traceback())
            return Failure(reading.mistake(error, error.filename))
        if isinstance(error, (PyinfraError, CliError)):
            logger.error(f"--> {error}")
            # Of hosts that failed pyinfra raises nothing but their number.
            why = self._of_operation() or self._of_hosts() if type(error) is PyinfraError else None
            return why or Failure(str(error))
        logger.error(traceback.format_exc())
        return Failure(f"{type(error).__name__}: {error}")

    def _of_operation(self) -> Failure | None:
        """What the hosts said of the operation that failed."""
        if not self._listener.failed:
            return None
        hosts = sorted(self._listener.failed)
        lines = [
            line
            for name in hosts
            for line in self._said.lines.get(name, ())
            if not line.startswith("Error: ")
        ]
        first, *more = lines or ["it says nothing"]
        return Failure(f"{', '.join(hosts)}: {self._listener.name}: {first}", tuple(more))

    def _of_hosts(self) -> Failure | None:
        """Why there is nothing to be done with hosts."""
        faults = self._faults()
        return Failure("; ".join(f"{name}: {why}" for name, why in faults.items())) if faults else None

    def _faults(self) -> dict[str, str]:
        if not self._state.initialised:
            return {}
        names = [host.name for host in self._inventory if host in self._state.failed_hosts]
        last = {name: lines[-1] for name, lines in self._said.lines.items()} | self._listener.unreachable
        return {name: last[name] for name in names if name in last}

    def _operations(self) -> tuple[Operation, ...]:
        state = self._state
        if not state.initialised:
            return ()
        if self._request.dry:
            found = [(one, "would_change", one["hosts_with_change"]) for one in build_plan_json(state)]
        else:
            found = [(one, "changed", one["success"]) for one in build_results_json(state)["operations"]]
        return tuple(
            Operation(one["op_hash"], one["name"], **{how: tuple(hosts)}) for one, how, hosts in found
        )


class _Said(logging.Handler):
    """What is said of each host since an operation began; pyinfra tells it nowhere but in its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.hosts: list[Host] = []
        self.lines: dict[str, list[str]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        for host in self.hosts:
            if said.startswith(host.print_prefix):
                self.lines[host.name].append(said.removeprefix(host.print_prefix).strip())


class _Listener(BaseStateCallback):
    """Sends the steps, and keeps what pyinfra reports about hosts."""

    def __init__(self, send: Callable[[Step], object], said: _Said) -> None:
        self._send = send
        self._said = said
        self._number = 0
        self.name = ""
        """Of the operation that runs."""
        self.connected: set[str] = set()
        self.unreachable: dict[str, str] = {}
        """Why, by host."""
        self.failed: set[str] = set()
        """The hosts that the operation failed on."""

    def host_connect(self, state: State, host: Host) -> None:  # type: ignore[override]
        self.connected.add(host.name)

    def host_connect_error(  # type: ignore[override]
        self, state: State, host: Host, error: Exception
    ) -> None:
        self.unreachable[host.name] = str(error)

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._number += 1
        self._said.lines.clear()
        self.name = pretty_op_name(state.get_op_meta(op_hash))
        self._step(state, None)

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        own = op_hash == host.executing_op_hash and host.nested_executing_op_hash is None
        if own and not state.ops[host][op_hash].global_arguments["_ignore_errors"]:
            self.failed.add(host.name)

    def operation_end(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._step(
            state,
            tuple(
                host.name
                for host in state.inventory.get_active_hosts()
                if op_hash in state.ops[host] and state.ops[host][op_hash].operation_meta.did_change()
            ),
        )

    def _step(self, state: State, changed: tuple[str, ...] | None) -> None:
        total = len(state.get_op_order())  # type: ignore[no-untyped-call]
        self._send(Step(self._number, total, self.name, changed))


def _plain(data: Any) -> Any:
    """Data of a host as JSON has it."""
    return json.loads(json.dumps(data, default=json_encode))

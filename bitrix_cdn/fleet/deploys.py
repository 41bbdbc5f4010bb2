"""Runs pyinfra as a library, in a separate process: :mod:`bitrix_cdn.fleet.worker`.

A process, because pyinfra runs once in one: it keeps its state, its settings and the modules of the deploy in
globals, gevent has to replace the threads and sockets of the standard library before anything else is
imported, and a run that changes hosts must come to its end even if whoever started it is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from bitrix_cdn.engine.findings import Finding
from bitrix_cdn.fleet import lock
from bitrix_cdn.fleet.results import Failure, Request, Result, Step

ROOT = Path(__file__).parents[2]
"""The repository, in which pyinfra runs: it reads `config.py` there."""

# gevent's patching, which the first import does, comes before all other imports.
_WORKER = "import pyinfra_cli; from bitrix_cdn.fleet.worker import main; main({})"

# Seconds that an interrupted run has to close its connections.
_PATIENCE = 10.0

Event = Step | Finding
"""What a run tells as it goes on."""


def run(
    inventory: str,
    operations: str | None = "deploy.py",
    *,
    limit: Sequence[str] = (),
    dry: bool = False,
    tolerant: bool = False,
    data: Mapping[str, Any] | None = None,
    token: str | None = None,
    on_event: Callable[[Event], object] | None = None,
    findings: bool = False,
    holding: Sequence[int] = (),
    log: Path | None = None,
) -> Result:
    """Runs a file of operations on the hosts of an inventory; see :class:`Request`.

    :param token: of a lock on the hosts; by default that of this process.
    :param on_event: called with each step and finding.
    :param holding: descriptors of locked files, which stay locked as long as the run lasts.
    :param log: a file for what pyinfra says. With one, a run that has begun comes to its end, whatever
        becomes of this process.
    """
    request = Request(
        named(inventory),
        operations,
        tuple(limit),
        dry,
        tolerant,
        findings,
        dict(data or {}),
        lock.own_token() if token is None else token,
        survives=log is not None,
    )
    with log.open("w+") if log else tempfile.TemporaryFile("w+") as said:
        with _worker(said, holding) as (connection, process):
            result = None
            with suppress(EOFError, ConnectionError):
                connection.send(request)
                while True:
                    one = connection.recv()
                    if isinstance(one, Result):
                        result = one
                    elif on_event:
                        on_event(one)
            process.wait()
        return result or Result(failure=Failure(_crash(process.returncode, said)))


@contextmanager
def _worker(
    said: IO[str], holding: Sequence[int]
) -> Iterator[tuple[Connection[Any, Any], subprocess.Popen[bytes]]]:
    """A worker that waits for its request."""
    ours, theirs = Pipe()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER.format(theirs.fileno())],
            cwd=ROOT,
            pass_fds=(theirs.fileno(), *holding),
            stdin=subprocess.DEVNULL,
            # What a deploy's file prints is for people.
            stdout=said,
            stderr=said,
        )
        theirs.close()
        try:
            yield ours, process
        except BaseException:
            # It takes the first of these alone: on a terminal it has got one already.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(_PATIENCE)
            process.kill()
            process.wait()
            raise


def _crash(status: int, said: IO[str]) -> str:
    """What is known of a worker that ended without a result."""
    said.seek(0)
    lines = [line.strip() for line in said if line.strip()]
    return f"pyinfra's process ended with {status}: {lines[-1] if lines else 'it says nothing'}"


def named(inventory: str) -> str:
    """An inventory as pyinfra finds it from the repository, and as it is named in what it says."""
    path = Path(inventory).resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

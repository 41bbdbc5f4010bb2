"""Child processes of the daemon: how they are started, and how they communicate."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TRIES = 3


# The server dies with the thread that started it, which may have to be done at any time, by whoever needs a
# process: so one thread does it for all.
_starter = ThreadPoolExecutor(1, "fork server")


def start_fork_server() -> None:
    """Starts the server that child processes are forked from."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    _context().set_forkserver_preload(["webp_converter.work.preload"])
    _ensure_server()


def _ensure_server() -> None:
    _starter.submit(forkserver.ensure_running).result()


def pipe() -> tuple[Connection, Connection]:
    """A pipe within this process: what reads, and what writes."""
    return _context().Pipe(duplex=False)


def child(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
    """Starts a process that runs `target(*arguments, connection)`; it, and the other end of the connection.

    :raises OSError: it can't be started.
    """
    for _ in range(_TRIES):
        ours, theirs = _context().Pipe()
        process = _context().Process(target=target, args=(*arguments, theirs), daemon=True)
        try:
            _ensure_server()
            process.start()
        except (EOFError, ConnectionError):
            ours.close()  # the server died meanwhile: the next try starts another
        except BaseException:
            ours.close()
            raise
        else:
            return process, ours
        finally:
            theirs.close()
    raise OSError("the server that processes are forked from keeps dying")


def _context() -> multiprocessing.context.ForkServerContext:
    """Forks from a server without threads."""
    return multiprocessing.get_context("forkserver")

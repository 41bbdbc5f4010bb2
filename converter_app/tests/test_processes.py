"""Child processes, and the server that they are forked from: whenever it dies, another is started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from converter_app.tests.harness import wait_until

from webp_converter.base.processes import child, start_fork_server

SERVER: Any = vars(forkserver)["_forkserver"]


def say(words: str, connection: Connection) -> None:
    connection.send(words)


def said() -> str:
    """What a child process says."""
    process, connection = child(say, "well")
    words = str(connection.recv())
    process.join()
    return words


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def kill_server() -> None:
    pid = SERVER._forkserver_pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(pid) in ("Z", ""))


@pytest.mark.parametrize(
    ("owner", "step"), [(SERVER, "ensure_running"), (forkserver, "connect_to_new_process")]
)
def test_the_server_dies_after_a_step(owner: object, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found alive it is dead when it is connected to; or it was asked for a process and never makes one."""
    start_fork_server()
    assert said() == "well"
    does: Callable[..., Any] = getattr(owner, step)
    killed = []

    def then_kill(*arguments: Any) -> Any:
        result = does(*arguments)
        if not killed and threading.current_thread() is threading.main_thread():
            killed.append(step)
            kill_server()
        return result

    monkeypatch.setattr(owner, step, then_kill)
    assert said() == "well"
    assert killed


def test_the_server_outlives_the_thread_that_needed_it() -> None:
    """Else the workers of all would die with a thread of the API's that somebody's clean-up ran in."""
    start_fork_server()
    kill_server()
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(said()))
    thread.start()
    thread.join()
    pid = SERVER._forkserver_pid
    with pytest.raises(AssertionError):
        wait_until(lambda: state_of(pid) in ("Z", ""), timeout_s=1)
    assert words == ["well"]

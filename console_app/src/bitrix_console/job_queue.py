"""The queue: one job runs at a time, each in a process that goes on when the console ends.

Whoever holds `job.lock` beside the database has a job running: its process, and the deploy that it starts,
have the open file from the console that began it. When it is free, no job runs, whatever the database says.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bitrix_console.jobs import End, Jobs, State
from bitrix_console.models import Job

_EVERY_S = 1.0

_JOB = "import sys; from bitrix_console.job_process import main; main(*sys.argv[1:])"

_log = logging.getLogger(__name__)


class Process(Protocol):
    """What the queue wants to know of a process that it started."""

    def poll(self) -> int | None: ...


Start = Callable[[Job, int], Process]
"""Starts a job's process, which gets the descriptor of the locked file; raises OSError."""


class Queue:
    """Starts jobs; one thread looks."""

    def __init__(self, jobs: Jobs, lock: Path, start: Start) -> None:
        self._jobs = jobs
        self._lock = lock
        self._start = start
        self._process: Process | None = None
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Starts no more; a job that runs goes on."""
        self._ended.set()
        self._wake.set()

    def look_now(self) -> None:
        self._wake.set()

    def look(self) -> None:
        """Sees whether the last job has ended, and begins the next one."""
        if self._process and self._process.poll() is not None:
            self._process = None
        if not self._jobs.waiting():
            return
        with free(self._lock) as lock:
            if lock is None:
                return
            self._jobs.end_lost()
            job = self._jobs.begin()
            if job is None:
                return
            try:
                self._process = self._start(job, lock)
            except OSError as error:
                self._jobs.end(job.id, End(State.FAILED, f"it could not be started: {error.strerror}"))

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                self.look()
            except Exception:
                # Such as a full disk: the jobs stay as they are, and the next look may succeed.
                _log.exception("the queue could not be looked at")
            self._wake.wait(_EVERY_S)


@contextmanager
def free(lock: Path) -> Iterator[int | None]:
    """Takes the lock; gives its descriptor, or None where a job has it.

    It stays taken for as long as any process has this open file.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def starter(database: Path, inventory: str) -> Start:
    """What starts jobs on the hosts of an inventory."""
    place = Path(inventory).resolve()

    def start(job: Job, lock: int) -> Process:
        errors = os.open(database.with_name("jobs.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, "-c", _JOB),
                    *(str(database), str(place), str(job.id), str(lock)),
                ],
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                # A terminal's interrupt and its end are for the console alone.
                start_new_session=True,
            )
        finally:
            os.close(errors)

    return start

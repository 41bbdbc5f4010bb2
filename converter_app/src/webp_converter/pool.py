"""Worker processes with limits: what a hostile picture breaks is one worker, not the daemon."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as PoolTimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import forkserver
from typing import NamedTuple

from pebble import ProcessExpired, ProcessPool

from webp_converter import worker
from webp_converter.config import Config
from webp_converter.jobs import Job
from webp_converter.worker import Order, Report

_TASK_MS = 50.0
_JOBS_PER_TASK = 16
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Failure(NamedTuple):
    """A worker did not get through."""

    reason: str
    counts: bool
    """Whether it counts as a try: it does unless the pool itself broke."""

    traceback: str = ""
    """Of the exception that ended it; empty where there was none to see."""

    @classmethod
    def raised(cls, text: str) -> Failure:
        """A failure as a worker tells it: the reason on the first line, below it the traceback."""
        reason, _, traceback = text.partition("\n")
        return cls(reason, True, traceback)


Answer = Report | Failure
Answered = Sequence[tuple[Job, Answer]]


def start_fork_server() -> None:
    """Starts the server that workers are forked from. Call it from the thread that lives as long as the
    daemon: the server dies with it."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    context().set_forkserver_preload(["webp_converter.preload"])
    forkserver.ensure_running()


def context() -> multiprocessing.context.ForkServerContext:
    """How child processes are made: forked from a server without threads."""
    return multiprocessing.get_context("forkserver")


class Pool:
    """Runs jobs in workers; every job submitted is answered exactly once.

    To hand a job to a process costs as much as encoding a third of a thumbnail, so small pictures travel
    together: as many as make a task of some 50 ms. When such a task fails, its jobs are tried again one by
    one, so that one picture's failure is never counted against another.
    """

    def __init__(
        self,
        config: Config,
        temporary: bytes,
        answer: Callable[[Answered], None],
        task: Callable[[Sequence[Order]], list[Report | str]] = worker.convert_all,
    ) -> None:
        """`answer` is called from a thread of the pool's; `task` runs in a worker."""
        self._task = task
        self._config = config
        self._temporary = temporary
        self._answer = answer
        self._workers = config.workers.processes()
        # One task waits behind each that is worked on, so that no worker waits for the next.
        self._limit = 2 * self._workers
        self._lock = threading.Condition()
        self._running: dict[str, Job] = {}
        self._tasks = 0
        self._job_ms = _TASK_MS
        self._progress = time.monotonic()
        self._broken = False
        self.rebuilt = 0
        """How many times the pool broke and was built anew."""
        self._pool = self._new()

    def _new(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self._workers,
            max_tasks=self._config.workers.tasks_per_process,
            initializer=worker.start,
            initargs=(self._config, self._temporary),
            context=context(),
        )
        pool.schedule(os.getpid)  # starts the workers now instead of with the first job
        return pool

    @property
    def healthy(self) -> bool:
        return not self._broken

    def __len__(self) -> int:
        """How many jobs are under way."""
        return len(self._running)

    def running(self) -> list[Job]:
        with self._lock:
            return list(self._running.values())

    def wait_for_room(self, waiting: int, timeout_s: float) -> int:
        """How many of `waiting` jobs to submit next, as one task; waits until there is room, and is 0 when
        the time is over."""
        with self._lock:
            if not self._lock.wait_for(lambda: not self._broken and self._tasks < self._limit, timeout_s):
                return 0
        # Few jobs are spread over the workers rather than kept together.
        fair = -(-waiting // self._limit)
        return max(1, min(fair, int(_TASK_MS / self._job_ms), _JOBS_PER_TASK))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Starts a task of the jobs given."""
        with self._lock:
            if not self._running:
                self._progress = time.monotonic()
            for job in jobs:
                self._running[job.entry] = job
        self._schedule(jobs)

    def _schedule(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            self._tasks += 1
        orders = [Order(job.path, job.event_ns, job.rested) for job in jobs]
        try:
            future = self._pool.schedule(
                self._task, args=(orders,), timeout=self._config.workers.time_limit_s
            )
        except RuntimeError as error:
            self._break()
            self._settle(jobs, [Failure(str(error), counts=False)] * len(jobs))
            return
        future.add_done_callback(partial(self._done, jobs))

    def _done(self, jobs: Sequence[Job], future: Future[list[Report | str]]) -> None:
        error = future.exception() if not future.cancelled() else BrokenProcessPool("cancelled")
        if error is None:
            reports = future.result()
            self._learn(reports)
            self._settle(jobs, [Failure.raised(r) if isinstance(r, str) else r for r in reports])
            return
        if isinstance(error, BrokenProcessPool):
            self._break()
            failure = Failure("the worker pool broke", counts=False)
        elif isinstance(error, ProcessExpired):
            failure = Failure(f"worker crashed (exit code {error.exitcode})", counts=True)
        elif isinstance(error, PoolTimeoutError):
            failure = Failure(f"not done after {self._config.workers.time_limit_s:g} s", counts=True)
        else:
            failure = Failure(f"{type(error).__name__}: {error}", counts=True)
        if failure.counts and len(jobs) > 1:
            with self._lock:
                self._tasks -= 1
            for job in jobs:
                self._schedule([job])
        else:
            self._settle(jobs, [failure] * len(jobs))

    def _learn(self, reports: Sequence[Report | str]) -> None:
        """Keeps a running mean of how long a picture takes."""
        for report in reports:
            if isinstance(report, Report) and report.finished:
                self._job_ms += 0.1 * (max(0.5, report.finished.mark.encode_ms) - self._job_ms)

    def _settle(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        with self._lock:
            pairs = [
                pair for pair in zip(jobs, answers, strict=True) if self._running.pop(pair[0].entry, None)
            ]
            self._tasks = max(0, self._tasks - 1)
            self._progress = time.monotonic()
            self._lock.notify_all()
        if pairs:
            self._answer(pairs)

    def _break(self) -> None:
        with self._lock:
            self._broken = True
            self._lock.notify_all()

    def supervise(self) -> bool:
        """Builds the pool anew when it is broken or makes no progress; whether it had to. Call it regularly,
        from the thread that started the fork server."""
        stalled_s = 2 * self._config.workers.time_limit_s + 10
        if self._running and time.monotonic() - self._progress > stalled_s:
            self._break()
        if not self._broken and self._pool.active:
            return False
        self._break()
        self._end()
        start_fork_server()
        lost = self.running()
        self._settle(lost, [Failure("the worker pool broke", counts=False)] * len(lost))
        self._pool = self._new()
        self.rebuilt += 1
        with self._lock:
            self._broken = False
            self._tasks = 0
            self._progress = time.monotonic()
            self._lock.notify_all()
        return True

    def _end(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def close(self) -> None:
        """Ends the workers; jobs under way are not answered any more."""
        with self._lock:
            self._broken = True
            self._running.clear()
            self._lock.notify_all()
        self._end()

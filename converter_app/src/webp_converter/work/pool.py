"""Worker processes with limits: a hostile picture can break a decoder or a worker, but not the daemon.

Each worker is a separate process at the other end of a pair of sockets. It answers tasks in order, so the
first of those handed over is the one that it works on, and the one to blame when it dies. One thread reads
all answers, ends what takes too long and starts what is missing.
"""

from __future__ import annotations

import contextlib
import pickle
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from webp_converter.base import log
from webp_converter.base.processes import child, pipe
from webp_converter.base.sandbox import Layer
from webp_converter.config import Config
from webp_converter.queue.jobs import Job
from webp_converter.work import worker
from webp_converter.work.worker import Crash, Order, Report

_TASK_MS = 50.0
_JOBS_PER_TASK = 16
_SHORT_MS = 100.0
_BEAT_S = 0.5
_END_S = 2.0
_START_PAUSES_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


class Failure(NamedTuple):
    """A worker did not get through."""

    reason: str
    counts: bool
    """Whether it counts as a try: it does unless it can't be told which picture is to blame."""

    traceback: str = ""
    """Of the exception that ended it; empty where there was none to see."""

    @classmethod
    def raised(cls, text: str) -> Failure:
        """A failure as a worker tells it: the reason on the first line, below it the traceback."""
        reason, _, traceback = text.partition("\n")
        return cls(reason, True, traceback)


Answer = Report | Failure
Answered = Sequence[tuple[Job, Answer]]
Work = Callable[[Sequence[Order]], list[Report | str]]


class _Worker:
    """A process, and the tasks that it was handed."""

    def __init__(self, config: Config, temporary: bytes, work: Work) -> None:
        self.process, self.connection = child(worker.serve, config.of_workers(), temporary, work)
        self.ready = False
        self.tasks: deque[Sequence[Job]] = deque()
        self.left = config.workers.tasks_per_process or -1
        """Tasks that it may still be handed; -1: any number."""

        self.since = time.monotonic()
        """When it began its first task, or its rest."""

    def hand(self, jobs: Sequence[Job]) -> None:
        """Hands over a task. Whether it arrives shows in the answer."""
        if not self.tasks:
            self.since = time.monotonic()
        self.tasks.append(jobs)
        self.left -= self.left > 0
        orders = [Order(job.path, job.event_ns, job.rest) for job in jobs]
        with contextlib.suppress(OSError):  # it is dead, which is found out by reading from it
            self.connection.send_bytes(pickle.dumps(orders))

    def end(self, *, kill: bool) -> str:
        """Ends the process, which is about to end by itself unless `kill`; how it ended, in words."""
        if kill:
            self.process.kill()
        self.connection.close()
        self.process.join(_END_S)
        if self.process.is_alive():
            self.process.kill()
        code = self.process.exitcode
        try:
            return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        except ValueError:
            return f"exit code {code}"


class Pool:
    """Runs jobs in workers; every job submitted is answered exactly once.

    To hand a job to a process costs as much as encoding a third of a thumbnail, so small pictures travel
    together: as many as make a task of some 50 ms. When such a task fails, its jobs are tried again one by
    one, so that one picture's failure is never counted against another.

    There are as many workers as there is work for, within the settings' limits. One that dies or takes too
    long is replaced; one that has done its share of tasks, or had nothing to do for long, is retired. While
    pictures take little time, a worker is handed its next task before it has answered the last, and never
    waits.
    """

    def __init__(
        self,
        config: Config,
        temporary: bytes,
        answer: Callable[[Answered], None],
        work: Work = worker.convert_all,
    ) -> None:
        """`answer` is called from a thread of the pool's; `work` runs in a worker."""
        self._work = work
        self._config = config
        self._temporary = temporary
        self._answer = answer
        self._most = config.workers.processes()
        self._least = min(config.workers.minimum, self._most)
        self._lock = threading.Condition()
        self._workers: list[_Worker] = []
        self._running: dict[str, Job] = {}
        self._tasks = 0
        self._waiting: deque[Sequence[Job]] = deque()
        """Tasks that wait for a worker: none had room for them, or theirs ended."""

        self._job_ms = _TASK_MS
        self._failed_starts = 0
        self._start_at = 0.0
        self.replaced = 0
        """How many workers, or decoders of theirs, died or were killed, and were replaced."""

        self.layers: Layer | None = None
        """The sandbox layers of decoders; None: none has been started yet."""

        self.problem = ""
        """Why no worker can be started; empty: they can."""

        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = pipe()
        self._selector.register(self._woken.fileno(), selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many jobs are under way."""
        return len(self._running)

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def running(self) -> list[Job]:
        with self._lock:
            return list(self._running.values())

    def wait_for_room(self, waiting: int, timeout_s: float) -> int:
        """How many of `waiting` jobs to submit next, as one task; waits until there is room, and is 0 when
        the time is over."""
        limit = self._depth() * self._most
        with self._lock:
            if not self._lock.wait_for(lambda: not self._closing and self._tasks < limit, timeout_s):
                return 0
        # Few jobs are spread over the workers rather than kept together.
        fair = -(-waiting // limit)
        return max(1, min(fair, int(_TASK_MS / self._job_ms), _JOBS_PER_TASK))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Starts a task of the jobs given."""
        with self._lock:
            self._tasks += 1
            for job in jobs:
                self._running[job.entry] = job
            chosen = self._choose()
            if chosen:
                chosen.hand(jobs)
            else:
                self._waiting.append(jobs)
        if not chosen:
            self._wake()

    def close(self) -> None:
        """Ends the workers; jobs under way are not answered any more."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._wake()
        self._thread.join()
        for one in self._workers:
            one.process.kill()  # all of them first: the wait is one wait
        for one in self._workers:
            one.end(kill=True)
        self._running.clear()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # Handing over, with the lock held

    def _depth(self) -> int:
        """How many tasks to hand to one worker: behind a long one, the next would wait without need."""
        return 2 if self._job_ms < _SHORT_MS else 1

    def _choose(self) -> _Worker | None:
        """The worker to hand the next task to: the one with the least to do; None to wait for another."""
        depth = self._depth() if len(self._workers) >= self._most else 1
        free = [one for one in self._workers if one.left and len(one.tasks) < depth]
        return min(free, key=lambda one: len(one.tasks), default=None)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send_bytes(b"")

    # The pool's thread

    @property
    def alive(self) -> bool:
        """Whether the pool's thread runs. Only a fault in it ends it before `close`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                self._staff()
                timeout_s = self._until_due()
            for key, _ in self._selector.select(timeout_s):
                if key.data is None:
                    self._woken.recv_bytes()
                elif key.data in self._workers:  # not replaced by what was read before it
                    self._read(key.data)
            self._end_overdue()

    def _staff(self) -> None:
        """Hands over what waits, starts the workers that are missing, retires those that are too many."""
        now = time.monotonic()
        while self._waiting and (chosen := self._choose()):
            chosen.hand(self._waiting.popleft())
        for one in list(self._workers):
            idle_s = 0.0 if one.tasks else now - one.since
            spare = idle_s > self._config.workers.idle_s and len(self._workers) > self._least
            if not one.tasks and (not one.left or spare):
                self._retire(one)
        if len(self._workers) < (self._most if self._waiting else self._least):
            self._start()

    def _start(self) -> None:
        if time.monotonic() < self._start_at:
            return
        try:
            one = _Worker(self._config, self._temporary, self._work)
        except OSError as error:
            self._cannot_start(str(error))
            return
        self._workers.append(one)
        self._selector.register(one.connection.fileno(), selectors.EVENT_READ, one)
        self._staff()  # with tasks for it, and perhaps for one more

    def _cannot_start(self, reason: str) -> None:
        pause_s = _START_PAUSES_S[min(self._failed_starts, len(_START_PAUSES_S) - 1)]
        self._failed_starts += 1
        self._start_at = time.monotonic() + pause_s
        if pause_s:
            self.problem = f"workers don't start: {reason}"

    def _retire(self, one: _Worker) -> None:
        self._dismiss(one)
        one.end(kill=False)  # with its input closed

    def _dismiss(self, one: _Worker) -> None:
        self._workers.remove(one)
        self._selector.unregister(one.connection.fileno())

    def _until_due(self) -> float:
        """Seconds until something has to be done that no worker tells of."""
        limit_s = self._config.workers.time_limit_s
        now = time.monotonic()
        due = [one.since + limit_s - now for one in self._workers if one.tasks]
        return max(0.0, min(_BEAT_S, *due)) if due else _BEAT_S

    def _read(self, one: _Worker) -> None:
        """Takes an answer, or learns that the worker ended."""
        try:
            reports: list[Report | str] | Layer | str = one.connection.recv()
        except (EOFError, OSError):
            self._lost(one)
            return
        if isinstance(reports, str):
            self._lost(one, reports)
            return
        if isinstance(reports, Layer):
            one.ready = True
            self._failed_starts, self.problem = 0, ""
            if reports != self.layers:
                self.layers = reports
                tell = log.info if Layer.SECCOMP in reports else log.warning
                tell("decoders are locked up", layers=str(reports))
            return
        self.replaced += sum(isinstance(report, Crash) for report in reports)
        with self._lock:
            jobs = one.tasks.popleft()
            one.since = time.monotonic()
        self._learn(reports)
        self._settle(jobs, [Failure.raised(r) if isinstance(r, str) else r for r in reports])

    def _end_overdue(self) -> None:
        limit_s = self._config.workers.time_limit_s
        now = time.monotonic()
        for one in [one for one in self._workers if one.tasks and now - one.since > limit_s]:
            self._lost(one, f"not done after {limit_s:g} s")

    def _lost(self, one: _Worker, reason: str = "") -> None:
        """Sees to the tasks of a worker that has ended, or that is ended for a reason."""
        with self._lock:
            self._dismiss(one)
        end = one.end(kill=bool(reason))
        reason = reason or f"worker crashed ({end})"
        to_blame: Sequence[Job] = ()
        with self._lock:
            if one.ready:
                self.replaced += 1
                to_blame = one.tasks.popleft() if one.tasks else ()
            else:
                self._cannot_start(reason)
            self._waiting.extendleft(reversed(one.tasks))
            if len(to_blame) > 1:
                self._tasks += len(to_blame) - 1
                self._waiting.extendleft([job] for job in reversed(to_blame))
        if len(to_blame) == 1:
            self._settle(to_blame, [Failure(reason, counts=True)])

    def _learn(self, reports: Sequence[Report | str]) -> None:
        """Keeps a running mean of how long a picture takes."""
        for report in reports:
            if isinstance(report, Report) and report.finished:
                self._job_ms += 0.1 * (max(0.5, report.finished.mark.encode_ms) - self._job_ms)

    def _settle(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        self._answer(list(zip(jobs, answers, strict=True)))
        with self._lock:
            for job in jobs:
                self._running.pop(job.entry, None)
            self._tasks -= 1
            self._lock.notify_all()

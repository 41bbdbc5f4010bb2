"""The second pass: when there is no other work, variants are encoded again with more effort.

The list of variants is only in memory: a variant that is forgotten stays as it is. The work
is done by a separate process, one picture at a time, when the processor is otherwise idle.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from webp_converter.base import log
from webp_converter.base.processes import child
from webp_converter.config import Config
from webp_converter.variants.statistics import Picture
from webp_converter.variants.store import Mark, Result
from webp_converter.work import worker
from webp_converter.work.health import Condition
from webp_converter.work.records import Records
from webp_converter.work.trees import Trees
from webp_converter.work.worker import Order, Report

REMEMBERED = 10_000
"""Variants at most; the oldest are forgotten first."""

_TICK_S = 0.25


class SecondPass:
    """Remembers what was published, and improves it in idle time."""

    def __init__(
        self,
        config: Config,
        temporary: bytes,
        condition: Condition,
        trees: Trees,
        records: Records,
    ) -> None:
        self._config = config
        self._temporary = temporary
        self._condition = condition
        self._trees = trees
        self._records = records
        self._lock = threading.Lock()
        self._paths: dict[bytes, None] = {}
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.busy = False
        """Whether one is under way."""
        self._worked = time.monotonic()
        """When there was other work last, as far as was seen."""

        encoding = config.encoding
        self._enabled = encoding.second_pass_method > encoding.method

    def __len__(self) -> int:
        """How many variants wait for it."""
        return len(self._paths)

    def remember(self, path: bytes, mark: Mark) -> None:
        """Takes note of a variant that was just published."""
        if not self._enabled or not mark.is_lossy:
            return
        # Most is done between two looks at whether there is work.
        self._worked = time.monotonic()
        with self._lock:
            self._paths.pop(path, None)
            self._paths[path] = None
            if len(self._paths) > REMEMBERED:
                del self._paths[next(iter(self._paths))]

    def run(self, stopping: threading.Event) -> None:
        """Works until `stopping` is set."""
        self._worked = time.monotonic()
        while not stopping.wait(_TICK_S):
            if not self._condition.is_idle():
                self._worked = time.monotonic()
            elif self._rested():
                self.busy = True
                while self._paths and self._condition.is_idle() and self._rested() and not stopping.is_set():
                    self._improve(self._next(), stopping)
                self.close()
                self.busy = False
        self.close()

    def _rested(self) -> bool:
        return time.monotonic() - self._worked >= self._config.encoding.second_pass_idle_s

    def _next(self) -> bytes:
        """The one published last: it is the most likely to be asked for."""
        with self._lock:
            return self._paths.popitem()[0]

    def _improve(self, path: bytes, stopping: threading.Event) -> None:
        report = self._ordered(Order(path, time.time_ns(), second=True), stopping)
        if report is None or report.finished is None:
            self._count(report.outcome.value if report else "failed")
            return
        [result] = self._trees.publish([report.finished])
        if result is not Result.PUBLISHED:
            self._count(result.name.lower())
            return
        log.info(
            "improved",
            path=path,
            verdict=report.finished.mark.verdict,
            variant_bytes=report.variant_bytes,
            detail=report.detail,
        )
        self._count("improved")
        mark, size = report.finished.mark, report.variant_bytes
        self._records.metrics.published(mark.similarity)
        self._records.latest_jobs.converted(path, mark, report.format, size, report.avif_bytes, again=True)
        self._records.statistics.remember([Picture(path, mark, report.format, size, time.time_ns())])

    def _count(self, outcome: str) -> None:
        self._records.metrics.second.labels(outcome).inc()

    def _ordered(self, order: Order, stopping: threading.Event) -> Report | None:
        """What the process reports; None when it failed or takes too long."""
        deadline = time.monotonic() + self._config.workers.time_limit_s
        try:
            if self._process is None or self._pipe is None:
                self._process, self._pipe = child(_work, self._config.of_workers(), self._temporary)
            self._pipe.send(order)
            while not self._pipe.poll(_TICK_S):
                if time.monotonic() > deadline or stopping.is_set():
                    self.close()
                    return None
            answer: Report | str = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            return None
        return answer if isinstance(answer, Report) else None

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.kill()
            self._process.join()
        if self._pipe:
            self._pipe.close()
        self._process = self._pipe = None


def _work(config: Config, temporary: bytes, pipe: Connection) -> None:
    """Answers orders in a separate process."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    worker.start(config, temporary)
    while True:
        try:
            pipe.send(worker.convert_all([pipe.recv()])[0])
        except EOFError:
            return

"""The daemon's health: the faults of its parts, and the work that waits."""

from __future__ import annotations

import redis

from webp_converter.base.fact import Fact
from webp_converter.base.stopping import Stopping
from webp_converter.events.scanner import Scanner
from webp_converter.events.watch_loop import WatchLoop
from webp_converter.metrics import Metrics
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Jobs
from webp_converter.queue.state import QueueState
from webp_converter.variants.disk import Disk
from webp_converter.variants.statistics import Statistics
from webp_converter.work.pool import Pool


class Part(Fact):
    """One part of the daemon."""

    status: str
    """`ok` or `degraded`."""

    reason: str
    """What is wrong; empty: nothing."""


class Health(Fact):
    """How the daemon does."""

    status: str
    """`ok`; `degraded`: it works, but not all of it; `failed`: it can't work."""

    parts: dict[str, Part]
    scanning: bool
    """Whether a reconcile scan is running or about to."""

    directories: int
    """Directories watched."""

    running: int
    """Jobs in worker processes."""

    queue: dict[str, int]
    """Jobs in each stream, put off (`later`), and dead letters (`dead`); empty while Redis is away."""


class Condition:
    """Looks at the parts."""

    def __init__(
        self,
        stopping: Stopping,
        queue: QueueState,
        in_hand: InHand,
        statistics: Statistics,
        watch: WatchLoop,
        pool: Pool,
        disk: Disk,
        scanner: Scanner,
    ) -> None:
        self._stopping = stopping
        self._queue = queue
        self._in_hand = in_hand
        self._statistics = statistics
        self._watch = watch
        self._pool = pool
        self._disk = disk
        self._scanner = scanner
        self._replaced = 0

    def health(self) -> Health:
        """How each part does, and whether the daemon can work at all."""
        parts = self._parts()
        problems = {part for part, problem in parts.items() if problem}
        works = not self._stopping.is_set() and not {"watch", "disk"} <= problems
        return Health(
            status="failed" if not works else "degraded" if problems else "ok",
            parts={
                part: Part(status="degraded" if problem else "ok", reason=problem)
                for part, problem in parts.items()
            },
            scanning=self._scanner.running or self._scanner.wanted.is_set(),
            directories=self._watch.directories,
            running=len(self._pool),
            queue={} if self._queue.problem else self._queue.lengths,
        )

    def line(self) -> str:
        """For systemd."""
        problems = [f"{part}: {problem}" for part, problem in self._parts().items() if problem]
        return "; ".join(problems) or f"watching {self._watch.directories} directories"

    def is_idle(self) -> bool:
        """Whether nothing is to be done, as far as can be seen from here."""
        busy = len(self._in_hand) or self._scanner.running
        return not (busy or self._queue.problem or self._disk.problem)

    def measure(self, jobs: Jobs, metrics: Metrics) -> None:
        """Takes note of what changes by itself."""
        if not self._queue.problem:
            try:
                self._queue.lengths = jobs.lengths()
                ages = jobs.ages()
            except redis.RedisError as error:
                self._queue.lost(error)
            else:
                for stream, length in self._queue.lengths.items():
                    metrics.queue.labels(stream).set(length)
                for stream, age_s in ages.items():
                    metrics.oldest.labels(stream).set(age_s or 0)
        metrics.paused.labels("disk").set(bool(self._disk.problem))
        metrics.paused.labels("queue").set(bool(self._queue.problem))
        metrics.running.set(len(self._pool))
        metrics.workers.set(self._pool.workers)
        metrics.replaced.inc(self._pool.replaced - self._replaced)
        self._replaced = self._pool.replaced
        metrics.directories.set(self._watch.directories)
        for part, problem in self._parts().items():
            metrics.up.labels(part).set(not problem)

    def _parts(self) -> dict[str, str]:
        """What is wrong with each part; empty: nothing."""
        return {
            "queue": self._queue.problem or ("Redis is out of memory" if self._queue.full else ""),
            "cache": "" if self._statistics.available else "Redis is away",
            "watch": self._watch.problem,
            "pool": self._pool.problem,
            "disk": self._disk.problem,
        }

"""The daemon's housekeeper: runs eviction at regular times, and when a file system fills up.

It runs in a separate process, like the scan: a walk through a million files must not hold up the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from webp_converter.base import log
from webp_converter.base.fact import Fact
from webp_converter.base.processes import child
from webp_converter.config import Config
from webp_converter.metrics import Metrics
from webp_converter.variants.eviction import Eviction, Space, Why
from webp_converter.variants.statistics import Statistics
from webp_converter.work.cleanup import Cleanup, clean_up_in_child, evict_in_child

_FIRST_S = 60


class LastEviction(Fact):
    """What the last eviction did."""

    finished_at: float
    """Unix time."""

    pictures: int
    """Originals with variants, as looked at."""

    age_files: int
    """Variants removed because they were not read for `store.evict_after_days`."""

    age_bytes: int
    space_files: int
    """Variants gone because the file system was above `store.high_water`."""

    space_bytes: int
    refused: int
    """Pictures whose original can't bear the note of an eviction, so that their variants stay."""

    missing_bytes: int
    """What could not be freed down to `store.low_water`, with nothing of ours left."""

    seconds: float


class BusyError(Exception):
    """It is being cleaned up already."""


class Housekeeper:
    """Evicts, and cleans up when asked to. Its methods may be called from any thread."""

    def __init__(self, config: Config, metrics: Metrics, statistics: Statistics) -> None:
        self._config = config
        self._metrics = metrics
        self._statistics = statistics
        self._trees = (config.store.root, config.originals.variants)
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._busy = threading.Lock()
        self._process: BaseProcess | None = None
        self._full_again = 0.0
        self.last: LastEviction | None = None
        """None: there was none yet."""

    def run(self, stopping: threading.Event) -> None:
        """Evicts until `stopping` is set and `stop` is called."""
        wait_s = min(_FIRST_S, self._config.store.evict_every_s)
        while not stopping.is_set():
            self._due.wait(wait_s)
            self._due.clear()
            wait_s = self._config.store.evict_every_s
            if not stopping.is_set():
                with self._busy:
                    done = self._in_child(evict_in_child, self._config)
                    if isinstance(done, Eviction):
                        self._evicted(done)

    def watch_space(self) -> None:
        """Looks whether a file system has filled up. Cheap: call it often."""
        full = [tree for tree in self._trees if self._share(tree) > self._config.store.high_water]
        if not full:
            self._full_again = 0.0
        elif time.monotonic() >= self._full_again:
            # What could not be freed now is hardly to be freed in a moment.
            self._full_again = time.monotonic() + self._config.store.evict_every_s
            log.warning("above the high-water mark", trees=", ".join(map(str, full)))
            self._due.set()

    @staticmethod
    def _share(tree: Path) -> float:
        try:
            return Space.of(tree).share
        except OSError:  # not there (yet)
            return 0.0

    def clean_up(self, dry_run: bool) -> Cleanup | None:
        """Cleans up now, and waits for it; None when the daemon stops meanwhile.

        :raises BusyError: a cleanup is running already.
        """
        if not self._busy.acquire(blocking=False):
            raise BusyError("it is being cleaned up already")
        try:
            done = self._in_child(clean_up_in_child, self._config, dry_run)
        finally:
            self._busy.release()
        if not isinstance(done, tuple):
            return None
        cleanup: Cleanup
        cleanup, eviction = done
        if not dry_run:
            self._metrics.stale.inc(cleanup.stale.files)
            self._evicted(eviction)
        return cleanup

    def stop(self) -> None:
        """Ends the wait of `run`, and what is running."""
        self._stopped.set()
        self._due.set()
        if process := self._process:
            process.kill()

    def _evicted(self, done: Eviction) -> None:
        for why, count in done.evicted.items():
            self._metrics.evicted.labels(why.value).inc(count.files)
            self._metrics.evicted_bytes.labels(why.value).inc(count.bytes)
        self._metrics.eviction_seconds.set(done.seconds)
        self._metrics.eviction_time.set_to_current_time()
        self._metrics.eviction_missing.set(done.missing_bytes)
        age, space = done.evicted[Why.AGE], done.evicted[Why.SPACE]
        self.last = LastEviction(
            finished_at=time.time(),
            pictures=done.pictures,
            age_files=age.files,
            age_bytes=age.bytes,
            space_files=space.files,
            space_bytes=space.bytes,
            refused=done.refused,
            missing_bytes=done.missing_bytes,
            seconds=round(done.seconds, 3),
        )
        told = self.last.model_dump(exclude={"finished_at"})
        (log.warning if done.missing_bytes or done.refused else log.info)("evicted", **told)
        self._statistics.evicted(done)

    def _in_child(self, target: Callable[..., None], *arguments: object) -> object | None:
        """What a child process sends; None when it ended without an answer."""
        try:
            process, receiver = child(target, *arguments)
        except OSError as error:
            log.error("eviction failed", reason=str(error))
            return None
        self._process = process
        try:
            if self._stopped.is_set():
                process.kill()
            sent: object = receiver.recv()
            return sent
        except (EOFError, OSError):
            if not self._stopped.is_set():
                log.error("eviction failed", reason=f"its process ended with {process.exitcode}")
            return None
        finally:
            receiver.close()
            process.join()
            self._process = None

"""Turns changes in the tree of resized pictures into jobs."""

from __future__ import annotations

import os
import threading
import time

from webp_converter.base import log
from webp_converter.config import Config
from webp_converter.events.long_names import LongNames
from webp_converter.events.watch import Change, Watch, WatchError
from webp_converter.metrics import Metrics
from webp_converter.queue.jobs import Job, Jobs
from webp_converter.queue.latest_jobs import LatestJobs
from webp_converter.queue.state import QueueState
from webp_converter.variants.statistics import Statistics
from webp_converter.variants.store import Store

_TICK_S = 0.5


class WatchLoop:
    """Watches the tree, and begins again when the watch was lost."""

    def __init__(
        self,
        config: Config,
        store: Store,
        jobs: Jobs,
        queue: QueueState,
        statistics: Statistics,
        latest_jobs: LatestJobs,
        metrics: Metrics,
        long_names: LongNames,
        scan_wanted: threading.Event,
    ) -> None:
        """`scan_wanted` asks for a reconcile scan."""
        self._root = os.fsencode(config.store.root)
        self._extensions = frozenset(config.watch.extensions)
        self._rest_s = config.store.directory_rest_s
        self._store = store
        self._jobs = jobs
        self._queue = queue
        self._statistics = statistics
        self._latest_jobs = latest_jobs
        self._metrics = metrics
        self._long_names = long_names
        self._scan_wanted = scan_wanted
        self._emptied: dict[bytes, float] = {}
        self.tried = threading.Event()
        """Set once the tree is watched, or can't be."""

        self.problem = "starting"
        """Why the tree isn't watched; empty: it is."""

        self.directories = 0
        """How many are watched."""

    def run(self, stopping: threading.Event) -> None:
        """Watches until `stopping` is set."""
        while not stopping.is_set():
            started = time.monotonic()
            try:
                watch = Watch(self._root, self._extensions)
            except WatchError as error:
                if self.problem != str(error):
                    log.error("cannot watch", reason=str(error))
                self.problem = str(error)
                self.tried.set()
                stopping.wait(1)
                continue
            self.problem = ""
            self.directories = len(watch)
            self.tried.set()
            log.info("watching", directories=len(watch), seconds=round(time.monotonic() - started, 3))
            # Only now: what changed before the watch was there is the scan's to find.
            self._scan_wanted.set()
            try:
                self._follow(watch, stopping)
            except WatchError as error:
                self.problem = str(error)
                log.error("cannot watch", reason=str(error))
                stopping.wait(1)
            finally:
                watch.close()

    def _follow(self, watch: Watch, stopping: threading.Event) -> None:
        while not stopping.is_set():
            changes = watch.changes(_TICK_S)
            if changes is None:
                self._metrics.lost.inc()
                log.warning("events lost")
                return
            self.directories = len(watch)
            self._changed(changes)
            self._remove_emptied()

    def _changed(self, changes: list[Change]) -> None:
        jobs, gone = [], []
        for change in changes:
            if not self._long_names.has_room(change.path):
                continue
            stale = self._store.remove_stale(change.path)
            if stale.removed:
                self._metrics.stale.inc(stale.removed)
                self._latest_jobs.forget(change.path)
                log.info("stale removed", path=change.path, removed=stale.removed)
            if not stale.present:
                gone.append(change.path)
                if stale.removed:
                    directory = change.path.rpartition(b"/")[0]
                    self._emptied[directory] = time.monotonic() + self._rest_s
            elif not stale.decided and (change.written or stale.removed):
                jobs.append(Job(change.path, change.seen_ns))
        self._queue.attempt(self._jobs.push, jobs)
        self._statistics.forget(gone)

    def _remove_emptied(self) -> None:
        now = time.monotonic()
        for directory in [path for path, due in self._emptied.items() if due <= now]:
            del self._emptied[directory]
            self._store.remove_empty_directories(directory + b"/")

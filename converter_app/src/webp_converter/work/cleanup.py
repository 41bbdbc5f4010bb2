"""Cleaning up: what is stale, what has no original, what a killed run left unfinished, what nobody reads."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from webp_converter.base import linux
from webp_converter.config import Config
from webp_converter.events.scan import Tally, reconcile
from webp_converter.variants.eviction import Count, Eviction, evict
from webp_converter.variants.store import Temporary

_REST_S = 10.0


@dataclass
class Cleanup:
    """What one run removed, or with `dry_run` would have."""

    dry_run: bool
    stale: Count
    """Variants and verdicts of another content of their original, or of one that is gone."""

    unfinished: Count
    """Files of runs that were killed."""

    eviction: Eviction
    queued: int
    """Originals without a decision, queued to be converted."""

    missed: bool
    """Whether the queue was away."""

    seconds: float

    @property
    def files(self) -> int:
        """All that was removed."""
        evicted = sum(count.files for count in self.eviction.evicted.values())
        return self.stale.files + self.unfinished.files + evicted

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "dry_run": self.dry_run,
            "stale": vars(self.stale),
            "unfinished": vars(self.unfinished),
            "evicted": {why.value: vars(count) for why, count in self.eviction.evicted.items()},
            "refused": self.eviction.refused,
            "missing_bytes": self.eviction.missing_bytes,
            "queued": self.queued,
            "missed": self.missed,
            "seconds": round(self.seconds, 3),
        }


def cleanup(
    config: Config, dry_run: bool = False, tally: Tally | None = None, eviction: Eviction | None = None
) -> Cleanup:
    """Removes all that is to be removed, and queues what is then missing; with `dry_run` it is only counted.
    A tally and an eviction given are filled as it goes on."""
    started = time.monotonic()
    tally = tally or Tally()
    tally.dry_run = dry_run
    unfinished = Count()
    for parent in (config.store.temporary, config.originals.temporary):
        if parent.is_dir():
            files, size = Temporary.clear(os.fsencode(parent), dry_run, _REST_S)
            unfinished.files += files
            unfinished.bytes += size
    reconcile(config, tally=tally)
    eviction = evict(config, dry_run, eviction)
    return Cleanup(
        dry_run=dry_run,
        stale=Count(tally.removed, tally.removed_bytes),
        unfinished=unfinished,
        eviction=eviction,
        queued=tally.queued,
        missed=tally.missed,
        seconds=time.monotonic() - started,
    )


def evict_in_child(config: Config, report: Connection) -> None:
    """Evicts in a process of its own, and sends what was done."""
    _become_child()
    report.send(evict(config))


def clean_up_in_child(config: Config, dry_run: bool, report: Connection) -> None:
    """Cleans up in a process of its own, and sends what was done."""
    _become_child()
    report.send(cleanup(config, dry_run))


def _become_child() -> None:
    linux.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

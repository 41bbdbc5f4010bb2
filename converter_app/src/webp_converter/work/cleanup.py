"""Cleaning up: variants that are stale, without an original, left unfinished by a killed run, or not read."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from webp_converter.base import linux
from webp_converter.base.fact import Fact
from webp_converter.config import Config
from webp_converter.events.scan import Tally, reconcile
from webp_converter.variants.eviction import Count, Eviction, evict
from webp_converter.variants.store import Temporary

_REST_S = 10.0


class Cleanup(Fact):
    """What was removed, or with `dry_run` would have been."""

    dry_run: bool
    stale: Count
    """Variants and verdicts of another content of their original, or of one that is gone."""

    unfinished: Count
    """Files of runs that were killed."""

    evicted: dict[str, Count]
    """Variants that were not read, by rule: `age`, `space`."""

    refused: int
    """Pictures whose original can't bear the note of an eviction, so that their variants stay."""

    missing_bytes: int
    """What could not be freed down to `store.low_water`, with nothing of ours left."""

    queued: int
    """Originals without a decision that were queued."""

    missed: bool
    """Whether the queue was away, so that another scan is needed."""

    seconds: float

    @property
    def files(self) -> int:
        """All that was removed."""
        evicted = sum(count.files for count in self.evicted.values())
        return self.stale.files + self.unfinished.files + evicted


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
        stale=Count(files=tally.removed, bytes=tally.removed_bytes),
        unfinished=unfinished,
        evicted={why.value: count for why, count in eviction.evicted.items()},
        refused=eviction.refused,
        missing_bytes=eviction.missing_bytes,
        queued=tally.queued,
        missed=tally.missed,
        seconds=round(time.monotonic() - started, 3),
    )


def evict_in_child(config: Config, report: Connection) -> None:
    """Evicts in a separate process, and sends what was done."""
    _become_child()
    report.send(evict(config))


def clean_up_in_child(config: Config, dry_run: bool, report: Connection) -> None:
    """Cleans up in a separate process, and sends what was done."""
    _become_child()
    eviction = Eviction()
    report.send((cleanup(config, dry_run, eviction=eviction), eviction))


def _become_child() -> None:
    linux.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""A rollout as an operator starts it, and its summary at the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitrix_cdn.fleet import Inventory, UsageError
from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.fleet.lock import machine, now, operator
from bitrix_cdn.fleet.sources import state
from bitrix_cdn.rollout import plan
from bitrix_cdn.rollout.errors import RefusedError
from bitrix_cdn.rollout.fleet import Fleet
from bitrix_cdn.rollout.record import Record
from bitrix_cdn.rollout.run import Options, Rollout
from host_agent.lock import Holder


@dataclass(frozen=True)
class Chosen:
    """What an operator can choose."""

    batch: int = 1
    """Edges at a time."""
    canary: str | None = None
    watch: float = 30.0
    """Seconds."""
    idle: float = 90.0
    """Seconds."""
    again: bool = False
    undo: bool = False
    break_lock: bool = False


class Command:
    """One run, from the locks to what is said at its end."""

    def __init__(self, inventory: Inventory, chosen: Chosen, say: Callable[[str], object]) -> None:
        """Makes the plan.

        :raises UsageError: the canary is no host.
        """
        self._chosen = chosen
        self._inventory = inventory
        try:
            self._batches = plan.batches(inventory.groups, size=chosen.batch, canary=chosen.canary)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._say = say
        self._command = f"bitrix-cdn rollout start -i {shlex.quote(inventory.file)}"
        self._undo = f"bitrix-cdn rollout undo -i {shlex.quote(inventory.file)}"
        self._record = Record(inventory.file)

    def run(self) -> int:
        """Takes the record and the locks, and gives back what needn't be kept.

        :raises HostError: nothing was begun.
        """
        self._record.open(state(self._inventory), self._say)
        progress = self._record.progress
        holder = Holder(operator(), machine(), now(), f"rollout of {self._inventory.file}", progress.token)
        fleet = Fleet(self._inventory, self._record, holder, idle=self._chosen.idle)
        fleet.connect()
        self._take(fleet)
        rollout = Rollout(fleet, self._record, self._say, Options(self._chosen.watch, self._chosen.again))
        what = "rollout undo" if self._chosen.undo else "rollout start"
        try:
            with recorded(self._inventory.hosts.values(), what, self._inventory.file) as outcome:
                status = self._go(rollout)
                if status:
                    outcome.result, outcome.why = "failed", rollout.summary.failure
                return status
        except KeyboardInterrupt:
            return self._interrupted()
        finally:
            if not self._record.progress.batch and (kept := fleet.release()):
                self._say(f"{', '.join(kept)}: the lock could not be given back; the next run takes it over")

    def _take(self, fleet: Fleet) -> None:
        broken = fleet.holders() if self._chosen.break_lock else {}
        for name, holder in broken.items():
            self._say(f"{name}: taken from {holder}")
        held = fleet.take(broken)
        for name, holder in held.items():
            raise RefusedError(
                f"{name}: held by {holder}; wait for its end, or take it over with --break-lock if that "
                "run is over"
            )

    def _go(self, rollout: Rollout) -> int:
        names = [name for batch in self._batches for name in batch]
        if self._chosen.undo:
            done = rollout.undo(names)
        else:
            self._say(f"state {self._record.progress.state}; in this order: {_shown(self._batches)}")
            done = rollout.run(self._batches)
        for line in rollout.summary.text(names, self._command, self._undo):
            self._say(line)
        return 0 if done else 1

    def _interrupted(self) -> int:
        progress = self._record.progress
        names = [name for batch in self._batches for name in batch if name not in progress.finished]
        if progress.batch:
            self._say(
                f"interrupted in step {progress.step!r} of {', '.join(progress.batch)}: stays as it is, "
                "drained if it was, and locked for you"
            )
        else:
            self._say("interrupted: no host is half changed")
        self._say(f"left: {', '.join(names) or 'none'}")
        self._say(f"`{self._command}` goes on, `{self._undo}` takes back what is half changed")
        return 130


def _shown(batches: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(batch) for batch in batches)

"""The command line."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from bitrix_cdn import fleet
from bitrix_cdn.fleet import HostError, Inventory
from bitrix_cdn.fleet.lock import Holder, machine, now, operator
from bitrix_cdn.rollout import deploys, plan
from bitrix_cdn.rollout.errors import RefusedError
from bitrix_cdn.rollout.fleet import Fleet
from bitrix_cdn.rollout.record import Record
from bitrix_cdn.rollout.run import Options, Rollout


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(least) - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: a number from {least:g} to {most:g} is allowed")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bitrix_cdn.rollout",
        description="Brings the hosts of an inventory to the state of this tree, batch by batch, while "
        "visitors go on. It may be cut short at any moment and started again.",
        epilog="Exit status: 0; 1 when it stopped: what it was changing has what it had before, unless it "
        "says otherwise; 2 for a wrong command; 130 when interrupted.",
    )
    parser.add_argument("inventory", help="the inventory that the hosts were deployed with")
    parser.add_argument(
        "--batch", type=_number(int, 1, 1000), default=1, metavar="N", help="edges at a time (default: 1)"
    )
    parser.add_argument("--canary", metavar="HOST", help="the host that comes first, alone")
    parser.add_argument(
        "--watch",
        type=_number(float, 0, 3600),
        default=30.0,
        metavar="SECONDS",
        help="how long a host's errors are watched afterwards (default: 30)",
    )
    parser.add_argument(
        "--idle",
        type=_number(float, 1, 3600),
        default=90.0,
        metavar="SECONDS",
        help="how long a drained host may keep visitors' connections (default: 90)",
    )
    parser.add_argument("--again", action="store_true", help="deploy also where nothing is to be changed")
    parser.add_argument("--undo", action="store_true", help="take back what a run that was cut short left")
    parser.add_argument("--break-lock", action="store_true", help="take the hosts from whoever holds them")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # pyinfra and paramiko log what is reported here in one line.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    out = Console(highlight=False, soft_wrap=True, markup=False)
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    inventory: Inventory | None = None
    try:
        inventory = fleet.load(options.inventory)
        try:
            batches = plan.batches(inventory.groups, size=options.batch, canary=options.canary)
        except ValueError as error:
            parser.error(str(error))
        return _Command(options, inventory, batches, out.print).run()
    except HostError as error:
        errors.print(f"rollout: {error}")
        return 1
    except KeyboardInterrupt:
        errors.print("rollout: interrupted; nothing was changed")
        return 130
    finally:
        if inventory is not None:
            inventory.close()


class _Command:
    """One run."""

    def __init__(
        self,
        options: argparse.Namespace,
        inventory: Inventory,
        batches: Sequence[tuple[str, ...]],
        say: Callable[[str], object],
    ) -> None:
        self._options = options
        self._inventory = inventory
        self._batches = batches
        self._say = say
        self._command = shlex.join(["python", "-m", "bitrix_cdn.rollout", options.inventory])
        self._record = Record(options.inventory)

    def run(self) -> int:
        """Takes the record and the locks, and gives back what needn't be kept.

        :raises HostError: nothing was begun.
        """
        state = deploys.state(self._inventory)
        self._record.open(state, self._say)
        progress = self._record.progress
        holder = Holder(operator(), machine(), now(), f"rollout of {self._options.inventory}", progress.token)
        fleet = Fleet(self._inventory, self._record, holder, idle=self._options.idle)
        fleet.connect()
        self._take(fleet)
        rollout = Rollout(fleet, self._record, self._say, Options(self._options.watch, self._options.again))
        try:
            return self._go(rollout)
        except KeyboardInterrupt:
            return self._interrupted()
        finally:
            if not self._record.progress.batch and (kept := fleet.release()):
                self._say(f"{', '.join(kept)}: the lock could not be given back; the next run takes it over")

    def _take(self, fleet: Fleet) -> None:
        broken = fleet.holders() if self._options.break_lock else {}
        for name, holder in broken.items():
            self._say(f"{name}: taken from {holder}")
        held = fleet.take(broken)
        for name, holder in held.items():
            raise RefusedError(
                f"{name}: held by {holder}; wait for its end, or take it over with --break-lock if nobody "
                "works there any more"
            )

    def _go(self, rollout: Rollout) -> int:
        names = [name for batch in self._batches for name in batch]
        if self._options.undo:
            done = rollout.undo(names)
        else:
            self._say(f"state {self._record.progress.state}; in this order: {_shown(self._batches)}")
            done = rollout.run(self._batches)
        for line in rollout.summary.text(names, self._command):
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
        self._say(f"`{self._command}` goes on, `{self._command} --undo` takes back what is half changed")
        return 130


def _shown(batches: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(batch) for batch in batches)


if __name__ == "__main__":
    sys.exit(main())

"""`cdn-host lock`: who is changing this host. Its output is JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence

from host_agent.json_output import Status, print_result
from host_agent.lock import Holder, Lock


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="cdn-host lock",
        description="Who is at work on this host, as JSON.",
        epilog="Exit status: 0; 1 for a failure; 2 for a wrong command; 4: somebody else has it.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("show", help="who holds this host")
    commands.add_parser("break", help="take the lock from whoever has it")
    taking = commands.add_parser("take", help="take the lock until it is given back; a rollout does")
    taking.add_argument("holder", type=_holder)
    taking.add_argument("--instead-of", metavar="HOLDER", type=_holder, help="whose lock is broken")
    give_back = commands.add_parser("give-back", help="free this host, if the lock has this token")
    give_back.add_argument("token")
    hold = commands.add_parser("hold", help="hold the host until the input ends, or says nothing for long")
    hold.add_argument("holder", type=_holder)
    hold.add_argument("lease", type=float, metavar="SECONDS")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    lock = Lock()
    held = False

    def take() -> Holder | None:
        nonlocal held
        other = lock.take(options.holder, options.instead_of)
        held = other is not None
        return other

    done: dict[str, Callable[[], Holder | None]] = {
        "show": lock.holder,
        "take": take,
        "give-back": lambda: lock.release(options.token),
        "break": lock.force_release,
        "hold": lambda: lock.hold(options.holder, options.lease, _say),
    }
    status = print_result(lambda: _as_json(done[options.command]()))
    return Status.HELD if held else status


def _holder(text: str) -> Holder:
    return Holder(**json.loads(text))


def _as_json(holder: Holder | None) -> dict[str, object]:
    return {"holder": holder._asdict() if holder else None}


def _say(lock: str, holder: Holder) -> None:
    print(json.dumps({"lock": lock, **_as_json(holder)}), flush=True)

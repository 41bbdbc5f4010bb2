"""`cdn-host journal`: undoes a deploy on this host. Its output is JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence

from host_agent.journal import Journal, record
from host_agent.journal.undo import undo
from host_agent.json_output import print_result
from host_agent.systemd import Systemd


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="cdn-host journal",
        description="What this host was before a deploy. What is done is told as JSON.",
        epilog="Exit status: 0; 1 for a failure, and the journal is still open; 2 for a wrong command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("begin", help="open the journal: from now on, what deploys change is recorded")
    commands.add_parser("undo", help="put everything back as it was, and close the journal")
    commands.add_parser("commit", help="close the journal and keep what was changed")
    recording = commands.add_parser("record", help="record what is about to be changed; deploys do")
    recording.add_argument("what", type=json.loads)
    options = parser.parse_args(arguments)
    os.umask(0o022)
    done: dict[str, Callable[[], object]] = {
        "begin": lambda: _open(Journal()),
        "undo": lambda: _undo(Journal()),
        "commit": lambda: _close(Journal()),
        "record": lambda: record(Systemd(), **options.what),
    }
    return print_result(done[options.command])


def _open(journal: Journal) -> object:
    journal.open()
    return {"open": True}


def _close(journal: Journal) -> object:
    with journal.alone() as is_open:
        if is_open:
            journal.close()
    return {"open": False, "was_open": is_open}


def _undo(journal: Journal) -> object:
    undone = undo(journal, Systemd())
    return {"open": False, "was_open": undone is not None, **(undone._asdict() if undone else {})}

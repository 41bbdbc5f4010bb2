"""The command `bitrix-cdn-backup` on a host. `bitrix-cdn backup` and `restore` call it; so may root."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from host_agent.backup import restore, run
from host_agent.backup.config import Config, load
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.state import State


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitrix-cdn-backup",
        description="Makes, lists, checks, drills and puts back the backups of this host.",
        epilog="Exit status: 0; 1 for a failure; 2 for a wrong command; 3: wrong password; 4: locked; 5: no "
        "repository there; 6: no space left.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="make a backup now")
    commands.add_parser("check", help="remove expired backups and check the others")
    commands.add_parser("drill", help="restore the last one beside what is there, and compare")
    commands.add_parser("list", help="the backups of this host")
    commands.add_parser("status", help="the result of the last runs, as JSON")
    begin = commands.add_parser("restore-begin", help="choose the backup that bitrix-cdn restore restores")
    begin.add_argument("snapshot")
    begin.add_argument("--without-pictures", action="store_true")
    begin.add_argument(
        "--another", action="store_true", help="even if a restore of another one was interrupted"
    )
    commands.add_parser("restore-before", help="restore keys, certificates and pictures, before a deploy")
    commands.add_parser("restore-data", help="restore the data of the services, after a deploy")
    for name in ("list", "restore-begin"):
        commands.choices[name].add_argument("--json", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    try:
        _run(load(), options)
    except BackupError as failure:
        print(f"bitrix-cdn-backup: {failure}", file=sys.stderr)
        return int(failure.status)
    except OSError as error:
        full = error.strerror in {"No space left on device", "Disk quota exceeded"}
        print(f"bitrix-cdn-backup: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return int(Status.DISK_FULL if full else Status.FAILED)
    return 0


def _run(config: Config, options: argparse.Namespace) -> None:
    match options.command:
        case "run":
            print(_summary(run.backup(config)))
        case "check":
            run.check(config)
            print("the repository is whole")
        case "drill":
            state = run.drill(config)
            print(f"backup restored: {state.drilled} files are what was saved")
        case "list":
            found = restore.snapshots(config)
            if options.json:
                print(json.dumps(found))
            else:
                for one in found:
                    kind = "with pictures" if one["pictures"] else ""
                    print(f"{one['id'][:8]}  {one['time']}  {one['size']:>15,}  {kind}".rstrip())
        case "status":
            print(json.dumps({**asdict(State.load(Path(config.state))), **restore.status(config)}))
        case "restore-begin":
            begun = restore.begin(
                config, options.snapshot, pictures=not options.without_pictures, another=options.another
            )
            print(
                json.dumps({"snapshot": begun.snapshot, "time": begun.time, "pictures": begun.pictures})
                if options.json
                else f"{begun.snapshot[:8]} of {begun.time}"
            )
        case "restore-before":
            restore.before(config, _say)
        case "restore-data":
            restore.data(config, _say)


def _say(text: str) -> None:
    print(text, flush=True)


def _summary(state: State) -> str:
    gone = f", {state.vanished} files vanished meanwhile" if state.vanished else ""
    return (
        f"snapshot {state.snapshot[:8]}: {state.size:,} bytes, {state.added:,} of them new, "
        f"{state.backup.seconds:.0f} s{gone}"
    )

"""`python -m dev.lab`: the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from dev.lab import guest, layout, lifecycle, machine, state
from dev.lab.errors import LabError, UsageError
from dev.lab.layout import Layout
from dev.lab.lifecycle import Progress

_EPILOG = """\
LAB_NAME names the lab (default: lab); labs of different names run side by side.
Exit status: 0, 1 for a failure, 2 for a wrong command or something this machine lacks;
`exec` ends as the command did.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.lab",
        description="Real Debian hosts on this machine, booted by systemd-nspawn.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="have all hosts running")
    up.add_argument("--suite", choices=state.SUITES, help="Debian release of a new lab (default: trixie)")
    up.add_argument(
        "--host", nargs="+", action="extend", default=[], help="further hosts, beside bitrix and cdn"
    )
    status = commands.add_parser("status", help="names, addresses, state")
    status.add_argument("--json", action="store_true", help="as JSON")
    execute = commands.add_parser("exec", help="run a command on a host, without its network")
    execute.add_argument("host")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    for name, text in (
        ("partition", "cut a host off from the others and the outside, silently"),
        ("heal", "join it again"),
        ("kill", "take its power"),
        ("start", "power it on"),
        ("reset", "bring it back to the bare base image"),
    ):
        commands.add_parser(name, help=text).add_argument("host")
    commands.add_parser("down", help="remove the lab")
    commands.add_parser("packages", help="print the Debian packages that the lab needs here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    progress = Progress(_say)
    os.umask(0o022)
    try:
        return _run(options, progress)
    except LabError as error:
        _say(f"lab: {error}")
        return error.status
    except OSError as error:  # a full disk, a file that is no directory
        _say(f"lab: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    # Imported where needed: `exec`, which tests call often, starts in half the time without.
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def _run(options: argparse.Namespace, progress: Progress) -> int:
    if options.command == "packages":
        print("\n".join(machine.packages()))
        return 0
    files = Layout(layout.lab_name())
    match options.command:
        case "up":
            lifecycle.up(files, options.suite, options.host, progress)
        case "down":
            lifecycle.down(files, progress)
        case "status":
            _status(as_json=options.json)
        case "exec":
            return _exec(files, options.host, options.argv)
        case "partition":
            lifecycle.partition(files, options.host, progress)
        case "heal":
            lifecycle.heal(files, options.host, progress)
        case "kill":
            lifecycle.kill(files, options.host, progress)
        case "start":
            lifecycle.start(files, options.host, progress)
        case "reset":
            lifecycle.reset(files, options.host, progress)
    return 0


def _status(*, as_json: bool) -> None:
    machine.require_root()
    lab = state.load()
    fields = ("name", "address", "state", "suite")
    rows = [{field: str(getattr(host, field)) for field in fields} for host in lab.hosts]
    if as_json:
        print(json.dumps({"hosts": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*fields, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def _exec(files: Layout, name: str, argv: Sequence[str]) -> int:
    command = argv[1:] if argv[:1] == ["--"] else argv
    if not command:
        raise UsageError("exec needs a command: python -m dev.lab exec HOST -- COMMAND...")
    machine.require_root()
    host = state.existing(files).host(name)
    line = guest.command_line(files, host, command)
    guest.enter_cgroup(files, host)
    sys.stdout.flush()
    os.execvp(line[0], line)  # noqa: S606 - streams, signals and status are the command's own

"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from host_agent.mount import guard, report, spool
from host_agent.mount.config import RUN, ConfigError, load
from host_agent.mount.machine import State


def _status(names: Sequence[str], as_json: bool) -> int:
    """Prints what the guards say; returns 0 when all of them are mounted, else 1."""
    found, closed = [], []
    try:
        guards = sorted(path.name for path in RUN.iterdir() if not names or path.name in names)
    except FileNotFoundError:
        guards = []
    except PermissionError:
        guards, closed = [], [str(RUN)]
    for name in guards:
        path = RUN / name / "status.json"
        try:
            found.append(report.read(path))
        except FileNotFoundError:
            pass  # it has just been started, or it ended
        except PermissionError:
            closed.append(str(path))
    for place in closed:
        print(f"mount-guard: {place} is closed to this account; ask as root", file=sys.stderr)
    if closed and not found:
        return 1
    if as_json:
        print(json.dumps([asdict(status) for status in found]))
    else:
        for status in found:
            print(report.sentence(status, time.time()))
    missing = [name for name in names if name not in {status.name for status in found}]
    for name in missing or ([] if found else ["any mount"]):
        print(f"no guard runs for {name}", file=sys.stderr)
    return int(bool(missing) or not found or any(status.state != State.MOUNTED for status in found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="mount-guard",
        description="Keeps sshfs mounts alive.",
        epilog="Exit status of `status`: 0 when all mounts are up, else 1.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "supervise a mount, as its service does"),
        ("detach", "take away what a guard that was killed has left"),
        ("push", "push the spool; started by `run` only"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("name", metavar="NAME", help="/etc/mount-guard/NAME.toml describes the mount")
        if name == "push":
            command.add_argument("remote", metavar="DESCRIPTOR", type=int, help="the mount, opened")
    status = commands.add_parser("status", help="what the guards of this host say")
    status.add_argument("names", nargs="*", metavar="NAME")
    status.add_argument("--json", action="store_true", help="the same for programs")
    options = parser.parse_args(arguments)
    if options.command == "status":
        return _status(options.names, options.json)
    if os.geteuid() != 0:
        print(f"mount-guard: {options.command} is for root alone", file=sys.stderr)
        return 2
    os.umask(0o022)  # root's own may be a stricter one; what is private says so itself
    try:
        config = load(options.name)
        if options.command == "run":
            return guard.Guard(config).run()
    except ConfigError as error:
        print(f"mount-guard: {error}", file=sys.stderr)
        return 2
    if options.command == "push":
        return spool.main(config, options.remote)
    guard.clean_up(config)
    return 0

"""`cdn-host release`: the converter's releases on this host. Its output is JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence

from host_agent.json_output import print_result
from host_agent.release import Releases


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="cdn-host release",
        description="The converter's releases on this host, as JSON.",
        epilog="Exit status: 0; 1 for a failure, such as a release that does not get healthy; 2 for a wrong "
        "command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="which there are, which is current, and which were")
    listing.add_argument("--keep", type=int, help="how many are kept: tells which of the rest nothing needs")
    commands.add_parser("prune", help="remove those").add_argument("keep", type=int, metavar="KEEP")
    switching = commands.add_parser(
        "switch", help="make one the current one, or take that back if it doesn't get healthy; deploys do"
    )
    switching.add_argument("wanted", type=json.loads)
    options = parser.parse_args(arguments)
    os.umask(0o022)
    releases = Releases()
    done: dict[str, Callable[[], object]] = {
        "list": lambda: releases.listed(options.keep)._asdict(),
        "prune": lambda: releases.prune(options.keep),
        "switch": lambda: _switch(releases, options.wanted),
    }
    return print_result(done[options.command])


def _switch(releases: Releases, wanted: dict[str, object]) -> object:
    # Only who needs it loads what asks the daemon.
    from host_agent.release.switch import Health, Switch, Wanted
    from host_agent.systemd import Systemd

    Switch(releases, Systemd(), Health()).to(Wanted(**wanted))  # type: ignore[arg-type]
    return releases.listed()._asdict()

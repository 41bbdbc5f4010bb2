"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence

from rich.console import Console

from bitrix_cdn.adopt import hosts, rsync
from bitrix_cdn.adopt.adopt import adopt
from bitrix_cdn.adopt.leave import leave
from bitrix_cdn.adopt.way import Way
from bitrix_cdn.fleet import HostError, keep_others_away
from bitrix_cdn.fleet.progress import Display


def _bandwidth(text: str) -> str:
    try:
        return rsync.bandwidth(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bitrix_cdn.adopt",
        description="Takes a live shop's pictures to the CDN host, and back.",
        epilog="Exit status: 0; 1 for a failure, after which the site works and the command may be run "
        "again; 2 for a wrong command; 130 when interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("adopt", "copy the site's resize_cache to the CDN host and mount it from there"),
        ("leave", "copy it back and stop the mount"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("inventory", help="the inventory that the site was deployed with")
        command.add_argument(
            "--bandwidth", type=_bandwidth, metavar="RATE", help="limit, such as 8M: MiB a second"
        )
        command.add_argument("--dry-run", action="store_true", help="check and count, change nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    # pyinfra and paramiko log what is reported here in one line.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    display = Display(Console())
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    way: Way | None = None
    try:
        way = Way(hosts.load(options.inventory), display, options.bandwidth)
        if not options.dry_run:
            keep_others_away((way.bitrix, way.cdn), options.command)
        run = adopt if options.command == "adopt" else leave
        return run(way, dry_run=options.dry_run)
    except HostError as error:
        errors.print(f"{options.command}: {error}", markup=False)
        _give_up(way)
        return 1
    except KeyboardInterrupt:
        errors.print(
            f"{options.command}: interrupted; the site goes on working, run the same command again to go on"
        )
        _give_up(way)
        return 130
    finally:
        if way is not None:
            way.bitrix.close()
            way.cdn.close()


def _give_up(way: Way | None) -> None:
    """Takes back what moving needed, as far as the hosts can be reached."""
    if way is not None:
        with contextlib.suppress(HostError, KeyboardInterrupt):
            way.close(done=False)

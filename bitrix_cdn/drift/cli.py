"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bitrix_cdn.drift.publish import publish
from bitrix_cdn.drift.report import FAILED, DriftError, as_json, as_junit
from bitrix_cdn.drift.run import check
from bitrix_cdn.drift.suggest import suggestion
from bitrix_cdn.drift.table import show
from bitrix_cdn.drift.timer import install


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Ends with another status than argparse's own 2, which here means that hosts differ."""
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bitrix_cdn.drift",
        description="Says where hosts differ from what their inventory describes; changes nothing.",
        epilog="Exit status: 0 no differences; 1 something could not be checked, or a wrong command; "
        "2 differences. `python -m bitrix_cdn.drift install-timer INVENTORY` has this machine do it "
        "each day.",
    )
    parser.add_argument("inventory", help="the inventory that the hosts are deployed with")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON: docs/drift.md")
    output.add_argument(
        "--suggest", action="store_true", help="print the settings that would allow what nobody declared"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit report as well")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--limit", nargs="+", action="extend", default=[], metavar="HOST", help="only these hosts or groups"
    )
    choice.add_argument(
        "--publish", action="store_true", help="tell Prometheus on the monitoring hosts the result"
    )
    return parser


def _timer_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bitrix_cdn.drift install-timer",
        description="Has systemd on this machine check the hosts at the times that settings.drift.calendar "
        "names, and tell Prometheus the result. Root installs it; it runs as the account that may deploy.",
    )
    parser.add_argument("inventory", help="the inventory that the hosts are deployed with")
    parser.add_argument(
        "--user",
        default=os.environ.get("SUDO_USER") or "root",
        help="the account that may log in to the hosts (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if given[:1] == ["install-timer"]:
            options = _timer_parser().parse_args(given[1:])
            print(install(options.inventory, options.user))
            return 0
        return _check(_parser().parse_args(given), errors)
    except (DriftError, OSError) as error:
        errors.print(f"drift: {error}", markup=False)
        return FAILED
    except KeyboardInterrupt:
        errors.print("drift: interrupted")
        return 130


def _check(options: argparse.Namespace, errors: Console) -> int:
    report = check(options.inventory, options.limit, everything=options.suggest)
    if options.junit:
        options.junit.write_bytes(as_junit(report))
    if options.suggest:
        print(suggestion(report))
    elif options.json:
        print(as_json(report))
    else:
        # In a file or a journal there is no width to keep to.
        show(report, Console(highlight=False, width=None if sys.stdout.isatty() else 140))
    if options.json or options.suggest:
        for host in report.hosts:
            if host.failed:
                errors.print(f"drift: {host.name}: could not be checked: {host.failed}", markup=False)
    if options.publish:
        publish(report)
    return report.status

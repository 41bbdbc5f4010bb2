"""`python -m dev.audit`: measures a deployed lab, prints the figures, and ends with 1 if one is missed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from bitrix_cdn.fleet import HostError
from bitrix_cdn.fleet.inventory import load
from dev.audit import hosts, network, packages
from dev.audit.limits import limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.audit", description=__doc__)
    parser.add_argument("--inventory", default="inventories/lab.py", help="of the lab (default: %(default)s)")
    parser.add_argument("--tools", type=Path, default=Path(".venv/audit/bin"), help="where the programs are")
    parser.add_argument(
        "--sbom", type=Path, metavar="DIRECTORY", help="also write what a release consists of"
    )
    parser.add_argument("--details", action="store_true", help="also what each figure is made of")
    options = parser.parse_args(arguments)
    wanted = limits()
    inventory = load(options.inventory)
    started, missed = time.monotonic(), []
    try:
        for remote in inventory.hosts.values():
            remote.connect()
        for figure in chain(
            network.reachable(inventory, wanted),
            network.ssh(inventory, wanted, options.tools),
            network.tls(inventory, wanted, options.tools),
            hosts.units(inventory, wanted),
            hosts.cis(inventory, wanted),
            hosts.lynis(inventory, wanted, options.tools),
            packages.advisories(wanted, options.tools),
        ):
            print(figure.line(), flush=True)
            missed += [] if figure.held else [figure]
            if options.details or not figure.held or figure.value is None:
                print(
                    *(f"    {line}" for line in figure.details), sep="\n", end="\n" if figure.details else ""
                )
        if options.sbom:
            print(*packages.bill_of_materials(options.sbom, options.tools), sep="\n")
    except HostError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    finally:
        inventory.close()
    verdict = f"{len(missed)} figures are missed" if missed else "all figures are held"
    print(f"{verdict}, after {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

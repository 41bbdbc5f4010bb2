"""`python -m hosts unlock INVENTORY`: takes the lock of each host from whoever has it, and says from whom."""

from __future__ import annotations

import argparse
import sys

from extensions.lock import break_script, look_script, parse
from hosts import HostError, load


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m hosts", description="Hosts of an inventory.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    unlock = commands.add_parser("unlock", help="take the lock of each host from whoever has it")
    unlock.add_argument("inventory", metavar="INVENTORY")
    options = parser.parse_args()
    try:
        inventory = load(options.inventory)
        for name, remote in inventory.hosts.items():
            remote.connect()
            holder = parse(remote.run(look_script(), check=False).text)
            if holder:
                remote.run(break_script())
            print(f"{name}: {f'taken from {holder}' if holder else 'nobody holds it'}")
        inventory.close()
    except HostError as error:
        print(f"unlock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

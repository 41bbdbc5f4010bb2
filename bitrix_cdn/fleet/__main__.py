"""`python -m bitrix_cdn.fleet check INVENTORY` tells what is wrong with an inventory, or its hosts.

`python -m bitrix_cdn.fleet unlock INVENTORY` takes the lock of each host from whoever has it, and says
from whom.
"""

from __future__ import annotations

import argparse
import sys

from bitrix_cdn.fleet import HostError, Inventory, load
from bitrix_cdn.fleet.lock import break_script, look_script, parse
from bitrix_cdn.settings.inventory import GROUPS


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bitrix_cdn.fleet", description="Hosts of an inventory.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="tell what is wrong with an inventory, or which hosts it has")
    check.set_defaults(run=_check)
    unlock = commands.add_parser("unlock", help="take the lock of each host from whoever has it")
    unlock.set_defaults(run=_unlock)
    for command in (check, unlock):
        command.add_argument("inventory", metavar="INVENTORY")
    options = parser.parse_args()
    try:
        inventory = load(options.inventory)
    except HostError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        options.run(inventory)
    except HostError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        inventory.close()
    return 0


def _check(inventory: Inventory) -> None:
    hosts = [
        f"{name} ({inventory.address(name)}; "
        f"{', '.join(group for group in GROUPS if name in inventory.groups.get(group, ()))})"
        for name in inventory.hosts
    ]
    print(f"{inventory.file}: {len(hosts)} hosts: {', '.join(hosts)}. Nothing was connected to.")


def _unlock(inventory: Inventory) -> None:
    for name, remote in inventory.hosts.items():
        remote.connect()
        holder = parse(remote.run(look_script(), check=False).text)
        if holder:
            remote.run(break_script())
        print(f"{name}: {f'taken from {holder}' if holder else 'nobody holds it'}")


if __name__ == "__main__":
    sys.exit(main())

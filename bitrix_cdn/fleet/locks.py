"""Who holds the hosts of an inventory, and how that ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.fleet.lock import break_script, look_script
from bitrix_cdn.fleet.remote import Remote
from host_agent.lock import Holder, parse


def holders(remotes: Iterable[Remote]) -> Iterator[tuple[Remote, Holder | None]]:
    """Who holds each host; None: nobody.

    :raises HostError: a host can't be asked.
    """
    for remote in remotes:
        remote.connect()
        yield remote, parse(remote.run(look_script(), check=False).text)


def take_away(remotes: Iterable[Remote], inventory: str) -> Iterator[tuple[Remote, Holder | None]]:
    """Takes each host's lock from whoever has it; tells who had it.

    :raises HostError: a host can't be reached.
    """
    for remote, holder in holders(remotes):
        if holder:
            with recorded([remote], f"lock break, from {holder}", inventory):
                remote.run(break_script())
        yield remote, holder

"""Reads and breaks the locks of an inventory's hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.fleet.lock import break_script, holder_script
from bitrix_cdn.fleet.remote import Remote
from host_agent.lock import Holder, parse


def holders(remotes: Iterable[Remote]) -> Iterator[tuple[Remote, Holder | None]]:
    """Each host with the holder of its lock; None: it is free.

    :raises HostError: a host can't be asked.
    """
    for remote in remotes:
        remote.connect()
        yield remote, parse(remote.run(holder_script(), check=False).text)


def break_locks(remotes: Iterable[Remote], inventory: str) -> Iterator[tuple[Remote, Holder | None]]:
    """Breaks each host's lock, and returns who had it.

    :raises HostError: a host can't be reached.
    """
    for remote, holder in holders(remotes):
        if holder:
            with recorded([remote], f"lock break, from {holder}", inventory):
                remote.run(break_script())
        yield remote, holder

"""`check`, `lock` and `log`: the hosts, who is changing them, and who did."""

from __future__ import annotations

from typing import Annotated

import typer

from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, group, session_of
from bitrix_cdn.fleet import HostError

lock = group("Shows or breaks the hosts' locks, which keep two runs from changing a host at once.")


def add_to(app: typer.Typer) -> None:
    app.command()(check)
    app.add_typer(lock, name="lock")
    app.command()(log)


def check(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> None:
    """Shows what is wrong with an inventory, or which hosts it has. Connects to nothing."""
    from bitrix_cdn.settings.inventory import GROUPS

    session = session_of(context)
    found = session.hosts
    hosts = {
        name: {
            "address": found.address(name),
            "groups": [group for group in GROUPS if name in found.groups.get(group, ())],
        }
        for name in found.hosts
    }
    session.result = {"inventory": found.file, "hosts": hosts}
    shown = [f"{name} ({one['address']}; {', '.join(one['groups'])})" for name, one in hosts.items()]
    session.say(f"{found.file}: {len(hosts)} hosts: {', '.join(shown)}. Nothing was connected to.")


@lock.command()
def show(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Shows who holds the lock of each host. (Default.)"""
    from bitrix_cdn.fleet.locks import holders

    session = session_of(context)
    session.result = {}
    for remote, holder in holders(session.chosen):
        session.result[remote.name] = str(holder) if holder else None
        session.say(f"{remote.name}: {f'held by {holder}' if holder else 'not locked'}")


@lock.command("break")
def break_(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Removes the lock of each host, whoever holds it. A run in progress there loses its connection."""
    from bitrix_cdn.fleet.locks import break_locks

    session = session_of(context)
    session.result = {}
    for remote, holder in break_locks(session.chosen, session.file):
        session.result[remote.name] = str(holder) if holder else None
        session.say(f"{remote.name}: {f'taken from {holder}' if holder else 'not locked'}")


def log(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    limit: Limit = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs that began since then: 2026-11-28, or 90m, 12h, 7d."),
    ] = None,
) -> None:
    """Shows who changed the hosts, when, with which command, and the result: their audit logs, by time."""
    from dataclasses import asdict

    from bitrix_cdn.status import history

    session = session_of(context)
    after = history.moment(since) if since else ""
    found = history.ask(session.hosts, session.hosts.chosen(session.limit))
    runs = [one for one in found.runs if one.began >= after]
    session.result = {"runs": [asdict(one) for one in runs], "broken": found.broken}
    for one in runs:
        for line in history.lines(one):
            session.say(line)
    if not runs:
        session.say("the audit logs have no such run")
    for error in found.failed:
        session.complain(error)
    for name, faults in found.broken.items():
        for fault in faults:
            session.complain(HostError(f"{name}: the audit log is broken: {fault}"))

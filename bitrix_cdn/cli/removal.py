"""`remove`: the hosts as they were before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, Session, session_of
from bitrix_cdn.fleet import RefusedError


def add_to(app: typer.Typer) -> None:
    app.command()(remove)


def remove(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    limit: Limit = None,
    purge_packages: Annotated[
        bool,
        typer.Option("--purge-packages", help="Also packages that were not there before, with their data."),
    ] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Also pictures, their variants, and backups that are on the host.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> int:
    """Removes the project from its hosts, after `leave`; shows first what there is, and asks."""
    from bitrix_cdn.removal import run

    session = session_of(context)
    session.advice = "run it again to finish"
    names = session.hosts.chosen(session.limit)
    run.refuse_if_needed(session.hosts)
    found = run.find(session.hosts, names, data=data)
    session.result = run.as_data(found) if session.json else None
    for name, one in found.items():
        for line in run.listed(name, one, purge=purge_packages):
            session.say(line)
    left = {name: one for name, one in found.items() if one.any or (purge_packages and one.packages)}
    if not left:
        return Exit.FINE
    if not yes:
        _consent(session, left)
    for name, done in run.remove(session.hosts, left, purge=purge_packages, data=data):
        session.say(f"{name}: {done}")
    return Exit.FINE


def _consent(session: Session, names: Iterable[str]) -> None:
    """Asks to type the name of each host.

    :raises RefusedError: it isn't.
    """
    for name in names:
        if not session.asks or typer.prompt(f"Type {name} to remove all of this there", default="") != name:
            raise RefusedError("nothing was removed: type the hosts' names, or give --yes")

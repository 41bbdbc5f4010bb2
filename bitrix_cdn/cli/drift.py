"""`drift`: where the hosts differ from their inventory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, group, is_terminal, session_of
from bitrix_cdn.fleet import HostError, UsageError

drift = group("Shows where the hosts differ from their inventory: docs/drift.md.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(drift, name="drift")


@drift.command()
def check(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    limit: Limit = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report as well.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Send the result to Prometheus on the monitoring hosts.")
    ] = False,
) -> int:
    """Compares the hosts with the inventory; changes nothing. (Default.)"""
    from bitrix_cdn.drift import run
    from bitrix_cdn.drift.publish import publish as tell
    from bitrix_cdn.drift.report import as_json as written
    from bitrix_cdn.drift.report import as_junit
    from bitrix_cdn.drift.table import show

    session = session_of(context)
    if publish and session.limit:
        raise UsageError("--publish reports all hosts, so it is not allowed with --limit")
    report = run.check(session.file, session.limit)
    if junit:
        junit.write_bytes(as_junit(report))
    if session.json:
        session.result = json.loads(written(report))
        for host in report.hosts:
            if host.failed:
                session.complain(HostError(f"{host.name}: could not be checked: {host.failed}"))
    else:
        # In a file or a journal there is no width to keep to.
        show(report, Console(highlight=False, width=None if is_terminal() else 140))
    if publish:
        tell(report)
    return report.status


@drift.command()
def allow(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> int:
    """Prints settings that allow what was found but is not declared: read them, then paste them."""
    from bitrix_cdn.drift import run
    from bitrix_cdn.drift.allowances import settings_section

    session = session_of(context)
    report = run.check(session.file, session.limit, everything=True)
    session.say(settings_section(report))
    for host in report.hosts:
        if host.failed:
            session.complain(HostError(f"{host.name}: could not be checked: {host.failed}"))
    return report.status


@drift.command()
def schedule(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    user: Annotated[
        str | None, typer.Option(metavar="ACCOUNT", help="The account that may log in to the hosts.")
    ] = None,
) -> None:
    """Makes systemd on this machine run the check at the times of settings.drift.calendar. Needs root."""
    from bitrix_cdn.drift.timer import install

    session = session_of(context)
    session.say(install(session.file, user or os.environ.get("SUDO_USER") or "root"))

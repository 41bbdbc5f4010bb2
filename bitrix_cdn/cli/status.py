"""`status` and `verify`: the state of the hosts, and whether visitors get what they should."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, session_of

if TYPE_CHECKING:
    from bitrix_cdn.status.facts import HostStatus


def add_to(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(status)


def status(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> int:
    """Shows the state of the hosts on one screen. Exit status 1: something needs attention."""
    from bitrix_cdn.status.ask import ask

    session = session_of(context)
    found = ask(session.hosts, session.hosts.chosen(session.limit))
    session.result = [{**asdict(one), "troubles": one.troubles} for one in found]
    for one in found:
        session.say(f"{one.name} ({', '.join(one.groups)})")
        for title, text in _lines(one):
            session.say(f"  {title:12} {text}")
        for trouble in one.troubles:
            session.say(f"  ! {trouble}")
    return Exit.FAILED if any(one.troubles for one in found) else Exit.FINE


def _lines(host: HostStatus) -> Iterator[tuple[str, str]]:
    if host.failed:
        return
    yield "units", f"{host.units - len(host.stopped)} of {host.units} run"
    for mount in host.mounts:
        waiting = f", {mount.spooled} files wait in the spool" if mount.spooled else ""
        yield "mount", f"{mount.path}: {mount.state}{waiting}"
    if host.queue:
        yield "queue", ", ".join(f"{name} {count}" for name, count in host.queue.items())
    if host.release:
        yield "release", host.release
    if host.hit_ratio is not None:
        yield "cache hits", f"{host.hit_ratio:.0%} in the last hour"
    yield "disk", ", ".join(f"{path} {full} %" for path, full in host.disk.items())
    if host.alerts is not None:
        yield "alerts", f"{len(host.alerts)} ring" if host.alerts else "none rings"
    if host.backup is not None:
        yield "backup", host.backup
    if host.certificate_days is not None:
        yield "certificate", f"{host.certificate_days} days left"
    if host.held:
        yield "lock", f"held by {host.held}"


def verify(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> int:
    """Checks from this machine what visitors get, and says what to do about each fault."""
    from bitrix_cdn.status.ask import ask
    from bitrix_cdn.status.verify import verify as check

    session = session_of(context)
    session.result = []
    for one in check(session.hosts, ask(session.hosts, list(session.hosts.hosts))):
        session.result.append(asdict(one))
        session.say(f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.found}")
        if not one.ok:
            session.say(f"      -> {one.remedy}")
    return Exit.FINE if all(one["ok"] for one in session.result) else Exit.FAILED

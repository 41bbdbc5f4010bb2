"""`rollout`: changes the hosts one by one, without interrupting visitors."""

from __future__ import annotations

from typing import Annotated

import typer

from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, group, session_of

rollout = group("Changes the hosts batch by batch, without interrupting visitors: docs/rollout.md.")

BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take over locked hosts, whoever holds them.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(rollout, name="rollout")


@rollout.command()
def start(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    batch: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Edges at a time.")] = 1,
    canary: Annotated[
        str | None, typer.Option(metavar="HOST", help="The host that comes first, alone.")
    ] = None,
    watch: Annotated[
        float,
        typer.Option(min=0, max=3600, metavar="SECONDS", help="How long a host's errors are watched."),
    ] = 30.0,
    idle: Annotated[
        float,
        typer.Option(
            min=1, max=3600, metavar="SECONDS", help="How long a drained host may keep connections."
        ),
    ] = 90.0,
    again: Annotated[
        bool, typer.Option("--again", help="Deploy also to hosts with nothing to change.")
    ] = False,
    break_lock: BreakLock = False,
) -> int:
    """Brings the hosts to the state of this tree, one by one; continues an interrupted rollout. (Default.)"""
    from bitrix_cdn.rollout.command import Chosen

    return _run(context, Chosen(batch, canary, watch, idle, again, break_lock=break_lock))


@rollout.command()
def undo(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    break_lock: BreakLock = False,
) -> int:
    """Undoes what an interrupted rollout left half changed."""
    from bitrix_cdn.rollout.command import Chosen

    return _run(context, Chosen(undo=True, break_lock=break_lock))


def _run(context: typer.Context, chosen: object) -> int:
    from bitrix_cdn.rollout.command import Chosen, Command

    assert isinstance(chosen, Chosen)
    session = session_of(context)
    session.advice = "nothing was changed"
    session.status = Exit(Command(session.hosts, chosen, session.say).run())
    return session.status


@rollout.command()
def status(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> None:
    """Shows how far the last rollout of this inventory from this machine is."""
    from dataclasses import asdict

    from bitrix_cdn.rollout.record import Record

    session = session_of(context)
    progress = Record(session.file).read()
    if progress is None:
        session.result = {}
        session.say(f"{session.file}: no rollout was started from this machine")
        return
    session.result = {key: value for key, value in asdict(progress).items() if key not in {"token", "before"}}
    session.say(f"began {progress.began}, brings state {progress.state}")
    for host, when in progress.finished.items():
        session.say(f"  {host}: finished {when}")
    if progress.batch:
        session.say(
            f"  {', '.join(progress.batch)}: in step {progress.step!r}; the next start or undo goes on"
        )
    elif progress.ended:
        session.say("  ended; nothing is left to be done")

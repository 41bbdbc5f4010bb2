"""`plan` and `apply`: what a deploy would change, and the deploy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, Session, session_of
from bitrix_cdn.fleet import UsageError

if TYPE_CHECKING:
    from bitrix_cdn.deploy.execute import Executed
    from bitrix_cdn.deploy.plan import Plan
    from bitrix_cdn.drift.report import Difference
    from bitrix_cdn.fleet.results import Step

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def add_to(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(apply)


def plan(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    limit: Limit = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the plan, for `apply FILE`.")
    ] = None,
) -> int:
    """Shows what a deploy would change, and changes nothing. Exit status 3: there are changes."""
    from bitrix_cdn.deploy import plan as plans

    session = session_of(context)
    found = plans.make(session.hosts, session.limit)
    if save:
        plans.save(found, save)
    session.result = plans.as_data(found) if session.json else None
    _show(session, found)
    if save:
        session.say(
            f"{save} has the plan, {found.hash}: `bitrix-cdn apply {save}` does that and nothing else"
        )
    return Exit.DIFFERENCES if found.count else Exit.FINE


def _show(session: Session, found: Plan) -> None:
    for name, differences in found.hosts.items():
        if not differences:
            session.say(f"{name}: nothing to change")
        for one in differences:
            session.say(f"{name}: {one.what}: {one.summary}  ({one.check})")
            if not session.json:
                _show_diff(session.out, one)
    changed, every = sum(map(bool, found.hosts.values())), len(found.hosts)
    said = f"{found.count} changes on {changed} of {every} hosts" if changed else ""
    session.say(said or f"nothing to change on {every} hosts")


def _show_diff(console: Console, one: Difference) -> None:
    for line in one.diff[2:]:
        console.print(Text(f"    {line}", _COLOURS.get(line[:1], "")))


def apply(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PLAN]", help="A saved plan: refused if the hosts or the sources have moved on since."
        ),
    ] = None,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    limit: Limit = None,
) -> None:
    """Deploys: brings the hosts to the state that the inventory describes."""
    from bitrix_cdn.deploy import plan as plans
    from bitrix_cdn.deploy.apply import apply as apply_plan

    session = session_of(context)
    session.advice = "run it again to finish"
    if file is None:
        show_execution(context, "deploy.py", session.hosts.chosen(session.limit))
    else:
        if session.limit:
            raise UsageError("--limit is the plan's own; it is not allowed with a plan")
        wanted = plans.read(file)
        session.inventory = wanted.inventory
        _show_run(context, lambda step: apply_plan(session.hosts, wanted, step))
    session.say("next: `bitrix-cdn verify` asks as visitors do; `bitrix-cdn status` shows how the hosts are")


def show_execution(
    context: typer.Context, operations: str, hosts: Sequence[str], data: Mapping[str, str] | None = None
) -> None:
    """Runs operations, with a line for each change and how far it is."""
    from bitrix_cdn.deploy.execute import execute

    file = session_of(context).file
    _show_run(context, lambda step: execute(file, operations, hosts, step, data=data))


def _show_run(context: typer.Context, run: Callable[[Callable[[Step], None]], Executed]) -> None:
    session = session_of(context)
    with session.out.status("connecting") if _moves(session) else _Still() as shown:

        def step(one: Step) -> None:
            if one.changed is None:
                shown.update(f"{one.number} of {one.total}: {one.name}")
            elif one.changed:
                session.say(f"{one.number:>3} of {one.total}  {', '.join(one.changed)}: {one.name}")

        done = run(step)
    session.result = {
        "changed": done.changed,
        "seconds": round(done.seconds, 1),
        "log": str(done.log),
    }
    count = sum(map(len, done.changed.values()))
    session.say(f"{_hosts(done.changed)}: {count} changes in {done.seconds:.0f} s")


def _hosts(names: Iterable[str]) -> str:
    return ", ".join(names)


def _moves(session: Session) -> bool:
    return session.out.is_terminal and not session.json


class _Still:
    """In place of what moves on a terminal."""

    def __enter__(self) -> _Still:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, text: str) -> None:
        pass

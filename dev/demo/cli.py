"""`bitrix-cdn demo`."""

from __future__ import annotations

import typer

from bitrix_cdn.cli.session import AsJson, session_of
from bitrix_cdn.fleet import UsageError


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(context: typer.Context, as_json: AsJson = False) -> None:
    """Uploads photographs through the lab's shop, and shows what each became; `make demo` makes the lab."""
    session = session_of(context)
    try:
        from dev.demo import run
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} isn't installed: `make venv` does it") from None
    shown = run.run(session.errors if session.json else session.out)
    session.result = shown.data()
    if not session.json:
        session.out.print(run.table(shown.outcomes))
        session.out.print(run.closing(shown), markup=True)

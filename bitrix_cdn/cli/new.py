"""`new`: the first inventory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitrix_cdn.cli.session import AsJson, session_of
from bitrix_cdn.fleet import UsageError

if TYPE_CHECKING:
    from bitrix_cdn.new.questions import Question


def add_to(app: typer.Typer) -> None:
    app.command()(new)


def new(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where it is written.")] = Path(
        "inventories/shop.py"
    ),
    as_json: AsJson = False,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answers, as TOML: nothing is asked; others are the defaults."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=ANSWER", help="An answer to one question; may be given again."),
    ] = None,
) -> None:
    """Asks questions, and writes a commented inventory. Overwrites nothing."""
    from bitrix_cdn.new.questions import answered
    from bitrix_cdn.new.russian import RUSSIAN
    from bitrix_cdn.new.write import given as read
    from bitrix_cdn.new.write import write

    session = session_of(context)
    session.advice = "nothing was written"
    if file.exists():
        raise UsageError(f"{file}: is there already; name another file, or move it away")
    known = read(answers, given or [])
    russian = (os.environ.get("LC_ALL") or os.environ.get("LANG") or "").startswith("ru")

    def ask(question: Question, usual: str | None) -> str:
        if answers or session.json:
            if usual is None:
                raise UsageError(f"{question.key}: an answer is needed: {question.text}")
            return usual
        while True:
            # An empty default is shown as none, and may be taken all the same.
            asked = RUSSIAN[question.key] if russian else question.text
            try:
                answer: str = typer.prompt(asked, default=usual or "", show_default=bool(usual), err=True)
            except typer.Abort:
                raise UsageError("the questions are not answered; nothing was written") from None
            if not (fault := question.fault(answer.strip())):
                return answer
            typer.echo(f"  {answer.strip()!r}: {fault}", err=True)

    write(answered(known, ask), file)
    session.result = {"inventory": str(file)} if session.json else None
    session.say(f"{file} is written. Next: bitrix-cdn check -i {file}; then plan, and apply")

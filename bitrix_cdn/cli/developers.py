"""`lab`, `demo`, `docs`: for work on the project; and `completion`."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from bitrix_cdn.cli.session import AsJson, session_of
from bitrix_cdn.fleet import UsageError


def add_to(app: typer.Typer) -> None:
    for name in ("lab", "demo"):
        try:
            import_module(f"dev.{name}.cli").add_to(app)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("dev"):
                raise
            app.command(name, context_settings=_ANYTHING, help="For work on the project; not here.")(_absent)
    app.command()(docs)
    app.command()(completion)


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def _absent(context: typer.Context, as_json: AsJson = False) -> None:
    session_of(context)
    raise UsageError("dev/ isn't installed here; it is in a clone of the project, after `make venv`")


class Shell(StrEnum):
    """Those that commands can be completed in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Prints the completion script of a shell: `source <(bitrix-cdn completion bash)`."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(
        prog_name="bitrix-cdn", complete_var="_BITRIX_CDN_COMPLETE", shell=shell.value
    )
    session = session_of(context)
    session.result = {"script": script}
    if not session.json:
        print(script)


def docs(
    context: typer.Context,
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit status 3 if a page is outdated.")
    ] = False,
) -> int:
    """Generates the pages of docs/ that come from the code."""
    from bitrix_cdn.cli.pages import old

    session = session_of(context)
    pages = old()
    for path, text in pages.items():
        session.say(f"{path}: {'is outdated' if check else 'written'}")
        if not check:
            path.write_text(text)
    return 3 if check and pages else 0

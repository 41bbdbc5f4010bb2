"""`lab`, `demo`, `docs`: for work on the project; and `completion`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from bitrix_cdn.cli.session import AsJson, session_of

_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_to(app: typer.Typer) -> None:
    app.command(context_settings=_ANYTHING)(lab)
    app.command(context_settings=_ANYTHING)(demo)
    app.command()(docs)
    app.command()(completion)


def lab(context: typer.Context) -> None:
    """Real Debian hosts on this machine: `bitrix-cdn lab --help`, docs/lab.md."""
    _become("dev.lab", context.args)


def demo(context: typer.Context) -> None:
    """Photographs through the lab's shop, and what each became: `make demo` does all of it."""
    _become("dev.demo", context.args)


def _become(module: str, arguments: list[str]) -> None:
    """Goes on as another program: its streams, signals and status are its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


class Shell(StrEnum):
    """Those that commands can be completed in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", show_default=False)]) -> None:
    """Prints what has a shell complete commands: `source <(bitrix-cdn completion bash)`."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(
        prog_name="bitrix-cdn", complete_var="_BITRIX_CDN_COMPLETE", shell=shell.value
    )
    print(script)


def docs(
    context: typer.Context,
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; 3 when a page is old.")] = False,
) -> int:
    """Makes the pages of docs/ that are made from the code."""
    from bitrix_cdn.cli.pages import old

    session = session_of(context)
    pages = old()
    for path, text in pages.items():
        session.say(f"{path}: {'is old' if check else 'written'}")
        if not check:
            path.write_text(text)
    return 3 if check and pages else 0

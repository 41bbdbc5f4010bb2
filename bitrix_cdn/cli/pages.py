"""The pages of docs/ that are made from the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from bitrix_cdn.cli.exits import HELP
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.settings import reference
from roles import footprints

_COMMANDS = f"""\
# The command

Made from `bitrix_cdn/cli/` by `bitrix-cdn docs`; a test compares them.

{HELP} An error is one line on standard error.

`-i` may stand before the command, too. `bitrix-cdn --install-completion` has the shell complete commands.
"""


def made() -> dict[Path, str]:
    """Each page, with what it must hold."""
    return {
        ROOT / "docs" / "settings.md": reference.page(),
        ROOT / "docs" / "footprints.md": footprints.document(),
        ROOT / "docs" / "commands.md": commands(),
    }


def old() -> dict[Path, str]:
    """Those that hold something else, or aren't there."""
    return {path: text for path, text in made().items() if not path.is_file() or path.read_text() != text}


def commands() -> str:
    """The page of all commands."""
    from bitrix_cdn.cli.main import app

    return "\n".join([_COMMANDS, *_of(get_command(app), "bitrix-cdn")])


def _of(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        typed = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _of(command, typed)
            continue
        arguments = [
            one.metavar or one.name.upper() for one in command.params if one.param_type_name == "argument"
        ]
        yield f"## `{' '.join([typed, *arguments])}`\n"
        yield f"{' '.join(command.help.split())}\n"
        options = [one for one in command.params if one.param_type_name == "option"]
        if options:
            yield "| option | |"
            yield "|---|---|"
        for one in options:
            given = "" if one.is_flag else f" {one.metavar or one.name.upper()}"
            default = f" (default: {one.default:g})" if isinstance(one.default, int | float) and given else ""
            yield f"| `{'`, `'.join(one.opts)}{given}` | {one.help}{default} |"
        if options:
            yield ""

"""Generates the pages of docs/ that come from the code."""

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

`-i` may stand before the command, too. `bitrix-cdn completion bash` prints the completion script for bash.
This page as a manual: `man docs/bitrix-cdn.1`.
"""


def made() -> dict[Path, str]:
    """Each page, with what it must hold."""
    return {
        ROOT / "docs" / "settings.md": reference.page(),
        ROOT / "docs" / "footprints.md": footprints.document(),
        ROOT / "docs" / "commands.md": commands(),
        ROOT / "docs" / "bitrix-cdn.1": manual(),
    }


def old() -> dict[Path, str]:
    """Those that hold something else, or aren't there."""
    return {path: text for path, text in made().items() if not path.is_file() or path.read_text() != text}


def commands() -> str:
    """The page of all commands."""
    from bitrix_cdn.cli.main import app

    return "\n".join([_COMMANDS, *_of(get_command(app), "bitrix-cdn")])


def manual() -> str:
    """The manual page, in roff."""
    from bitrix_cdn.cli.main import app

    return "\n".join([_MANUAL, *_entries(get_command(app)), _MANUAL_END])


_MANUAL = """\
.\\" Made from bitrix_cdn/cli/ by `bitrix-cdn docs`.
.TH BITRIX\\-CDN 1
.SH NAME
bitrix\\-cdn \\- pictures of a 1C\\-Bitrix shop on hosts of their own
.SH SYNOPSIS
.B bitrix\\-cdn
.RB [ \\-i
.IR FILE ]
.I COMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
Deploys, checks and changes the hosts that an inventory describes.
An error is one line on standard error.
.SH COMMANDS"""

_MANUAL_END = f"""\
.SH EXIT STATUS
{HELP.removeprefix("Exit status: ")}
.SH ENVIRONMENT
.TP
.B BITRIX_CDN_INVENTORY
The inventory, where
.B \\-i
does not name one.
.SH SEE ALSO
README.md and docs/ of the project.
"""


def leaves(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All commands below a group, each as it is typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path} {name}".strip())
        else:
            yield f"{path} {name}".strip(), command


def _arguments(command: Any) -> list[str]:
    taken = (one for one in command.params if one.param_type_name == "argument" and not one.hidden)
    return [one.metavar or one.name.upper() for one in taken]


def _options(command: Any) -> Iterator[tuple[list[str], str, str]]:
    """Of each option its names, what is given to it, and what it is for."""
    for one in command.params:
        if one.param_type_name == "option":
            given = "" if one.is_flag else one.metavar or one.name.upper()
            default = f" (default: {one.default:g})" if isinstance(one.default, int | float) and given else ""
            yield one.opts, given, f"{one.help}{default}"


def _entries(group: Any) -> Iterator[str]:
    for typed, command in leaves(group, "bitrix-cdn"):
        yield f".SS {_roff(' '.join([typed, *_arguments(command)]))}"
        yield _roff(" ".join(command.help.split()))
        for names, given, text in _options(command):
            shown = ", ".join(f"\\fB{_roff(name)}\\fR" for name in names)
            yield f".TP\n{shown}{f' {chr(92)}fI{_roff(given)}{chr(92)}fR' if given else ''}\n{_roff(text)}"


def _roff(text: str) -> str:
    """Text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _of(group: Any, path: str) -> Iterator[str]:
    for typed, command in leaves(group, path):
        yield f"## `{' '.join([typed, *_arguments(command)])}`\n"
        yield f"{' '.join(command.help.split())}\n"
        options = list(_options(command))
        if options:
            yield "| option | |"
            yield "|---|---|"
        for names, given, text in options:
            yield f"| `{'`, `'.join(names)}{f' {given}' if given else ''}` | {text} |"
        if options:
            yield ""

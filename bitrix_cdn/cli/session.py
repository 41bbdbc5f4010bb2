"""The common parts of all commands: their options, output and exit status."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bitrix_cdn.cli import exits
from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.fleet import UsageError
from bitrix_cdn.fleet.progress import Display

if TYPE_CHECKING:
    from bitrix_cdn.fleet import Inventory, Remote


class Session:
    """One run of the command. It is the context's `obj`."""

    def __init__(self) -> None:
        self.inventory: str | None = None
        self.json = False
        self.limit: list[str] = []
        self.command = "bitrix-cdn"
        """What an error begins with."""
        self.status: int = Exit.FINE
        self.result: Any = None
        """What `--json` prints; None: what was said."""
        self.advice = ""
        """What to say when it is interrupted."""
        self.out = _Output(highlight=False, soft_wrap=True, markup=False)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        self._said: list[str] = []
        self._loaded: Inventory | None = None

    @property
    def file(self) -> str:
        """The inventory.

        :raises UsageError: none is named.
        """
        if not self.inventory:
            raise UsageError("name the inventory: -i inventories/shop.py, or BITRIX_CDN_INVENTORY")
        return self.inventory

    @property
    def hosts(self) -> Inventory:
        """The inventory, read."""
        if self._loaded is None:
            from bitrix_cdn.fleet import load

            self._loaded = load(self.file)
        return self._loaded

    @property
    def chosen(self) -> list[Remote]:
        """The hosts that `--limit` names, or all."""
        return [self.hosts.hosts[name] for name in self.hosts.chosen(self.limit)]

    @property
    def display(self) -> Display:
        """For what shows how far it is: not in the way of programs that read JSON."""
        return _Shown(self)

    @property
    def asks(self) -> bool:
        """Whether there is somebody to answer."""
        return sys.stdin.isatty() and not self.json

    def say(self, text: str) -> None:
        """Prints a line; for programs, all lines come in the end."""
        self._said.append(text)
        if not self.json:
            self.out.print(text)

    def complain(self, error: BaseException) -> None:
        """Tells an error in its line, and remembers the status: that of the first counts."""
        # An inventory has a line for each of its mistakes.
        lines = str(error).splitlines() if isinstance(error, UsageError) else [str(error)]
        for line in lines or [""]:
            self.errors.print(f"{self.command}: {line}")
        self.status = self.status or exits.of(error)

    def end(self) -> int:
        """Closes what is open, prints what programs read, and returns the exit status."""
        if self._loaded is not None:
            self._loaded.close()
        if self.result is None and (self._said or self.status == Exit.FINE):
            self.result = {"status": Exit(self.status).name.lower(), "said": self._said}
        if self.json and self.result is not None:
            print(json.dumps(self.result, indent=2))
        return self.status


class _Output(Console):
    """Standard output, whose reader may go away."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Shown(Display):
    """A display whose lines are the session's."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.errors if session.json else session.out)
        self._session = session

    def say(self, text: str) -> None:
        self._session.say(text)


def session_of(context: typer.Context) -> Session:
    """The session of a command."""
    found: Session = context.find_root().obj
    found.command = (context.command_path.split()[1:] or [found.command])[0]
    return found


def _given(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Remembers a shared option, where it is given."""
    if value and not context.resilient_parsing:
        setattr(session_of(context), {"as_json": "json"}.get(parameter.name or "", parameter.name), value)
    return value


InventoryFile = Annotated[
    str | None,
    typer.Option(
        "--inventory",
        "-i",
        metavar="FILE",
        callback=_given,
        help="The inventory of the hosts; by default that of BITRIX_CDN_INVENTORY.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", callback=_given, help="For programs: one JSON document on standard output.")
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="HOST", callback=_given, help="Only this host or group; may be given again."
    ),
]


class Group(TyperGroup):
    """Commands of which one, the first, is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            first = next(iter(self.commands))
            meant = next((number for number, word in enumerate(args) if word in self.commands), None)
            args = [first, *args] if meant is None else [args[meant], *args[:meant], *args[meant + 1 :]]
        return super().parse_args(ctx, args)


def group(help: str) -> typer.Typer:
    """A group of commands whose first is the default."""
    return typer.Typer(cls=Group, help=help, rich_markup_mode=None, no_args_is_help=False)


def is_terminal() -> bool:
    """Whether a person looks at the output."""
    return sys.stdout.isatty()

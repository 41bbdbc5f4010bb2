"""How the command line shows things to people."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from webp_converter.wording import duration, moment, printable, share, size

__all__ = [
    "counted",
    "duration",
    "field",
    "moment",
    "path",
    "share",
    "show",
    "size",
    "table",
    "text",
]

Result = TypeVar("Result")
_PIPE_COLUMNS = 200


def path(name: bytes) -> Text:
    """A path on one line, whatever it is made of."""
    return Text(printable(name))


def text(words: str) -> Text:
    """Words on one line, taken literally."""
    return Text(printable(words))


def field(name: str, value: str | Text) -> Text:
    """One line of several: a name, and what it is."""
    shown = value if isinstance(value, Text) else text(value)
    return Text(f"{name:<12}").append_text(shown)


def table(title: str, *columns: str, numbers: int = 0) -> Table:
    """A table whose last `numbers` columns are aligned as numbers. Cells are folded rather than cut."""
    made = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        is_number = place >= len(columns) - numbers
        is_name = place == 0 and name != "picture"
        made.add_column(name, justify="right" if is_number else "left", no_wrap=is_name, overflow="fold")
    return made


def show(*things: Table | Text | str) -> None:
    # Nobody's window is what a pipe or a file has.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    for thing in things:
        if isinstance(thing, Table):
            console.print(thing)
        else:
            lines = [text(line) for line in thing.split("\n")] if isinstance(thing, str) else [thing]
            console.print(Text("\n").join(lines), soft_wrap=True)


def counted(what: str, work: Callable[[], Result], count: Callable[[], int], quiet: bool) -> Result:
    """Does something long, and shows on a terminal how far it is; with `quiet` it doesn't."""
    if quiet or not sys.stderr.isatty():
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,.0f}"), TimeElapsedColumn())
    thread = threading.Thread(target=run, daemon=True)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            progress.update(task, completed=count())
    if errors:
        raise errors[0]
    return results[0]

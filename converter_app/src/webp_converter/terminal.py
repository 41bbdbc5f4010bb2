"""Tables and texts of the command line, for people."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from webp_converter.base.formatting import duration, moment, printable, share, size

if TYPE_CHECKING:
    from webp_converter.api.models import AnswerModel, Explanation, OriginalModel, VariantModel
    from webp_converter.queue.jobs import Queued

__all__ = [
    "counted",
    "duration",
    "explain",
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


def path(name: str | bytes) -> Text:
    """A path on one line, whatever it is made of."""
    return Text(printable(os.fsencode(name)))


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
    # A pipe or a file has no window.
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


def explain(told: Explanation) -> None:
    """Shows why a picture is delivered as it is."""
    lines = [Text(printable(told.url), style="bold"), _sentence(told.why), Text()]
    where = "the CDN host" if told.kind == "resized" else "the site"
    parts = {
        "original": [_original(told.original, where)],
        "variants": [f"They lie in {told.directory}.", *map(_variant, told.variants)]
        if told.variants
        else ["There can be none."],
        "queue": _queue(told.queue),
        "varnish": [_cached(answer) for answer in told.varnish]
        or ["Pictures of resize_cache/ don't go through it: nginx reads them from the disk."],
        "note": told.notes,
    }
    for name, sentences in parts.items():
        lines += [field("" if place else name, _sentence(words)) for place, words in enumerate(sentences)]
    columns = ("who asks nginx", "status", "type", "bytes", "variant", "Cache-Control")
    answers = table("", *columns)
    for answer in told.visitors:
        if answer.problem:
            answers.add_row(answer.who, text(answer.problem))
            continue
        size_ = "" if answer.bytes is None else f"{answer.bytes:,}"
        said = (answer.status, answer.type, size_, answer.variant, answer.cache_control)
        answers.add_row(answer.who, *(text(str("" if value is None else value)) for value in said))
    show(*lines, answers)


def _sentence(words: str) -> Text:
    """Words that may have a path in them."""
    return path(words)


def _original(original: OriginalModel, where: str) -> str:
    if original.present is None:
        return f"{original.path}: {original.problem}."
    if not original.present:
        return f"{original.path} isn't there."
    looks = "" if original.format is None else f"{original.format}, {original.width}x{original.height}, "
    written = "" if original.modified_at is None else f", written {moment(original.modified_at)}"
    return f"{original.path} is on {where}: {looks}{original.bytes:,} bytes{written}."


def _variant(variant: VariantModel) -> str:
    if variant.state == "missing":
        return f"{variant.name} isn't there."
    if variant.state == "foreign":
        return f"{variant.name} bears no mark of ours: somebody else made it, {variant.bytes:,} bytes."
    states = {"fresh": "fresh", "stale": "stale: it was made of another content"}
    like = "" if variant.ssim is None else f", SSIM {variant.ssim:.4f}"
    mark = f"mark of version {variant.mark_version}: {variant.verdict}{like}"
    return f"{variant.name} is {states.get(variant.state, 'there')}; {variant.bytes:,} bytes, {mark}."


def _queue(queue: Queued) -> list[str]:
    if queue.problem:
        return [f"It can't be asked: {queue.problem}."]
    sentences = {
        "none": "It isn't in the queue.",
        "waiting": f"It waits in the stream {queue.stream}, since {duration(queue.age_s)}.",
        "running": f"{queue.consumer} works on it; it was queued {duration(queue.age_s)} ago.",
        "running-again": f"{queue.consumer} works on it, and it is queued again after that.",
        "put-off": f"It was put off, and is due in {duration(queue.due_s)}.",
    }
    tried = f" Workers failed on it {queue.tries} times so far." if queue.tries else ""
    told = [sentences[queue.state] + tried]
    if dead := queue.dead:
        when = moment(dead.given_up_at)
        told.append(
            f"Given up {when} after {dead.tries} tries: {dead.reason} (webp-converter dead show {dead.id})."
        )
    return told


def _cached(answer: AnswerModel) -> str:
    if answer.problem:
        return f"For {answer.who}: {answer.problem}."
    had = {
        "hit": f"it had a copy, {answer.age_s or 0} s old",
        "stale": f"it had a copy, {answer.age_s or 0} s old, and asks for a new one",
        "miss": "it had no copy, and has fetched one now",
    }
    said = had.get(answer.cache or "", "it says nothing of a copy")
    kind = answer.variant or "no variant"
    return f"For {answer.who}: {said}; {answer.status}, {answer.type}, {kind}."

"""The command line: `webp-converter`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import typer

from webp_converter import config as configuration
from webp_converter.base.names import is_variant
from webp_converter.config import DEFAULT_FILE, Config, ConfigError
from webp_converter.variants.store import StoreError

_EXIT_STATUS = (
    "Exit status: 0 success; 1 something failed, is left to do or can't be reached; "
    "2 the settings or the arguments are wrong. The help of each command says what 1 means."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=f"Converts pictures to WebP as they are written.\n\n{_EXIT_STATUS}",
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
)
config_app = typer.Typer(no_args_is_help=True, help="The settings.", rich_markup_mode=None)
dead_app = typer.Typer(no_args_is_help=True, help="Pictures that were given up.", rich_markup_mode=None)
app.add_typer(config_app, name="config")
app.add_typer(dead_app, name="dead")

ConfigFile = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, as `dead list` shows them.", metavar="[ID]...")]
LETTER_ID = re.compile(r"\d{1,15}-\d{1,10}", re.ASCII)


def _load(file: Path) -> Config:
    try:
        return configuration.load(file)
    except ConfigError as error:
        raise _stop(str(error), 2) from error


def _stop(message: str, status: int = 1) -> typer.Exit:
    """Prints the reason on one line; raise what it returns."""
    print(_plain(" ".join(message.split())), file=sys.stderr)
    return typer.Exit(status)


def _plain(text: str) -> str:
    """Text that can be printed, whatever bytes a path in it is made of."""
    return text.encode("utf-8", "backslashreplace").decode()


def _without_main_file() -> None:
    """A child process would otherwise import this script, and all that it needs, once more."""
    vars(sys.modules["__main__"]).pop("__file__", None)


@contextlib.contextmanager
def _reaching(settings: Config, section: str = "queue") -> Iterator[None]:
    """Ends with one line when Redis can't be reached, or the store can't be used."""
    import redis

    url = settings.queue.url if section == "queue" else settings.cache.url
    try:
        yield
    except redis.RedisError as error:
        raise _stop(f"{section}.url {url}: {error}") from error
    except (StoreError, OSError) as error:
        raise _stop(str(error)) from error


@app.command()
def run(config: ConfigFile = DEFAULT_FILE) -> None:
    """Runs the daemon in the foreground. Exit status 1: it can't start, or a part of it failed."""
    settings = _load(config)
    _without_main_file()
    from webp_converter.base import log
    from webp_converter.daemon import Daemon

    log.configure(settings.log.level)
    try:
        daemon = Daemon(settings)
    except (StoreError, OSError) as error:
        log.error("cannot start", reason=str(error))
        raise typer.Exit(1) from error
    raise typer.Exit(daemon.run())


@app.command()
def convert(
    paths: Annotated[list[Path], typer.Argument(help="Originals, or directories of them.")],
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Converts originals now, without queue and daemon. Exit status 1 when one is left undecided."""
    settings = _load(config)
    _without_main_file()
    from rich.console import Console
    from rich.progress import Progress

    from webp_converter import terminal
    from webp_converter.work import convert as conversion

    found: list[bytes] = []
    for path in paths:
        absolute = path.absolute()
        if not absolute.is_relative_to(settings.store.root):
            raise _stop(f"{path} lies outside of {settings.store.root}", 2)
        if not absolute.exists():
            raise _stop(f"{path}: no such file or directory", 2)
        if is_variant(path.name):
            raise _stop(f"{path} has the name of a variant, not of an original", 2)
        found += conversion.originals(settings, [os.fsencode(absolute)])
    columns = ("picture", "outcome", "bytes", "as WebP", "saved", "quality", "SSIM", "ms")
    table = terminal.table("", *columns, numbers=6)
    undecided = 0
    try:
        with Progress(console=Console(stderr=True), disable=as_json or not sys.stderr.isatty()) as progress:
            for done in progress.track(conversion.convert(settings, found), total=len(found)):
                undecided += not done.decided
                if as_json:
                    print(json.dumps(done.model_dump()), flush=True)
                    continue
                table.add_row(
                    terminal.path(done.path),
                    done.outcome + (" + avif" if done.avif_bytes else ""),
                    str(done.original_bytes or ""),
                    str(done.variant_bytes or ""),
                    f"{1 - done.variant_bytes / done.original_bytes:.1%}" if done.variant_bytes else "",
                    done.verdict,
                    f"{done.similarity:.4f}" if done.similarity is not None and done.variant_bytes else "",
                    str(done.encode_ms or ""),
                )
    except StoreError as error:
        raise _stop(str(error)) from error
    if not as_json:
        terminal.show(table)
    raise typer.Exit(1 if undecided else 0)


@app.command()
def explain(
    target: Annotated[str, typer.Argument(help="Its URL, the path in it, or a file.", metavar="URL|PATH")],
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Explains what is served for a picture: its files, the verdict, the queue, the caches, and the answers
    to browsers. Exit status 1 while it isn't decided, or when a part doesn't answer."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.api.explain import is_well
    from webp_converter.api.service import Service

    with _reaching(settings):
        try:
            told = Service(settings).explain(target)
        except ValueError as error:
            raise _stop(str(error), 2) from error
    if as_json:
        print(json.dumps(told.model_dump()))
    else:
        terminal.explain(told)
    raise typer.Exit(0 if is_well(told) else 1)


@app.command()
def scan(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Compares all originals with their variants, queues what is missing and removes what is stale. Exit
    status 1 when the queue can't be reached."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.events.scan import Tally, reconcile
    from webp_converter.queue.jobs import Jobs

    started = time.monotonic()
    tally = Tally()
    with _reaching(settings):
        Jobs(settings.queue).ping()
        work = lambda: reconcile(settings, tally=tally)  # noqa: E731
        terminal.counted("originals", work, lambda: tally.originals, as_json)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps({**tally.as_json(), "seconds": round(seconds, 3)}))
    else:
        done = f"{tally.queued} queued, {tally.removed} stale removed, {tally.evicted} evicted left alone"
        print(f"{tally.originals} originals: {done}, {seconds:.1f} s")
    raise typer.Exit(1 if tally.missed else 0)


@app.command()
def status(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Shows the state of the running daemon. Exit status 1 unless all of its parts work."""
    settings = _load(config)
    address = f"http://{settings.api.address}:{settings.api.port}/health"
    try:
        with urlopen(address, timeout=10) as answer:
            health: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        health = json.load(error)
    except (URLError, OSError) as error:
        raise _stop(f"{address}: {getattr(error, 'reason', error)}") from error
    if as_json:
        print(json.dumps(health))
    else:
        from webp_converter import terminal

        table = terminal.table(f"webp-converter: {health['status']}", "part", "state", "reason")
        for part, state in health["parts"].items():
            table.add_row(part, state["status"], state["reason"])
        queued = ", ".join(f"{stream} {length}" for stream, length in health["queue"].items())
        counts = f"{health['directories']} directories watched, {health['running']} jobs running"
        terminal.show(table, f"{counts}; {queued or 'queue unknown'}")
    raise typer.Exit(0 if health["status"] == "ok" else 1)


@app.command()
def stats(
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
    days: Annotated[int, typer.Option(min=0, max=3650, help="How many of the last days to list.")] = 7,
) -> None:
    """Shows what was converted and how much that saves, for all daemons on the same Redis. Exit status 1 when
    Redis can't be reached."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.variants.statistics import Statistics, Sums

    with _reaching(settings, "cache"):
        totals = Statistics(settings.cache).totals(days)
    if as_json:
        told: dict[str, Any] = {"since": totals.since, **totals.model_dump()}
        for day in told["days"].values():  # what follows from the rest has always been at its end here
            day |= {name: day.pop(name) for name in ("saved_bytes", "success_rate")}
        print(json.dumps(told))
        return

    def row(sums: Sums) -> list[str]:
        counts = [str(number) for number in (sums.converted, sums.kept, sums.failed)]
        numbers = (sums.original_bytes, sums.variant_bytes, sums.saved_bytes)
        sizes = [terminal.size(number) for number in numbers]
        return [*counts, *sizes, terminal.share(sums.saved_bytes, sums.original_bytes)]

    columns = ("converted", "kept", "failed", "originals", "variants", "saved", "share")
    since = f", since {terminal.moment(totals.since)}" if totals.since else ""
    table = terminal.table(f"Pictures, each counted once{since}", "format", *columns, numbers=7)
    for form, sums in totals.formats.items():
        table.add_row(form, *row(sums))
    table.add_section()
    table.add_row("all", *row(totals))
    terminal.show(table)
    if totals.days:
        by_day = terminal.table("Work of each day (UTC)", "day", *columns, "again", "evicted", numbers=9)
        for date, day in totals.days.items():
            by_day.add_row(date, *row(day), str(day.again), str(day.evicted))
        terminal.show(by_day)
    decided = totals.converted + totals.kept + totals.failed
    success = terminal.share(totals.converted + totals.kept, decided)
    terminal.show(f"success rate: {success or 'nothing is decided yet'}")
    terminal.show(f"evicted: {totals.evicted} variants, {terminal.size(totals.evicted_bytes)}")


@app.command()
def queue(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Shows how many jobs wait, for how long, which are in progress, and which are delayed. Exit status 1
    when Redis can't be reached."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.api.service import Service

    with _reaching(settings):
        view = Service(settings).overview()
    if as_json:
        print(json.dumps(view.model_dump()))
        return
    streams = terminal.table("Queue", "priority", "jobs", "under way", "oldest", numbers=3)
    for name, waiting in view.streams.items():
        oldest = terminal.duration(waiting.oldest_s)
        streams.add_row(name, str(waiting.length), str(waiting.under_way), oldest)
    streams.add_row("put off", str(view.later), "", "")
    streams.add_row("dead letters", str(view.dead), "", "")
    consumers = terminal.table("Daemons", "name", "under way", "last asked", numbers=2)
    for consumer in view.consumers:
        idle = f"{terminal.duration(consumer.idle_s)} ago"
        consumers.add_row(consumer.name, str(consumer.under_way), idle)
    terminal.show(streams, consumers)
    if view.running:
        running = terminal.table("Under way", "picture", "priority", "daemon", "idle", numbers=1)
        for job in view.running:
            idle = terminal.duration(job.idle_s)
            running.add_row(terminal.path(job.path), job.priority, job.consumer, idle)
        terminal.show(running)
    if view.next:
        later = terminal.table("Put off", "picture", "failures", "due in", numbers=2)
        for put_off in view.next:
            due = terminal.duration(put_off.due_s)
            later.add_row(terminal.path(put_off.path), str(put_off.tries), due)
        terminal.show(later)


@app.command()
def cleanup(
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only show what would be removed.")
    ] = False,
) -> None:
    """Removes variants that are stale, have no original or are not read, and files that killed runs left
    unfinished; queues what is then missing. Exit status 1 when something could not be removed, or with
    --dry-run when something would be."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.events.scan import Tally
    from webp_converter.variants.eviction import Eviction, Why
    from webp_converter.work import cleanup as cleaning

    tally, eviction = Tally(), Eviction()
    with _reaching(settings):
        done = terminal.counted(
            "pictures looked at",
            lambda: cleaning.cleanup(settings, dry_run, tally, eviction),
            lambda: tally.originals + eviction.pictures,
            as_json,
        )
    if as_json:
        print(json.dumps(done.model_dump()))
    else:
        table = terminal.table("Would go" if dry_run else "Removed", "what", "files", "on disk", numbers=2)
        for what, count in (
            ("stale or without an original", done.stale),
            ("unfinished, of killed runs", done.unfinished),
            (f"not read for {settings.store.evict_after_days} days", done.evicted[Why.AGE]),
            ("for lack of space", done.evicted[Why.SPACE]),
        ):
            table.add_row(what, str(count.files), terminal.size(count.bytes))
        terminal.show(table)
        if not dry_run:
            terminal.show(f"{done.queued} originals queued, {done.seconds:.1f} s")
        if done.missed:
            terminal.show(f"queue.url {settings.queue.url} can't be reached: nothing was queued")
        if done.refused:
            terminal.show(f"{done.refused} originals can't be marked: their variants stay")
        if done.missing_bytes:
            missing = terminal.size(done.missing_bytes)
            terminal.show(f"{missing} are missing to store.low_water, and nothing of ours is left")
    left = done.files if dry_run else done.missed or done.refused or done.missing_bytes
    raise typer.Exit(1 if left else 0)


@config_app.command("check")
def config_check(config: ConfigFile = DEFAULT_FILE) -> None:
    """Checks a settings file: exit status 0, or 2 and one line that says what is wrong."""
    _load(config)


@dead_app.command("list")
def dead_list(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Lists the pictures that were given up, the oldest first. Exit status 1 when there are any."""
    settings = _load(config)
    from webp_converter import terminal
    from webp_converter.api.service import Service

    with _reaching(settings):
        letters = list(Service(settings).all_letters())
    if as_json:
        print(json.dumps([letter.summary().model_dump() for letter in letters]))
    elif letters:
        table = terminal.table(f"{len(letters)} dead letters", "id", "picture", "reason", "tries", "when")
        for letter in letters:
            cells = (terminal.path(letter.path), terminal.text(letter.reason))
            table.add_row(letter.id, *cells, str(letter.tries), terminal.moment(letter.given_up_at))
        terminal.show(table, "`webp-converter dead show ID` tells more.")
    else:
        terminal.show("no dead letters")
    raise typer.Exit(1 if letters else 0)


@dead_app.command("show")
def dead_show(
    id: Annotated[str, typer.Argument(help="Id, as `dead list` shows it.")],
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Shows why a picture was given up, with the traceback and the command that retries it. Exit status 1
    when there is no such letter."""
    settings = _load(config)
    _check_ids([id])
    from webp_converter import terminal
    from webp_converter.api.service import Service, retry_command

    with _reaching(settings):
        letter = Service(settings).letter(id)
    if letter is None:
        raise _stop(f"no dead letter {id}")
    command = retry_command(letter, config)
    if as_json:
        print(json.dumps({**letter.model_dump(), "command": command}))
        return
    terminal.show(
        terminal.field("picture", terminal.path(letter.path)),
        terminal.field("reason", letter.reason),
        terminal.field("tries", str(letter.tries)),
        terminal.field("given up", f"{terminal.moment(letter.given_up_at)} by {letter.consumer or '?'}"),
        terminal.field("asked for", terminal.moment(letter.asked_at)),
        f"\n{letter.traceback or 'There is no traceback: the worker itself ended.'}",
        "\nHave it tried again:\n",
        f"    {command}",
    )


@dead_app.command("retry")
def dead_retry(
    ids: Ids = None,
    every: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Retries pictures that were given up, with the highest priority and all their tries. Exit status 1
    when one of the letters isn't there."""
    _settle(config, ids or [], every, as_json, "retried")


@dead_app.command("drop")
def dead_drop(
    ids: Ids = None,
    every: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    config: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Forgets that pictures were given up: they are not tried again until their originals change. Exit status
    1 when one of the letters isn't there."""
    _settle(config, ids or [], every, as_json, "dropped")


def _settle(config: Path, ids: list[str], every: bool, as_json: bool, what: str) -> None:
    settings = _load(config)
    if every == bool(ids):
        raise _stop("name the letters, or --all of them", 2)
    _check_ids(ids)
    from webp_converter import terminal
    from webp_converter.api.service import Service

    done: list[str] = []
    missing: list[str] = []
    with _reaching(settings):
        service = Service(settings)
        act = service.retry if what == "retried" else service.drop

        def work() -> None:
            found = service.all_letters() if every else map(service.letter, ids)
            for place, letter in enumerate(found):
                if letter is not None and act([letter]):
                    done.append(letter.id)
                elif not every:
                    missing.append(ids[place])

        terminal.counted(what, work, lambda: len(done), as_json)
    if as_json:
        print(json.dumps({what: done, "missing": missing}))
    else:
        print(f"{len(done)} {what}")
        for id in missing:
            print(f"no dead letter {id}", file=sys.stderr)
    raise typer.Exit(1 if missing else 0)


def _check_ids(ids: list[str]) -> None:
    for id in ids:
        if not LETTER_ID.fullmatch(id):
            raise _stop(f"{id!r} is no dead letter's id, such as 1795312800000-0", 2)


def main() -> None:
    app()

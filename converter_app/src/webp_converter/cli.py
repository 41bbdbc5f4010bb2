"""The command line: `webp-converter`. Exit status 2: the settings or the arguments are wrong."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import typer

from webp_converter import config as configuration
from webp_converter.config import Config, ConfigError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Converts pictures to WebP as they are written."
)
config_app = typer.Typer(no_args_is_help=True, help="The settings.")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
DEFAULT_FILE = Path("/etc/webp-converter/config.toml")


def _load(file: Path) -> Config:
    try:
        return configuration.load(file)
    except ConfigError as error:
        raise _stop(str(error), 2) from error


def _stop(message: str, status: int = 1) -> typer.Exit:
    """Says why on one line; raise what it returns."""
    print(message, file=sys.stderr)
    return typer.Exit(status)


def _without_main_file() -> None:
    """A child process would otherwise import this script, and all that it needs, once more."""
    vars(sys.modules["__main__"]).pop("__file__", None)


@app.command()
def run(config: ConfigFile = DEFAULT_FILE) -> None:
    """Runs the daemon in the foreground."""
    settings = _load(config)
    _without_main_file()
    from webp_converter import log
    from webp_converter.daemon import Daemon
    from webp_converter.store import StoreError

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
    from rich.table import Table

    from webp_converter import convert as conversion
    from webp_converter.store import StoreError

    found: list[bytes] = []
    for path in paths:
        absolute = path.absolute()
        if not absolute.is_relative_to(settings.store.root):
            raise _stop(f"{path} lies outside of {settings.store.root}", 2)
        if not absolute.exists():
            raise _stop(f"{path}: no such file or directory", 2)
        found += conversion.originals(settings, [os.fsencode(absolute)])
    table = Table("picture", "outcome", "bytes", "as WebP", "saved", "quality", "SSIM", "ms")
    undecided = 0
    try:
        with Progress(console=Console(stderr=True), disable=as_json or not sys.stderr.isatty()) as progress:
            for done in progress.track(conversion.convert(settings, found), total=len(found)):
                undecided += not done.decided
                if as_json:
                    print(json.dumps({**done._asdict(), "path": os.fsdecode(done.path)}))
                    continue
                saved = f"{1 - done.variant_bytes / done.original_bytes:.1%}" if done.variant_bytes else ""
                similarity = f"{done.similarity:.4f}" if done.variant_bytes else ""
                table.add_row(
                    _shown(done.path),
                    done.outcome + (" + avif" if done.avif_bytes else ""),
                    str(done.original_bytes or ""),
                    str(done.variant_bytes or ""),
                    saved,
                    done.verdict,
                    "" if math.isnan(done.similarity) else similarity,
                    str(done.encode_ms or ""),
                )
    except StoreError as error:
        raise _stop(str(error)) from error
    if not as_json:
        Console().print(table)
    raise typer.Exit(1 if undecided else 0)


@app.command()
def scan(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Compares all originals with their variants, queues what is missing and removes what is stale."""
    settings = _load(config)
    import redis

    from webp_converter.jobs import Jobs
    from webp_converter.scan import reconcile

    started = time.monotonic()
    try:
        Jobs(settings.queue).ping()
        tally = reconcile(settings)
    except redis.RedisError as error:
        raise _stop(f"queue.url {settings.queue.url}: {error}") from error
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps({**vars(tally), "seconds": round(seconds, 3)}))
    else:
        done = f"{tally.queued} queued, {tally.removed} stale removed"
        print(f"{tally.originals} originals: {done}, {seconds:.1f} s")
    raise typer.Exit(1 if tally.missed else 0)


@app.command()
def status(config: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Shows how the running daemon does. Exit status 1 unless all of it works."""
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
        from rich.console import Console
        from rich.table import Table

        table = Table("part", "state", "reason", title=f"webp-converter: {health['status']}")
        for part, state in health["parts"].items():
            table.add_row(part, state["status"], state["reason"])
        queued = ", ".join(f"{stream} {length}" for stream, length in health["queue"].items())
        Console().print(table)
        print(f"{health['directories']} directories watched, {health['running']} jobs running; {queued}")
    raise typer.Exit(0 if health["status"] == "ok" else 1)


@config_app.command("check")
def config_check(config: ConfigFile = DEFAULT_FILE) -> None:
    """Checks a settings file: exit status 0, or 2 and one line that says what is wrong."""
    _load(config)


def _shown(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "replace").decode()


def main() -> None:
    app()

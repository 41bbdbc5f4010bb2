"""The root of all commands, and their exit statuses."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bitrix_cdn.cli import (
    backup,
    console,
    deploys,
    developers,
    drift,
    hosts,
    moving,
    new,
    releases,
    removal,
    rollout,
    status,
)
from bitrix_cdn.cli.exits import HELP, Exit, foreseen
from bitrix_cdn.cli.session import InventoryFile, Session

app = typer.Typer(
    name="bitrix-cdn",
    help=f"The pictures of a 1C-Bitrix shop on their own hosts.\n\n{HELP}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"bitrix-cdn {version('bitrix-cdn')}")
        except PackageNotFoundError:
            print("bitrix-cdn, not installed: `make venv` does it")
        raise typer.Exit


@app.callback()
def everything(
    inventory: InventoryFile = None,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    pass


_GROUPS = (
    *(new, hosts, deploys, status, console, drift, rollout),
    *(moving, backup, releases, removal, developers),
)
for _module in _GROUPS:
    _module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    session = Session()
    session.inventory = os.environ.get("BITRIX_CDN_INVENTORY")
    if "_BITRIX_CDN_COMPLETE" in os.environ:
        # Typer knows the shells only together with its own options, which the command `completion` replaces.
        from typer._completion_classes import completion_init

        completion_init()
    # pyinfra and paramiko log what is reported here in one line.
    for library in ("paramiko", "pyinfra"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        status = app(args=given, prog_name="bitrix-cdn", standalone_mode=False, obj=session)
        if status == Exit.INTERRUPTED and session.status != Exit.INTERRUPTED:
            session.complain(KeyboardInterrupt(f"interrupted; {session.advice}".removesuffix("; ")))
        session.status = status or session.status
    except typer.TyperException as error:
        _usage(error)
        session.status = Exit(error.exit_code)
    except BrokenPipeError:
        return _unread()
    except SystemExit as ended:
        # Typer's own end where its output can't be written.
        if isinstance(ended.__context__, BrokenPipeError):
            return _unread()
        raise
    except Exception as error:
        if not foreseen(error):
            raise
        session.complain(error)
    try:
        status = session.end()
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    return status


def _unread() -> int:
    """Ends quietly when the output has no reader any more, with the status that a closed pipe causes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _usage(error: typer.TyperException) -> None:
    """Tells a wrong command in one line; one that is not complete gets the help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return
    path = context.command_path if context else "bitrix-cdn"
    message = " ".join(error.format_message().split())
    print(f"{path}: {message} (see `{path} --help`)", file=sys.stderr)

"""`console`: the control centre, in a browser on this machine: docs/console.md."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, Session, group, session_of
from bitrix_cdn.fleet import RefusedError, UsageError

if TYPE_CHECKING:
    from web_kit.accounts import Accounts
    from web_kit.audit import Audit

console = group("The control centre, in a browser on this machine: docs/console.md.")
user = typer.Typer(help="Who may log in to the console.", rich_markup_mode=None, no_args_is_help=True)

PORT = 8090
Port = Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Of loopback, where it listens.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(console, name="console")
    console.add_typer(user, name="user")


def database_file(inventory: str) -> Path:
    """Where the console of an inventory keeps its accounts and its log: for its owner alone."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    place = Path(inventory).resolve()
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return state / "bitrix-cdn" / "console" / f"{place.stem}-{digest}" / "console.db"


@console.command()
def run(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, port: Port = PORT
) -> None:
    """Runs the console until it is interrupted; prints its address. (Default.)"""
    import uvicorn
    from bitrix_console.alerts import sender
    from bitrix_console.app import create
    from bitrix_console.job_queue import starter
    from bitrix_console.pictures import explainer
    from bitrix_console.watcher import Fleet
    from web_kit.database import Database

    session = session_of(context)
    hosts = session.hosts
    # Before anything is made: what can't be listened at is told in one line.
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; name another") from None
    file = database_file(session.file)
    app = create(Database(file), Fleet(hosts), sender(hosts), starter(file, session.file), explainer(hosts))
    address = f"http://127.0.0.1:{port}"
    accounts: Accounts = app.state.kit.accounts
    if accounts.are_there:
        session.say(f"{address}/")
    else:
        session.say(
            f"the first admin sets a password here, once: {address}{_link(accounts, 'admin', 'admin')}"
        )
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", server_header=False, proxy_headers=False, timeout_graceful_shutdown=2
        )
    )
    server.run(sockets=[listener])


def _link(accounts: Accounts, name: str, role: str, *, reset: bool = False) -> str:
    """The path of an invitation.

    :raises RefusedError: it can't be made.
    """
    from web_kit.roles import Role

    from bitrix_cdn.fleet.lock import operator
    from web_kit import errors

    try:
        secret = accounts.invite(operator(), "this machine", name, Role(role), reset=reset)
    except ValueError:
        raise UsageError(f"--role {role}: {', '.join(Role)} are allowed") from None
    except errors.RefusedError as error:
        raise RefusedError(str(error)) from None
    return f"/invitation/{secret}"


def _audit(session: Session) -> tuple[Accounts, Audit]:
    from web_kit.accounts import Accounts
    from web_kit.audit import Audit
    from web_kit.database import Database

    if not Path(session.file).is_file():
        raise UsageError(f"{session.file}: no such inventory")
    database = Database(database_file(session.file))
    database.migrate("web_kit")
    audit = Audit(database)
    return Accounts(database, audit), audit


@user.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 of a-z, 0-9 and . _ @ -")],
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="viewer, operator, approver or admin.")
    ] = "viewer",
    reset: Annotated[
        bool, typer.Option("--reset", help="For one who is there: a new password, and no authenticator.")
    ] = False,
    port: Port = PORT,
) -> None:
    """Prints a link by which somebody sets a password, once, within a day."""
    session = session_of(context)
    accounts, _ = _audit(session)
    session.say(f"http://127.0.0.1:{port}{_link(accounts, name, role, reset=reset)}")


@console.command()
def verify(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    head: Annotated[
        str,
        typer.Option(
            metavar="HASH", help="The last hash of an earlier time, to see that no entry was cut off."
        ),
    ] = "",
) -> int:
    """Checks that the console's audit log is as it was written. Exit status 1: it isn't; says which entry."""
    session = session_of(context)
    _, audit = _audit(session)
    found = audit.verify(head)
    session.result = {"entries": found.count, "broken": found.broken, "head": found.head}
    if found.broken:
        session.say(f"entry {found.broken} is not as it was written, or is missing")
        return Exit.FAILED
    session.say(f"{found.count} entries, all as they were written; the last hash: {found.head}")
    return Exit.FINE

"""`backup` and `restore`: docs/backup.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bitrix_cdn.cli.session import AsJson, InventoryFile, Limit, Session, group, session_of

if TYPE_CHECKING:
    from bitrix_cdn.backup.fleet import Fleet

backup = group("Makes and checks encrypted backups of the hosts: docs/backup.md.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(backup, name="backup")
    app.command()(restore)


def _fleet(context: typer.Context) -> tuple[Session, Fleet]:
    from bitrix_cdn.backup.fleet import of

    session = session_of(context)
    session.advice = "run the same command again to continue"
    return session, of(session.hosts)


@backup.command()
def run(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Makes a backup of each host now. (Default.)"""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    tasks.run(fleet, session.limit, session.say, session.complain)


@backup.command("list")
def list_(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Lists the backups of each host."""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    session.result = tasks.snapshots(fleet, session.limit, session.complain)
    for line in tasks.listed(session.result):
        session.say(line)


@backup.command()
def check(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Removes expired backups and checks the others, as the timer does each week."""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    tasks.check(fleet, session.limit, session.say, session.complain)


@backup.command()
def drill(
    context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False, limit: Limit = None
) -> None:
    """Restores the last backups into a scratch directory and compares, as the timer does each week."""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    tasks.drill(fleet, session.limit, session.say, session.complain)


@backup.command()
def init(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> None:
    """Makes the password file that the settings name, once."""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    path = tasks.make_password(fleet)
    session.say(f"{path} is written. Keep a copy that survives the loss of this machine and of the hosts.")


def restore(
    context: typer.Context,
    host: Annotated[str | None, typer.Argument(help="By default the CDN host.", metavar="[HOST]")] = None,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    snapshot: Annotated[
        str, typer.Option(metavar="ID", help="The id of a backup, from `backup list`.")
    ] = "latest",
    without_pictures: Annotated[bool, typer.Option("--without-pictures", help="Leave them out.")] = False,
    host_key: Annotated[
        str | None,
        typer.Option(metavar="SHA256:...", help="Fingerprint of the Ed25519 key that the bare host shows."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a host that is in use.")] = False,
) -> None:
    """Restores a host from its backup, beginning with bare Debian."""
    from bitrix_cdn.backup import tasks

    session, fleet = _fleet(context)
    tasks.put_back(
        fleet,
        host,
        session.display,
        snapshot=snapshot,
        pictures=not without_pictures,
        fingerprint=host_key,
        force=force,
    )

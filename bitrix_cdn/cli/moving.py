"""`adopt` and `leave`: a live shop's pictures to the CDN host, and back."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from bitrix_cdn.cli.session import AsJson, InventoryFile, session_of


def _bandwidth(text: str | None) -> str | None:
    from bitrix_cdn.adopt import rsync

    try:
        return text and rsync.bandwidth(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Bandwidth = Annotated[
    str | None,
    typer.Option(metavar="RATE", callback=_bandwidth, help="Limit, such as 8M: MiB a second."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and count, change nothing.")]


def add_to(app: typer.Typer) -> None:
    app.command()(adopt)
    app.command()(leave)


def adopt(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    bandwidth: Bandwidth = None,
    dry_run: DryRun = False,
) -> int:
    """Copies the site's resize_cache to the CDN host while the shop is running, and mounts it."""
    return _move(context, "adopt", bandwidth, dry_run=dry_run)


def leave(
    context: typer.Context,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
    bandwidth: Bandwidth = None,
    dry_run: DryRun = False,
) -> int:
    """Copies the pictures back and stops the mount: the shop no longer uses the CDN."""
    return _move(context, "leave", bandwidth, dry_run=dry_run)


def _move(
    context: typer.Context, direction: Literal["adopt", "leave"], bandwidth: str | None, *, dry_run: bool
) -> int:
    from bitrix_cdn.adopt.moving import INTERRUPTED, move

    session = session_of(context)
    session.advice = INTERRUPTED
    return move(direction, session.hosts, session.display, bandwidth=bandwidth, dry_run=dry_run)

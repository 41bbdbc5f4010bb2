"""`release`, `keys` and `explain`: the converter's releases, the mounts' keys, and one picture."""

from __future__ import annotations

from typing import Annotated

import typer

from bitrix_cdn.cli.deploys import show_execution
from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.session import AsJson, InventoryFile, group, session_of
from bitrix_cdn.fleet import HostError

release = group("The converter's releases on the CDN host: docs/releases.md.")
keys = typer.Typer(
    help="The keys that the hosts' mounts log in with.", rich_markup_mode=None, no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(release, name="release")
    app.add_typer(keys, name="keys")
    app.command()(explain)


@release.command("list")
def list_(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> None:
    """Lists the releases that are installed, the current one first. (Default.)"""
    from roles.releases import Installed

    session = session_of(context)
    session.result = {}
    fact = Installed()
    for name in session.hosts.groups["cdn"]:
        remote = session.hosts.hosts[name]
        remote.connect()
        found = fact.process(remote.run(fact.command()).text.splitlines())
        others = [id for id in (*reversed(found.history), *found.complete) if id != found.current]
        ids = list(dict.fromkeys([found.current, *others] if found.current else others))
        session.result[name] = [
            {"id": id, "current": id == found.current, "was_current": id in found.history} for id in ids
        ]
        for id in ids:
            note = "current" if id == found.current else "was current" if id in found.history else "installed"
            session.say(f"{name}  {id}  {note}")
        if not ids:
            session.say(f"{name}: no release is installed")


@release.command()
def back(
    context: typer.Context,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="By default the one before; the beginning is enough.")
    ] = None,
    inventory: InventoryFile = None,
    as_json: AsJson = False,
) -> None:
    """Goes back to the release before, or to a named one, in seconds."""
    hosts = session_of(context).hosts.groups["cdn"]
    show_execution(context, "rollback.py", hosts, data={"release": wanted} if wanted else {})


@keys.command()
def rotate(context: typer.Context, inventory: InventoryFile = None, as_json: AsJson = False) -> None:
    """Replaces the SSH keys of the mounts, which stay up."""
    groups = session_of(context).hosts.groups
    show_execution(context, "rotate_keys.py", [*groups["bitrix"], *groups["cdn"]])


def explain(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="URL|PATH", help="Of a picture.")],
    inventory: InventoryFile = None,
    as_json: AsJson = False,
) -> int:
    """Shows which files a picture has, why, and what a browser gets, by asking the converter."""
    import json

    from bitrix_cdn.status.explain import ask

    session = session_of(context)
    remote, output = ask(session.hosts, what, as_json=session.json)
    if session.json and output.text:
        session.result = json.loads(output.text)
    elif output.text:
        session.say(output.text)
    if output.status and not output.text:
        session.complain(HostError(f"{remote.name}: {output.reason}"))
    return Exit.USAGE if output.status == 2 else Exit.FAILED if output.status else Exit.FINE

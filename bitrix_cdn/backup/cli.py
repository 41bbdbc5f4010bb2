"""The command line on the operator's machine."""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import PyinfraError
from rich.console import Console

from bitrix_cdn.backup import fleet
from bitrix_cdn.backup.fleet import Fleet, Member
from bitrix_cdn.backup.restoring import restore
from bitrix_cdn.fleet import HostError
from bitrix_cdn.fleet.progress import Display
from bitrix_cdn.fleet.progress import size as human
from bitrix_cdn.settings.backup import password_file, password_of
from host_agent.backup.errors import BackupError, Status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bitrix_cdn.backup",
        description="Backs hosts up and restores them: docs/backup.md.",
        epilog="Exit status: 0; 1 for a failure; 2 for a wrong command or an inventory without backups; 3: "
        "wrong password; 4: the repository is locked; 5: there is no repository, or it can't be reached; 6: "
        "no space left; 7: the host to restore is in use; 130 when interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "make a backup of each host now"),
        ("list", "the backups that there are"),
        ("check", "clear away what is no longer kept and check the rest, now"),
        ("restore", "put a host back as it was, from bare Debian on"),
        ("password", "make the file with the password, where the settings say"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("inventory", help="the inventory that the hosts were deployed with")
        if name != "password":
            command.add_argument(
                "--host", help="the host; by default " + ("the CDN host" if name == "restore" else "all")
            )
    put_back = commands.choices["restore"]
    put_back.add_argument("--snapshot", default="latest", metavar="ID", help="by default the latest")
    put_back.add_argument("--without-pictures", action="store_true", help="leave them out")
    put_back.add_argument(
        "--host-key", metavar="SHA256:...", help="fingerprint of the Ed25519 key that the bare host shows"
    )
    put_back.add_argument("--force", action="store_true", help="overwrite a host that is in use")
    commands.choices["list"].add_argument("--json", action="store_true", help="for programs")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    # pyinfra and paramiko log what is reported here in one line.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    logging.getLogger("pyinfra").setLevel(logging.CRITICAL)
    display = Display(Console())
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def complain(text: object) -> None:
        errors.print(f"backup: {text}", markup=False)

    everything: Fleet | None = None
    try:
        everything = fleet.load(options.inventory)
        return int(_COMMANDS[options.command](everything, display, complain, options))
    except BackupError as failure:
        complain(failure)
        return int(failure.status)
    except HostError as error:
        complain(error)
        return int(Status.FAILED)
    except PyinfraError as error:
        complain(error)
        return int(Status.USAGE)
    except KeyboardInterrupt:
        complain("interrupted; run the same command again to go on")
        return 130
    finally:
        if everything is not None:
            everything.close()


Complain = Callable[[object], None]


def _each(
    everything: Fleet,
    complain: Complain,
    options: argparse.Namespace,
    work: Callable[[Member], None],
) -> int:
    """Does something on one host after the other; the status of the first that fails is that of all."""
    status = 0
    for member in everything.chosen(options.host):
        try:
            fleet.connect(member, None)
            work(member)
        except BackupError as failure:
            complain(failure)
            status = status or int(failure.status)
        except HostError as error:
            complain(error)
            status = status or int(Status.FAILED)
    return status


def _run(everything: Fleet, display: Display, complain: Complain, options: argparse.Namespace) -> int:
    def work(member: Member) -> None:
        state = _start(member, "bitrix-cdn-backup", "backup")
        display.say(
            f"{member.name}: backup {state['snapshot'][:8]}, {human(state['size'])}, "
            f"{human(state['added'])} of it new, {state['backup']['seconds']:.0f} s"
        )

    return _each(everything, complain, options, work)


def _check(everything: Fleet, display: Display, complain: Complain, options: argparse.Namespace) -> int:
    def work(member: Member) -> None:
        state = _start(member, "bitrix-cdn-backup-check", "check")
        display.say(f"{member.name}: the repository is whole, {state['check']['seconds']:.0f} s")

    return _each(everything, complain, options, work)


def _start(member: Member, unit: str, task: str) -> dict[str, Any]:
    """Runs a unit to its end, in its sandbox, and returns what it left.

    :raises BackupError: it failed.
    """
    before = fleet.answer(member, "status")[task]["run"]
    started = member.remote.run(f"systemctl start {unit}.service", check=False)
    state: dict[str, Any] = fleet.answer(member, "status")
    after = state[task]
    if after["run"] == before:
        said = member.remote.run(f"journalctl -u {unit} -n 3 -o cat --no-pager", check=False).text
        line = next((line for line in said.splitlines() if "bitrix-cdn-backup: " in line), started.reason)
        raise BackupError(f"{member.name}: {line.removeprefix('bitrix-cdn-backup: ')}")
    if after["error"]:
        raise BackupError(f"{member.name}: {after['error']}", Status(after["status"]))
    return state


def _list(everything: Fleet, display: Display, complain: Complain, options: argparse.Namespace) -> int:
    found: dict[str, list[dict[str, Any]]] = {}

    def work(member: Member) -> None:
        # A host that is to be restored doesn't have it yet.
        if not fleet.deployed(member):
            fleet.prepare(member, everything.settings)
        found[member.name] = fleet.answer(member, "list", "--json")

    status = _each(everything, complain, options, work)
    if options.json:
        print(json.dumps(found))
        return status
    for name, snapshots in found.items():
        if not snapshots:
            display.say(f"{name}: none")
        for one in snapshots:
            kind = "  with pictures" if one["pictures"] else ""
            display.say(f"{name}  {one['id'][:8]}  {one['time'][:16]}Z  {human(one['size']):>8}{kind}")
    return status


def _restore(everything: Fleet, display: Display, complain: Complain, options: argparse.Namespace) -> int:
    name = options.host or next(one.name for one in everything.members.values() if "cdn" in one.groups)
    [member] = everything.chosen(name)
    password_of(everything.settings.backup)
    restore(
        everything,
        member,
        display,
        snapshot=options.snapshot,
        force=options.force,
        pictures=not options.without_pictures,
        fingerprint=options.host_key,
    )
    return 0


def _password(everything: Fleet, display: Display, complain: Complain, options: argparse.Namespace) -> int:
    path: Path | None = password_file(everything.settings.backup)
    if path is None:
        raise BackupError(
            f"{options.inventory}: settings.backup.password is not a file: PATH of one is allowed here",
            Status.USAGE,
        )
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BackupError(f"{path}: exists; what was backed up with it can't be read without it") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    with os.fdopen(file, "w") as opened:
        opened.write(f"{secrets.token_urlsafe(32)}\n")
    display.say(f"{path} is made. Copy it to where neither this machine nor the hosts can take it along.")
    return 0


_COMMANDS = {"run": _run, "list": _list, "check": _check, "restore": _restore, "password": _password}

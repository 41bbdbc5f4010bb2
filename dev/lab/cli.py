"""`bitrix-cdn lab`, which is `python -m dev.lab` too: a command of the lab each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bitrix_cdn.cli.session import AsJson, Session, session_of

if TYPE_CHECKING:
    from dev.lab.layout import Layout
    from dev.lab.lifecycle import Progress

lab = typer.Typer(
    help="Real Debian hosts on this machine, booted by systemd-nspawn. LAB_NAME names the lab "
    "(default: lab); labs of different names run side by side.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

_Host = Annotated[str, typer.Argument(metavar="HOST", show_default=False)]


def add_to(app: typer.Typer) -> None:
    app.add_typer(lab, name="lab")


@lab.callback()
def every(context: typer.Context) -> None:
    session_of(context)
    os.umask(0o022)


def _lab(context: typer.Context) -> tuple[Session, Layout, Progress]:
    from dev.lab import layout
    from dev.lab.lifecycle import Progress

    session = session_of(context)
    return session, layout.Layout(layout.lab_name()), Progress(session.say)


@lab.command()
def up(
    context: typer.Context,
    further: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    suite: Annotated[
        Literal["trixie", "bookworm"] | None,
        typer.Option(help="Debian release of a new lab; trixie by default."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST...", help="Further hosts, beside bitrix and cdn."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Starts all hosts of the lab."""
    from dev.lab import lifecycle

    session, files, progress = _lab(context)
    # `--host a b` is taken as well as `--host a --host b`.
    lifecycle.up(files, suite, [*(host or ()), *(further or ())], progress)
    if session.json:
        session.result = {"hosts": _hosts()}


@lab.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Shows the hosts: name, address, state, suite."""
    session, _, _ = _lab(context)
    rows = _hosts()
    session.result = {"hosts": rows}
    shown = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        session.say("  ".join(map(str.ljust, row, widths)).rstrip())


def _hosts() -> list[dict[str, str]]:
    from dev.lab import machine, state

    machine.require_root()
    fields = ("name", "address", "state", "suite")
    return [{field: str(getattr(host, field)) for field in fields} for host in state.load().hosts]


@lab.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    context: typer.Context,
    name: _Host,
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND...", show_default=False)] = None,
    as_json: AsJson = False,
) -> int:
    """Runs a command on a host, without its network, and exits with its status."""
    from dev.lab import guest, machine, state
    from dev.lab.errors import UsageError

    session, files, _ = _lab(context)
    words = (command or [])[1:] if (command or [])[:1] == ["--"] else command
    if not words:
        raise UsageError("exec needs a command: bitrix-cdn lab exec HOST -- COMMAND...")
    machine.require_root()
    host = state.existing(files).host(name)
    line = guest.command_line(files, host, words)
    guest.enter_cgroup(files, host)
    if not session.json:
        sys.stdout.flush()
        os.execvp(line[0], line)  # noqa: S606 - streams, signals and status are the command's own
    ended = subprocess.run(line, capture_output=True, check=False)
    out, errors = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
    session.result = {"status": ended.returncode, "out": out, "errors": errors}
    return ended.returncode


def _on_a_host(verb: str, help: str) -> None:
    """Adds a command that does one thing to one host."""

    def command(context: typer.Context, host: _Host, as_json: AsJson = False) -> None:
        from dev.lab import lifecycle

        _, files, progress = _lab(context)
        act: Any = getattr(lifecycle, verb)
        act(files, host, progress)

    lab.command(verb, help=help)(command)


for _verb, _help in {
    "partition": "Cuts a host off from the others and the outside, silently.",
    "heal": "Reconnects a host to the others.",
    "kill": "Powers a host off at once.",
    "start": "Powers a host on.",
    "reset": "Brings a host back to the bare base image.",
}.items():
    _on_a_host(_verb, _help)


@lab.command()
def down(context: typer.Context, as_json: AsJson = False) -> None:
    """Removes the lab."""
    from dev.lab import lifecycle

    _, files, progress = _lab(context)
    lifecycle.down(files, progress)


@lab.command()
def packages(context: typer.Context, as_json: AsJson = False) -> None:
    """Prints the Debian packages that the lab needs here."""
    from dev.lab import machine

    session = session_of(context)
    session.result = {"packages": machine.packages()}
    for package in machine.packages():
        session.say(package)

"""All replacements in pyinfra and its libraries, each with its reason; nothing is decided here.

Where pyinfra has a hook, the hook is used. `pyproject.toml` caps its version: before you raise it,
`tests/unit/engine/test_patches.py` shows what has changed.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import paramiko.client
import pyinfra
import pyinfra.connectors.util
from paramiko import Transport
from pyinfra.api import Host, arguments, facts
from pyinfra.connectors.ssh import SSHConnector

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes of a function another one that calls it."""


def connections(
    transport: type[Transport], every: Wrapper, commands: Wrapper, ask: Callable[[str], str]
) -> None:
    """Has pyinfra's SSH connections end, fail and begin as this project wants them to.

    :param transport: paramiko's client makes its own kind, which never notices that no answer comes, and
        has no setting for another one.
    :param every: around all that a connection does: pyinfra tells nothing of one that is lost.
    :param commands: around each command: pyinfra has no hook between the login and its first command.
    :param ask: for a password: pyinfra reads one from a pipe as well, and waits there for ever.
    """
    if paramiko.client.Transport is transport:  # type: ignore[attr-defined]
        return
    paramiko.client.Transport = transport  # type: ignore[attr-defined]
    for name in ("run_shell_command", "put_file", "get_file"):
        setattr(SSHConnector, name, every(getattr(SSHConnector, name)))
    SSHConnector.run_shell_command = commands(SSHConnector.run_shell_command)  # type: ignore[method-assign]
    pyinfra.connectors.util.getpass = ask  # type: ignore[assignment]
    if not logging.getLogger().handlers:
        # Unless it was asked for: a traceback for each connection that fails, which is reported in one line.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def as_command() -> None:
    """Makes pyinfra take this process for its own command.

    By its API alone, it orders operations by when each host came to them rather than by the lines of the
    deploy's file, and lets no file include another one.
    """
    pyinfra.is_cli = True


def command(name: str, function: Callable[..., Any]) -> None:
    """Has pyinfra's command, where this process is it, call another function.

    It ends with a traceback where an inventory is wrong, and takes one without hosts for a success.
    """
    cli = sys.modules.get("pyinfra_cli.cli")
    if cli is not None:
        assert hasattr(cli, name)
        setattr(cli, name, function)


def host(
    host: Host, *, get_fact: Callable[..., Any], run: Callable[..., Any], change: Callable[..., Any]
) -> None:
    """Makes all that pyinfra asks of a host and does to it pass functions that get the replaced one first.

    pyinfra calls back before and after an operation, but not for a fact or a command.
    """
    own: Any = host  # to mypy, methods are not for replacing
    own.get_fact = partial(get_fact, host.get_fact)
    own.run_shell_command = partial(run, host.run_shell_command)
    for name in ("put_file", "rsync"):
        setattr(own, name, partial(change, getattr(host, name)))


def disconnecting(host: Host, before: Callable[[], object]) -> None:
    """Calls a function before a host's connection ends: pyinfra calls back only afterwards."""
    disconnect = host.connector.disconnect

    def end() -> None:
        before()
        disconnect()

    vars(host.connector)["disconnect"] = end


def global_arguments() -> None:
    """Has pyinfra find out once which arguments all operations take.

    It did so for each operation and each fact, from the type hints of a class: a sixth of a run's time.
    """
    if not hasattr(arguments.all_global_arguments, "cache_info"):
        once = functools.cache(arguments.all_global_arguments)
        arguments.all_global_arguments = once
        facts.all_global_arguments = once


def deploy(filename: str) -> None:
    """Makes a deploy's file known as a module.

    pyinfra looks at the stack of each operation's call by `inspect`, which looks through all modules for that
    of each frame: in vain for a deploy's file, which isn't imported. That was an eighth of a run's time.
    """
    module = ModuleType(f"pyinfra deploy {filename}")
    module.__file__ = str(Path(filename).absolute())
    sys.modules.setdefault(module.__name__, module)

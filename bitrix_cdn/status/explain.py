"""Asks the converter about one picture."""

from __future__ import annotations

import shlex

from bitrix_cdn.fleet import Inventory, Output, Remote


def ask(
    inventory: Inventory, what: str, *, as_json: bool, silence: float | None = None
) -> tuple[Remote, Output]:
    """The host that was asked, and what it answers: which files a picture has, why, and what a browser gets.

    :param what: its URL, the path in it, or a file.
    :param silence: seconds without an answer after which it is given up; None: never.
    :raises HostError: the host can't be reached.
    """
    [name, *_] = inventory.groups["cdn"]
    remote = inventory.hosts[name]
    remote.connect()
    option = "--json " if as_json else ""
    line = f"webp-converter explain {option}-- {shlex.quote(what)}"
    return remote, remote.run(line, check=False, silence=silence)

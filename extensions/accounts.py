"""System accounts."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class Account(FactBase[dict[str, str]]):
    """What an account is: ``uid``, ``group`` (the name of its own), ``comment``, ``home`` and ``shell``.

    Empty: there is none. pyinfra's own `Users` asks several commands of every account of the host.
    """

    default = dict

    def command(self, user: str) -> str:
        u = shlex.quote(user)
        return f"getent passwd {u} && id -gn {u}; true"

    def process(self, output: Iterable[str]) -> dict[str, str]:
        entry, group = output
        _, _, uid, _, comment, home, shell = entry.split(":")
        return {"uid": uid, "group": group, "comment": comment, "home": home, "shell": shell}


@operation()
def account(
    user: str,
    home: str,
    shell: str,
    comment: str,
    uid: int | None = None,
    group: str | None = None,
    *,
    unique: bool = True,
    system: bool = False,
) -> Generator[StringCommand, None, None]:
    """Adds an account without making its home, or puts right what differs.

    + user: its name
    + home: its home directory
    + shell: its login shell
    + comment: what it is for
    + uid: its number; by default the next free one
    + group: the group of its own; by default one of the same name
    + unique: whether no other account may have the number
    + system: whether a free number is taken from those of the system's accounts
    """
    wanted = {"comment": comment, "home": home, "shell": shell}
    if uid is not None:
        wanted["uid"] = str(uid)
    if group is not None:
        wanted["group"] = group
    present = host.get_fact(Account, user=user)
    differing = {key: value for key, value in wanted.items() if present.get(key) != value}
    if not differing:
        host.noop(f"{user} is as it must be")
        return
    flags = {"uid": "-u", "group": "-g", "comment": "-c", "home": "-d", "shell": "-s"}
    words = ["usermod"] if present else ["useradd", "-M"]
    words += [word for key, value in differing.items() for word in (flags[key], value)]
    if not unique and "uid" in differing:
        words.append("-o")
    if system and not present:
        words.append("-r")
    yield StringCommand(shlex.join([*words, user]))

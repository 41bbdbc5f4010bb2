"""System accounts."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Sequence

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class Account(FactBase[dict[str, str]]):
    """What an account is: `uid`, `group` (its primary one), `comment`, `home` and `shell`.

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
    comment: str,
    home: str = "/nonexistent",
    shell: str = "/usr/sbin/nologin",
    group: str | None = None,
    *,
    twin_of: str = "",
    owns: Sequence[str] = (),
    system: bool = False,
) -> Generator[StringCommand, None, None]:
    """Adds an account without making its home, or puts right what differs.

    + user: its name
    + comment: what it is for
    + home: its home directory
    + shell: its login shell
    + group: its own group; by default one of the same name
    + twin_of: the account whose number it has, whatever that is; by default the next free one is its own
    + owns: directories in which its files follow it when its number changes
    + system: whether a free number is taken from those of the system's accounts
    """
    wanted = {"comment": comment, "home": home, "shell": shell}
    if twin_of:
        twin = host.get_fact(Account, user=twin_of)
        if not twin:
            yield StringCommand(f"echo {shlex.quote(f'there is no account {twin_of}')} >&2; exit 1")
            return
        wanted["uid"] = twin["uid"]
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
    if "uid" in differing:
        words.append("-o")
    if system and not present:
        words.append("-r")
    change = shlex.join([*words, user])
    if present and "uid" in differing:
        # usermod refuses while the account is logged in, and a mount logs in again at once.
        logins = f"pkill -KILL -U {present['uid']} -f {shlex.quote(f'^sshd[a-z-]*: {user}')}"
        change = f"for i in 1 2 3 4 5; do {logins}; ! {change} || break; [ $i != 5 ] || exit 1; done"
        if owns:
            places = shlex.join(owns)
            change += f"; find {places} -xdev -uid {present['uid']} -exec chown -h {twin_of or user} {{}} +"
    yield StringCommand(change)


class FilesOf(FactBase[list[str]]):
    """The files of an account in a directory."""

    default = list

    def command(self, user: str, directory: str) -> str:
        return (
            f"find {shlex.quote(directory)} -maxdepth 1 -type f -user {shlex.quote(user)} 2>/dev/null; true"
        )

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


@operation()
def follows(user: str, former: str, directory: str) -> Generator[StringCommand, None, None]:
    """Gives the files in a directory to the account that has taken the place of another one.

    + user: that account
    + former: the other one
    + directory: all its files belong to the account
    """
    if not host.get_fact(FilesOf, user=former, directory=directory):
        host.noop(f"{former} has no files in {directory}")
        return
    found = f"find {shlex.quote(directory)} -maxdepth 1 -type f -user {shlex.quote(former)}"
    yield StringCommand(f"{found} -exec chown -h {shlex.quote(user)} {{}} +")

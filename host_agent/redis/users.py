"""Writes the users of a Redis instance: their permissions and passwords.

`cdn-host redis-users INSTANCE` runs before each start, as root. With `--teach` it tells an instance that runs
and requires no password: so those who will have to give one can begin to before it insists.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from host_agent.json_output import AgentError
from host_agent.redis import INSTANCES, password_file, socket_of

_NOBODY = "user default off resetkeys resetchannels -@all"
_SHORTEST = 32
"""Characters of a password. Redis compares its hash, which must not be guessed."""


def users(rules: str, password_of: Callable[[str], Path]) -> list[list[str]]:
    """The users of an instance, each as the words behind `ACL SETUSER`.

    :param rules: a line for each: name, and what he may. Empty lines, and what begins with `#`, are no users.
    :param password_of: where the password of a user is.
    :raises AgentError: there is none.
    """
    found = []
    for line in rules.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, *may = line.split()
        file = password_of(name)
        try:
            password = file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AgentError(f"{file}: {getattr(error, 'strerror', None) or 'no password'}") from None
        if len(password) < _SHORTEST:
            raise AgentError(f"{file}: fewer than {_SHORTEST} characters; remove it and deploy")
        digest = hashlib.sha256(password.encode()).hexdigest()
        found.append([name, "reset", "on", f"#{digest}", *may])
    return found


def write(file: Path, found: Sequence[Sequence[str]], owner: str) -> None:
    """Writes what Redis reads at its start; only Redis may read it."""
    lines = [_NOBODY, *(f"user {' '.join(words)}" for words in found)]
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
    shutil.chown(new, owner, owner)
    new.replace(file)


def teach(socket: Path, found: Sequence[Sequence[str]]) -> None:
    """Has an instance that asks for no passwords know its users.

    :raises AgentError: it doesn't take one.
    """
    for words in found:
        command = ["redis-cli", "-s", str(socket), "acl", "setuser", *words]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.stdout.strip() != "OK":
            raise AgentError(f"{socket}: user {words[0]}: {(said.stdout or said.stderr).strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Does it for one instance of this host, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instance", choices=INSTANCES)
    parser.add_argument("--teach", action="store_true", help="tell the instance that runs")
    given = parser.parse_args(arguments)
    instance: str = given.instance
    try:
        rules = Path(f"/etc/redis/redis-{instance}.users").read_text()
        found = users(rules, lambda name: password_file(instance, name))
        if given.teach:
            teach(socket_of(instance), found)
        else:
            write(Path(f"/run/redis-{instance}/users.acl"), found, "redis")
    except (AgentError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0

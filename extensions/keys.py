"""Key pairs that are made on the hosts: only public halves travel."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class PublicKey(FactBase[str | None]):
    """The public half of an OpenSSH key, as ``type base64``, without its comment; None: no such key."""

    def command(self, path: str) -> str:
        return f"cat {shlex.quote(path)} 2>/dev/null; true"

    def process(self, output: Iterable[str]) -> str | None:
        words = " ".join(output).split()
        return " ".join(words[:2]) if len(words) >= 2 else None


@operation()
def key_pair(path: str, comment: str) -> Generator[StringCommand, None, None]:
    """Makes an Ed25519 key pair that never leaves the host.

    + path: of the private key; the public one gets `.pub` appended. Its directory is closed to others.
    + comment: what the key is for
    """
    if host.get_fact(PublicKey, path=f"{path}.pub"):
        host.noop(f"{path} exists")
        return
    quoted = shlex.quote(path)
    yield StringCommand(
        f"set -e; umask 077; install -d -m 700 $(dirname {quoted}); rm -f {quoted} {quoted}.pub; "
        f"ssh-keygen -q -t ed25519 -N '' -C {shlex.quote(comment)} -f {quoted}"
    )

"""Secrets that are made on the hosts. Only public keys leave the host; tokens never do."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.files import Paths

_EMPTY = hashlib.sha256(b"").hexdigest()


def fingerprint(line: str) -> str:
    """The SHA256 fingerprint of the key in a line of authorized_keys or a `.pub` file; empty: none."""
    found = re.search(r"(?:^|\s)(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+\s+(AAAA[A-Za-z0-9+/]+=*)", line)
    try:
        blob = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        blob = b""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}" if blob else ""


class PublicKey(FactBase[str | None]):
    """The public half of an OpenSSH key, as `type base64`, without its comment; None: no such key."""

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
    differences.manage(files=[path, f"{path}.pub"])
    if host.get_fact(PublicKey, path=f"{path}.pub"):
        host.noop(f"{path} exists")
        return
    quoted = shlex.quote(path)
    yield StringCommand(
        f"set -e; install -d -m 700 $(dirname {quoted}); umask 077; rm -f {quoted} {quoted}.pub; "
        f"ssh-keygen -q -t ed25519 -N '' -C {shlex.quote(comment)} -f {quoted}"
    )


@operation()
def token(path: str, owner: str) -> Generator[StringCommand, None, None]:
    """Makes a random token that never leaves the host, of 64 hexadecimal digits. One that is there is kept.

    + path: of the file
    + owner: the account that alone may read it, besides root; not a group, which others may be members of
    """
    differences.manage(files=[path])
    content, *access = host.get_fact(Paths, paths=[path]).get(path, (_EMPTY,))
    if content != _EMPTY and access == ["400", owner, "root"]:
        host.noop(f"{path} exists")
        return
    quoted, new = shlex.quote(path), shlex.quote(f"{path}.bitrix-cdn-new")
    yield StringCommand(
        f"set -e; mkdir -p -m 755 $(dirname {quoted}); umask 077; rm -f {new}; "
        f"if [ -s {quoted} ] && [ ! -L {quoted} ]; then cp {quoted} {new}; "
        f"else od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' > {new}; fi; "
        f"chown {owner}:root {new}; chmod 400 {new}; mv -fT {new} {quoted}"
    )

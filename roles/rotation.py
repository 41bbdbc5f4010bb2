"""New keys for the mounts without an outage: the other side accepts the new one before the old one goes."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from bitrix_cdn.engine.files import Existing, File, tree
from bitrix_cdn.engine.keys import PublicKey, key_pair
from bitrix_cdn.settings import Settings
from roles.mounts import SSH_CONFIG
from roles.sftp import KEY, accepted_account, trust
from roles.topology import peer

NEXT = f"{KEY}.next"


@deploy("Key rotation")
def rotation(settings: Settings) -> None:
    account = accepted_account(settings)
    key_pair(name="Create the next key", path=NEXT, comment=f"bitrix-cdn mount on {host.name}")
    accept_both(name="Accept both keys of the other host", account=account)
    use_next(name="Log in with the next key, then replace the old one by it")
    trust(name="Accept only the new key of the other host", account=account)


@operation()
def accept_both(account: str) -> Generator[StringCommand, None, None]:
    """Accepts the peer's present and next key.

    + account: the account of this host that the peer may use
    """
    other = peer()
    keys = [other.get_fact(PublicKey, path=path) for path in (f"{KEY}.pub", f"{NEXT}.pub")]
    if None in keys:
        yield StringCommand(f"echo '{other.name} lacks a key: deploy first' >&2; exit 1")
        return
    lines = "".join(f"restrict {key} {other.name}\n" for key in keys)
    yield from tree._inner(files=[File(f"/etc/ssh/authorized_keys.d/{account}", lines)])


@operation()
def use_next() -> Generator[StringCommand, None, None]:
    """Puts the next key in the place of the present one, once the other host has accepted it.

    The mount that is up keeps its session; the next connection uses the new key. A run that was cut short
    between the two renames is finished by the next one.
    """
    if not host.get_fact(Existing, paths=[NEXT, f"{NEXT}.pub"]):
        host.noop("there is no next key")
        return
    config, key, following = map(shlex.quote, (SSH_CONFIG, KEY, NEXT))
    yield StringCommand(
        f"set -e; if [ -e {following} ]; then t=$(mktemp); trap 'rm -f $t' EXIT; "
        f"sed 's|IdentityFile .*|IdentityFile {NEXT}|' {config} > $t; sftp -q -b /dev/null -F $t peer; "
        f"mv -f {following} {key}; fi; mv -f {following}.pub {key}.pub"
    )

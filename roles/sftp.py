"""Keys, trust and the two sftp accounts through which the hosts reach each other's files."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.accounts import account
from bitrix_cdn.engine.files import File, RealPath, directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.keys import PublicKey, key_pair
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles import agent
from roles.nginx import REFUSED
from roles.preflight import distribution
from roles.topology import HOST_KEY, peer

# The directory is closed to all but root; ssh reads both as root, in the service of the mount.
KEY = "/etc/bitrix-cdn/ssh/id_ed25519"
KNOWN_HOSTS = "/etc/bitrix-cdn/ssh/known_hosts"


def accepted_account(settings: Settings) -> str:
    """The account of this host that its peer logs in to."""
    return settings.sftp.cache_account if "cdn" in host.groups else settings.sftp.originals_account


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.sftp
    on_cdn = (own.cache_account,) if place.among("cdn") else ()
    on_site = (own.originals_account, place.settings.site.user) if place.among("bitrix") else ()
    keys = tuple(f"/etc/ssh/authorized_keys.d/{name}" for name in (*on_cdn, *on_site[:1]))
    upload = place.settings.site.upload
    private = (*(f"{upload}/{path}" for path in REFUSED), f"{upload}/support")
    exported = (f"{own.export}/upload", own.export, *private) if on_site else ()
    sentinel = (f"{upload}/{own.sentinel}",) if on_site else ()
    return Footprint(accounts=(*on_cdn, *on_site), owned=(*keys, *sentinel), empty=exported)


@deploy("Keys")
def keys() -> None:
    key_pair(
        name="Create the SSH key of this host's mount",
        path=KEY,
        comment=f"bitrix-cdn mount on {host.name}",
    )


@deploy("sftp")
def sftp(settings: Settings) -> None:
    if "cdn" in host.groups:
        account(
            name="Create the account that writes resize_cache, with www-data's uid",
            user=settings.sftp.cache_account,
            group="www-data",
            twin_of="www-data",
            owns=[settings.cdn.root, settings.cdn.variants],
            comment="Bitrix CDN, writes resize_cache over sftp",
        )
        # sshd refuses a chroot that anyone but root may write to, parents included.
        for path in (settings.cdn.root, settings.cdn.upload):
            directory(
                name=f"Give {path} to root, as sshd requires for a chroot",
                path=path,
                mode="755",
                user="root",
                group="root",
            )
        directory(
            name="Create resize_cache",
            path=settings.cdn.resize_cache,
            mode="755",
            user="www-data",
            group="www-data",
        )
    if "bitrix" in host.groups:
        account(
            name="Create the account that reads the originals",
            user=settings.sftp.originals_account,
            group=settings.site.group,
            system=True,
            comment="Bitrix CDN, reads upload over sftp",
        )
        directory(
            name="Create the chroot of the originals",
            path=settings.sftp.export,
            mode="755",
            user="root",
            group="root",
        )
        # systemd takes paths as they are written: it doesn't see the disk behind a symbolic link.
        places = [host.get_fact(RealPath, path=path) for path in (settings.site.upload, settings.sftp.export)]
        unit = rendered(
            "sftp",
            settings=settings,
            places=places,
            ssh_unit=distribution(settings).ssh_unit,
            export=f"{agent.COMMAND} export {settings.site.upload} {settings.sftp.sentinel}",
            private=" ".join(REFUSED),
        )
        tree(name="Write the unit that exports upload", files=unit, root="/etc/systemd")
        running(
            name="Export upload read-only, without the CDN's own mount",
            unit="originals-export.service",
            start=[file.path for file in unit],
        )
    trust(
        name="Accept the other host's key, and no other",
        account=accepted_account(settings),
    )


@operation()
def trust(account: str) -> Generator[StringCommand, None, None]:
    """Lets the peer's key in to an sftp account, and pins the peer's host key.

    Both public halves are read over the operator's own connections; nothing is taken from the network
    unseen. During a dry run on fresh hosts the peer's key isn't made yet: that counts as a change.

    + account: the account of this host that the peer may use
    """
    other = peer()
    accepted = f"/etc/ssh/authorized_keys.d/{account}"
    differences.manage(files=[accepted, KNOWN_HOSTS])
    if differences.wanted() and other in host.state.failed_hosts:
        host.noop(f"{other.name} can't be reached, so there is nothing to compare with")
        return
    key = other.get_fact(PublicKey, path=f"{KEY}.pub")
    host_key = other.get_fact(PublicKey, path=HOST_KEY)
    if not key or not host_key:
        missing = f"{KEY}.pub" if not key else HOST_KEY
        yield StringCommand(f"echo '{other.name} has no {missing}' >&2; exit 1")
        return
    yield from tree._inner(
        files=[
            File(accepted, f"restrict {key} {other.name}\n"),
            File(KNOWN_HOSTS, f"{other.name} {host_key}\n", "600"),
        ]
    )

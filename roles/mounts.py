"""The sshfs mounts and their guards: `resize_cache` on the site's host, the originals on the CDN host."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation

from bitrix_cdn.engine.files import RealPath, directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles import agent
from roles.nginx import GROUP
from roles.originals import ACCOUNT as READER
from roles.preflight import distribution
from roles.redis import TEXTFILES
from roles.sftp import KEY, KNOWN_HOSTS
from roles.topology import peer

UNIT = "/etc/systemd/system/mount-guard@.service"
SSH_CONFIG = "/etc/mount-guard/ssh_config"
COMMAND = "/usr/local/bin/mount-guard"

RESIZE_CACHE = "resize-cache"

# What the other host says are rights of a file, or a device, is none here: it may be somebody else's by now.
_INERT = "nosuid,nodev,noexec"

# What was measured best, see docs/sshfs.md.
OPTIONS = {
    # What is remembered of the other host is younger than any directory that the converter removes there:
    # with sshfs's own 20 s, PHP takes a directory for present that is gone, and fails to write into it.
    RESIZE_CACHE: f"{_INERT},allow_other,default_permissions,dcache_timeout=2",
    # No attribute cache: with one, a rewritten original is read as its new bytes cut to the old size, and
    # a deletion shows seconds late. Files are their reader's alone, whatever their modes are over there.
    "originals": f"ro,{_INERT},allow_other,default_permissions,umask=077,dir_cache=no,attr_timeout=0,"
    "entry_timeout=0,negative_timeout=0",
}


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not place.among("bitrix", "cdn"):
        return Footprint(trees=("/etc/mount-guard",), saved=("/etc/mount-guard",))
    cdn, metrics = place.settings.cdn, place.settings.mounts.metrics or TEXTFILES
    name = RESIZE_CACHE if place.among("bitrix") else "originals"
    return Footprint(
        trees=("/etc/mount-guard",),
        saved=("/etc/mount-guard",),
        packages=("rsync",),  # `adopt` and `leave` copy with it
        owned=("/etc/mount-guard", "/var/lib/mount-guard", f"{metrics}/mount_guard_{name}.prom"),
        empty=(cdn.originals, cdn.originals_parent) if place.among("cdn") else (),
    )


@deploy("Mounts")
def mounts(settings: Settings) -> None:
    if "bitrix" in host.groups:
        name, path = RESIZE_CACHE, settings.site.resize_cache
        account = settings.sftp.cache_account
    else:
        name, path = "originals", settings.cdn.originals
        account = settings.sftp.originals_account

    other = peer()
    configuration = rendered(
        "mounts",
        owners={COMMAND: ("755", "root", "root")},
        only=[f"/etc/mount-guard/{name}.toml", SSH_CONFIG, UNIT, COMMAND],
        settings=settings,
        agent=agent.COMMAND,
        mount_point=path,
        place=host.get_fact(RealPath, path=path.rpartition("/")[0]),
        options=OPTIONS[name],
        peer=other,
        address=literal(other.data.address),
        account=account,
        reader=READER,
        group=GROUP,
        key=KEY,
        known_hosts=KNOWN_HOSTS,
        ssh_unit=distribution(settings).ssh_unit,
    )
    tree(
        name="Write the mount guard's unit and settings",
        files=configuration,
        root="/",
    )
    if settings.mounts.metrics:
        directory(name="Create the directory for metrics", path=settings.mounts.metrics, mode="755")
    if "bitrix" in host.groups:
        # After the files are written: `bitrix-cdn adopt` starts the mount with them.
        leave_local_pictures_alone(name="Check that the mount hides no local pictures", path=path)
    running(
        name="Mount the other host's files",
        unit=unit_of(name),
        start=inputs(name),
        ready=ready(path),
        explain=explanation(name),
    )


def literal(address: str) -> str:
    """An address as it is; of a name, which its host may find elsewhere tomorrow, nothing."""
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        return ""


def unit_of(name: str) -> str:
    """The unit of a mount."""
    return f"mount-guard@{name}.service"


def inputs(name: str) -> list[str]:
    """The files that a mount is started with."""
    return [f"/etc/mount-guard/{name}.toml", SSH_CONFIG, UNIT, *agent.inputs("mount"), KNOWN_HOSTS]


def ready(path: str) -> str:
    """A command that succeeds when the mount over `path` answers."""
    # A mount that hangs is one that isn't ready; nothing must wait for it.
    return f"findmnt -n --mountpoint {path} >/dev/null && timeout 5 stat -f {path}"


def explanation(name: str) -> str:
    """A command that says why a mount isn't there."""
    return f"journalctl -u {unit_of(name)} -t mount-guard -n 3 --no-pager -o cat"


class LocalPictures(FactBase[int]):
    """How many files a directory holds on the host itself that no guard will push; counted to 1,000, and
    0 below a mount.

    Where a guard has been up over an empty directory, what is in it now was written during an outage.
    """

    def command(self, path: str) -> str:
        p = shlex.quote(path)
        return (
            f"[ -e /var/lib/mount-guard/{RESIZE_CACHE}/spool ] || findmnt -n --mountpoint {p} >/dev/null || "
            f"find -H {p} -type f 2>/dev/null | head -n 1000 | wc -l"
        )

    def process(self, output: list[str]) -> int:
        return int(output[0]) if output and output[0].isdigit() else 0


@operation()
def leave_local_pictures_alone(path: str) -> Generator[StringCommand, None, None]:
    """Fails when mounting over a directory would hide files from the site.

    + path: the mount point
    """
    count = host.get_fact(LocalPictures, path=path)
    if count:
        many = "1,000 or more files" if count >= 1000 else f"{count} files"
        message = (
            f"{path} holds {many}, which the mount would hide from the site; copy them to the CDN host with: "
            "bitrix-cdn adopt -i INVENTORY (then deploy again)"
        )
        yield StringCommand(f"echo {shlex.quote(message)} >&2; exit 1")
        return
    host.noop(f"{path} holds no files of its own")

"""Varnish: on the CDN host it caches originals and their variants, on an edge all pictures."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.types import mebibytes
from roles.nginx import SHIELD_PROBE, accepts, shield_of
from roles.preflight import machine
from roles.topology import LOOPBACK

DROP_IN = "/etc/systemd/system/varnish.service.d/bitrix-cdn.conf"
VCL = "/etc/varnish/default.vcl"


@dataclass(frozen=True)
class Source:
    """What a cache takes its pictures from, and how long it believes them; all times in seconds."""

    purpose: str
    name: str
    host: str
    port: int
    probe: str
    """The path that answers 200 as long as it can be asked."""

    first_byte_s: float
    """The longest wait for the beginning of an answer, and for each further part of it."""

    fresh_s: float
    """How long a picture is served without a question."""

    pending_s: float
    """The same for a picture whose variant is still to come."""

    behind_s: float
    """How long after that it is asked for behind a visitor's back; then the visitor waits for the answer."""

    whole_after: str = ""
    """The age, as VCL writes it, at which a picture is fetched again instead of compared; empty: never."""


def source_of_cdn(settings: Settings) -> Source:
    """The bulkhead that reads the originals, of which the converter tells when one changes."""
    own = settings.varnish
    return Source(
        purpose="Keeps the originals and their variants, fresh for a while and stale for as long as the "
        "site's host is away.",
        name="originals",
        host=LOOPBACK,
        port=settings.originals.port,
        probe="/health",
        first_byte_s=own.first_byte_s,
        fresh_s=own.fresh_s,
        pending_s=own.pending_s,
        behind_s=own.fresh_s,
    )


def source_of_edge(settings: Settings, shield: str) -> Source:
    """The CDN host, which tells an edge nothing by itself.

    So what visitors get is never older than `edges.fresh_s`; just before that it is compared behind their
    backs.

    :param shield: the CDN host's address.
    """
    own = settings.edges
    pending_s = min(own.pending_s, own.fresh_s)
    behind_s = pending_s / 2
    return Source(
        purpose="Keeps what the CDN host serves, and serves it for as long as that one is away.",
        name="shield",
        host=shield,
        port=own.shield_port,
        probe=SHIELD_PROBE,
        # Its own Varnish has waited by then, and the nginx in front of that.
        first_byte_s=settings.varnish.first_byte_s + 2,
        fresh_s=own.fresh_s - behind_s,
        pending_s=pending_s - behind_s,
        behind_s=behind_s,
        whole_after="1d",
    )


PACKAGES = ("varnish",)


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.varnish
    if not place.among("cdn", "edge"):
        return Footprint()
    ports = (Port(own.port, "host", "Varnish"), Port(own.console_port, "host", "Varnish's console"))
    return Footprint(ports, saved=("/etc/varnish",), packages=PACKAGES)


def configuration(
    settings: Settings, source: Source, memory: str, *, modern: bool = False
) -> dict[str, File]:
    """The files of a Varnish that keeps what a source serves, by path.

    :param memory: what it keeps pictures in, such as `256mb`.
    :param modern: whether it can limit what it fetches ahead of a visitor; Debian 12's can't.
    """
    files = rendered(
        "varnish",
        settings=settings,
        accepts=accepts,
        source=source,
        memory=memory,
        largest_mib=max(1, mebibytes(memory) // 8),
        modern=modern,
    )
    return {file.path: file for file in files}


@deploy("Varnish")
def varnish(settings: Settings) -> None:
    on_edge = "edge" in host.groups
    source = source_of_edge(settings, shield_of()) if on_edge else source_of_cdn(settings)
    memory = settings.edges.memory if on_edge else settings.varnish.memory
    files = configuration(settings, source, memory, modern=int(machine(settings)["version"]) >= 13)
    tree(name="Write Varnish's addresses and memory", files=[files[DROP_IN]], root="/etc/systemd")
    # After them: the package starts the service, which must never listen where it shouldn't.
    apt.packages(name="Install Varnish", packages=[*PACKAGES], no_recommends=True)
    tree(
        name="Write the VCL (checked by varnishd)",
        files=[files[VCL]],
        root="/etc/varnish",
        # It prints the program that it made of the VCL, or what is wrong with it, on the same stream.
        # In /tmp a host may forbid to load what it has compiled, and it may be its own account that writes.
        check="said=$(umask 022; TMPDIR=$(mktemp -d /var/lib/varnish/check.XXXXXX) || exit; export TMPDIR; "
        f"trap 'rm -rf $TMPDIR' EXIT; chmod 1777 $TMPDIR; varnishd -C -f {VCL} 2>&1) || "
        '{ echo "$said" | tail -n 20 >&2; false; }',
    )
    console = f"varnishadm -T {LOOPBACK}:{settings.varnish.console_port} -S /etc/varnish/secret"
    running(
        name="Run Varnish",
        unit="varnish.service",
        start=[DROP_IN],
        reload=[VCL],
        ready=f"{console} ping",
        # Anybody with the console can have it use another one.
        runs=f"{console} vcl.show $({console} vcl.list | awk '$1 == \"active\" {{ print $NF }}')",
    )

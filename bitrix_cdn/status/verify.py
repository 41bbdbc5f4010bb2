"""Requests from this machine what visitors request, and says what to do about each fault."""

from __future__ import annotations

import http.client
import re
import shlex
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from bitrix_cdn.engine.footprint import Place
from bitrix_cdn.fleet import HostError, Inventory
from bitrix_cdn.settings import Settings
from bitrix_cdn.status.facts import HostStatus
from roles.exporters import probe_picture, visible_name
from roles.footprints import footprints

_WITHIN = 5.0
AS_WEBP = "image/avif,image/webp,image/*;q=0.8,*/*;q=0.5"
AS_IT_IS = "image/png,image/jpeg,*/*;q=0.5"


@dataclass(frozen=True)
class Check:
    """One thing that must be right."""

    name: str
    found: str
    ok: bool
    remedy: str = ""
    """What to do; where all is right, nothing."""


def verify(inventory: Inventory, hosts: list[HostStatus]) -> Iterator[Check]:
    """Checks all of it, from what a visitor needs to what an operator must know.

    :param hosts: what they said of themselves.
    """
    settings = inventory.settings
    yield from names(settings)
    doors = _doors(inventory)
    for name in doors:
        address = inventory.hosts[name].login[0]
        own = frozenset(group for group, names in inventory.groups.items() if name in names)
        yield from ports(name, address, Place(settings, own))
        if settings.tls.enabled:
            yield certificate(name, address, settings)
    for name in doors[:1]:
        yield from pictures(inventory, name)
    for host in hosts:
        yield from of_host(host)


def _doors(inventory: Inventory) -> tuple[str, ...]:
    """The hosts that visitors come to: those in front."""
    groups = inventory.groups
    return next(groups[group] for group in ("balancer", "edge", "cdn") if groups.get(group))


def names(settings: Settings) -> Iterator[Check]:
    """Whether the names that visitors ask by lead anywhere."""
    for name in settings.nginx.server_names:
        if set(name) & set("_*"):
            continue
        try:
            found = sorted({str(one[4][0]) for one in socket.getaddrinfo(name, None)})
            yield Check(f"DNS of {name}", ", ".join(found), ok=True)
        except OSError as error:
            remedy = "add a record for it that leads to the CDN host, or take it out of nginx.server_names"
            yield Check(f"DNS of {name}", error.strerror or str(error), ok=False, remedy=remedy)


def ports(name: str, address: str, place: Place) -> Iterator[Check]:
    """Whether the ports for visitors are open from here, and those for the host alone are not."""
    settings = place.settings
    public = [settings.nginx.http_port] + ([settings.tls.port] if settings.tls.enabled else [])
    for port in public:
        remedy = (
            f"let visitors in: the firewall before {name}, then docs/runbooks/delivery.md#picturesnotserved"
        )
        is_open = _open(address, port)
        yield Check(f"{name}: port {port}", "open" if is_open else "closed", ok=is_open, remedy=remedy)
    private = [port for taken in footprints(place).values() for port in taken.ports if port.reach == "host"]
    seen = [f"{port.number} ({port.what})" for port in private if _open(address, port.number)]
    remedy = "close them before the host; then see what listens there: ss -ltnp"
    yield Check(f"{name}: other ports", ", ".join(seen) or "closed", ok=not seen, remedy=remedy)


def certificate(name: str, address: str, settings: Settings) -> Check:
    """Whether a browser would take the certificate."""
    host = visible_name(settings)
    own = settings.tls.mode == "self-signed"
    context = ssl.create_default_context()
    if own or not host:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    remedy = "docs/runbooks/delivery.md#certificateprobefailing"
    try:
        with (
            socket.create_connection((address, settings.tls.port), timeout=_WITHIN) as plain,
            context.wrap_socket(plain, server_hostname=host or None) as secure,
        ):
            ends = (secure.getpeercert() or {}).get("notAfter")
    except (OSError, ValueError) as error:
        return Check(f"{name}: certificate", str(error), ok=False, remedy=remedy)
    if own or not ends:
        return Check(f"{name}: certificate", "not checked: it is made by the host itself", ok=True)
    days = int((ssl.cert_time_to_seconds(str(ends)) - datetime.now(UTC).timestamp()) // 86400)
    return Check(f"{name}: certificate", f"good for {days} days", ok=days >= 14, remedy=remedy)


def pictures(inventory: Inventory, door: str) -> Iterator[Check]:
    """Whether a picture of the shop comes as WebP and as it is."""
    settings = inventory.settings
    path = _picture(inventory)
    for what, accept in (("as WebP", AS_WEBP), ("as it is", AS_IT_IS)):
        name = f"{path} {what}"
        try:
            status, kind, variant = _get(inventory.hosts[door].login[0], settings, path, accept)
        except (OSError, http.client.HTTPException) as error:
            yield Check(name, str(error), ok=False, remedy="docs/runbooks/delivery.md#picturesnotserved")
            continue
        found = f"{status} {kind}" + (f", X-Image-Variant: {variant}" if variant else "")
        # A picture that can't get smaller stays what it is.
        better = kind in {"image/webp", "image/avif"} or variant == "original"
        right = status == 200 and (better if what == "as WebP" else kind in {"image/jpeg", "image/png"})
        remedy = f"bitrix-cdn explain {shlex.quote(path)}; docs/runbooks/delivery.md#webpnotserved"
        yield Check(name, found, ok=right, remedy=remedy)


def _picture(inventory: Inventory) -> str:
    """A picture of the shop's own; where there is none yet, the one that monitoring asks for."""
    settings = inventory.settings
    probe = probe_picture(settings)
    remote = inventory.hosts[inventory.groups["cdn"][0]]
    directory, without = (shlex.quote(one) for one in (settings.cdn.resize_cache, probe.rpartition("/")[0]))
    kinds = r"\( -name '*.jpg' -o -name '*.jpeg' -o -name '*.png' \)"
    line = f"find {directory} -path {without} -prune -o -type f -size +4k {kinds} -print -quit"
    found = ""
    with suppress(HostError):
        found = remote.run(line, check=False, silence=30).text
    return (found or probe).removeprefix(settings.cdn.root)


def _get(address: str, settings: Settings, path: str, accept: str) -> tuple[int, str, str]:
    """Status, type and variant of what a visitor gets."""
    connection: http.client.HTTPConnection
    if settings.tls.enabled:
        context = ssl.create_default_context()
        # Whether it is the right one is another check.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, settings.tls.port, timeout=_WITHIN, context=context)
    else:
        connection = http.client.HTTPConnection(address, settings.nginx.http_port, timeout=_WITHIN)
    headers = {"Accept": accept, "User-Agent": "bitrix-cdn-verify"}
    if name := visible_name(settings):
        headers["Host"] = name
    try:
        connection.request("GET", quote(path), headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Content-Type", ""), answer.getheader("X-Image-Variant", "")
    finally:
        connection.close()


_REMEDIES = (
    (r"does not run", "journalctl -u UNIT -n 50 there; bitrix-cdn plan says whether a deploy mends it"),
    (r" is (?!\d+ %).*: ", "docs/runbooks/mounts.md"),
    (r"converter: ", "docs/runbooks/converter.md"),
    (r"full$", "docs/runbooks/hosts.md"),
    (r"alert: ", "docs/runbooks/README.md"),
    (r"backup: ", "docs/runbooks/backup.md"),
    (r"certificate", "docs/runbooks/delivery.md#certificateexpiring"),
    (r"", "bitrix-cdn check, then ssh to it by hand"),
)


def of_host(host: HostStatus) -> Iterator[Check]:
    """What a host says of itself."""
    for trouble in host.troubles:
        remedy = next(text for pattern, text in _REMEDIES if re.search(pattern, trouble))
        yield Check(host.name, trouble, ok=False, remedy=remedy)
    if not host.troubles:
        mounted = f"{len(host.mounts)} mounts, " if host.mounts else ""
        alerts = "no alert rings, " if host.alerts is not None else ""
        yield Check(host.name, f"{host.units} units, {mounted}{alerts}all is well", ok=True)


def _open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_WITHIN).close()
    except OSError:
        return False
    return True

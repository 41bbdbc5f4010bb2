"""What Lynis, systemd and checks of our own say of each host, seen from inside."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from bitrix_cdn.engine.services import STAMPS
from bitrix_cdn.fleet.inventory import Inventory
from bitrix_cdn.settings.inventory import GROUPS
from dev.audit.figures import Figure
from dev.audit.limits import Limits

LYNIS = ("usr/share/lynis", "etc/lynis/default.prf")
"""Of Debian's package, unpacked on this machine: the hosts need none, and stay as they were deployed."""

CIS = Path(__file__).with_name("cis.sh")

_RUN = """
set -e
d=$(mktemp -d)
trap 'rm -rf "$d" /run/lynis.pid' EXIT
tar -x -z -C "$d"
mkdir "$d/usr/share/lynis/plugins"
install -m 600 "$d/etc/lynis/default.prf" "$d/usr/share/lynis/default.prf"
cd "$d/usr/share/lynis"
p=$d/usr/share/lynis/default.prf
sh "$d/lynis" audit system --quick --quiet --no-colors --no-plugins \\
    --profile "$p" --logfile "$d/log" --report-file "$d/report" >/dev/null 2>&1 || :
cat "$d/report"
"""

UNITS = rf"""
for unit in $(ls {STAMPS}); do
    case $unit in
        *.service) echo $unit ;;
        *) systemctl show -p Triggers --value $unit ;;
    esac
done | sort -u | while read -r unit; do
    systemd-analyze security --no-pager "$unit" |
        sed -n "s/^.*Overall exposure level for \(.*\): \([0-9.]*\) .*/\1 \2/p"
done
"""
"""Prints how each unit that the deploy runs, or has a timer or a socket run, is rated."""

_DISTRIBUTIONS = {f"{name}.service" for name in ("ssh", "sshd", "systemd-journald", "nftables", "firewalld")}
_SHOPS = re.compile(r"(nginx|php.*-fpm)\.service")


def rated(printed: str, *, shop: bool) -> dict[str, float]:
    """The exposure of each unit that is ours to judge.

    :param printed: by :data:`UNITS`.
    :param shop: whether the host is the shop's, with units of the shop's own.
    """
    lines = [line.rpartition(" ") for line in printed.splitlines()]
    return {
        unit: float(score)
        for unit, _, score in lines
        if unit not in _DISTRIBUTIONS and not (shop and _SHOPS.fullmatch(unit))
    }


def lynis(inventory: Inventory, limits: Limits, tools: Path) -> Iterator[Figure]:
    """Its hardening index of each host."""
    packed = _packed(tools.parent / "lynis")
    for name, remote in inventory.hosts.items():
        report = remote.run(_RUN, stdin=packed).text
        index = re.search(r"^hardening_index=(\d+)$", report, re.M)
        told = re.findall(r"^(?:warning|suggestion)\[\]=([A-Z0-9-]+)\|([^|]*)\|", report, re.M)
        yield Figure(
            "Lynis, hardening index",
            name,
            float(index[1]) if index else None,
            limits.lynis[group_of(inventory, name)],
            at_least=True,
            details=[f"{number}: {text}" for number, text in told],
        )


def cis(inventory: Inventory, limits: Limits) -> Iterator[Figure]:
    """How many in a hundred of our own checks after the CIS benchmark are as wanted."""
    script = CIS.read_bytes()
    for name, remote in inventory.hosts.items():
        lines = remote.run("sh -s", stdin=script).text.splitlines()
        no = [line.removeprefix("no ") for line in lines if line.startswith("no ")]
        share = 100 * (len(lines) - len(no)) / len(lines)
        limit = limits.cis[group_of(inventory, name)]
        what = f"CIS, % of {len(lines)} checks"
        yield Figure(what, name, round(share, 1), limit, at_least=True, details=no)


def group_of(inventory: Inventory, name: str) -> str:
    """The first group of a host, by which its limits go."""
    return next(group for group in GROUPS if name in inventory.groups.get(group, ()))


def _packed(package: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in LYNIS:
            archive.add(package / path, path)
        archive.add(package / "usr/sbin/lynis", "lynis")
    return buffer.getvalue()


def units(inventory: Inventory, limits: Limits) -> Iterator[Figure]:
    """The exposure of each unit of ours; on one line those that are well."""
    for name, remote in inventory.hosts.items():
        found = rated(remote.run(UNITS).text, shop=name in inventory.groups.get("bitrix", ()))
        higher = {unit for unit, score in found.items() if score > limits.highest}
        for unit in sorted(higher):
            yield Figure(f"{unit}", name, found[unit], limits.exposure(unit))
        rest = [score for unit, score in found.items() if unit not in higher]
        yield Figure(f"exposure of {len(rest)} units", name, max(rest, default=None), limits.highest)

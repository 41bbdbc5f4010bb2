"""What can be reached of each host, from outside and from the others, and how it answers there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bitrix_cdn.engine.footprint import Place, Reach
from bitrix_cdn.fleet.inventory import Inventory
from dev.audit.figures import Figure
from dev.audit.limits import Limits
from roles.footprints import ports

SCAN = Path(__file__).with_name("scan.py")
OUTSIDE = ""
"""Where this machine is, as a visitor and an operator."""


def allowed(inventory: Inventory, target: str, source: str) -> set[int]:
    """The TCP ports of a host that another one may reach, by the footprints and `drift.ports`.

    :param source: the other one's name, or :data:`OUTSIDE`.
    """
    reaches: set[Reach] = {"everybody"}
    for group, names in inventory.groups.items():
        if source in names:
            reaches |= {"monitoring"} if group == "monitoring" else set()
            reaches |= {"edges"} if group in ("edge", "balancer") else set()
    entry = next(entry for entry in inventory.entries if entry.name == target)
    place = Place(
        inventory.settings,
        frozenset(entry.groups),
        edges="edge" in inventory.groups,
        balanced="balancer" in inventory.groups,
        ssh_port=entry.data.get("ssh_port", 22),
    )
    return {port.number for port in ports(place) if port.protocol == "tcp" and port.reach in reaches}


def reachable(inventory: Inventory, limits: Limits) -> Iterator[Figure]:
    """What is open and shouldn't be, of each host from everywhere."""
    script = SCAN.read_bytes()
    for target in inventory.hosts:
        address = inventory.address(target)
        wrong = []
        for source in (OUTSIDE, *(name for name in inventory.hosts if name != target)):
            if source:
                said = inventory.hosts[source].run(f"python3 - {address}", stdin=script).text
            else:
                asked = [sys.executable, str(SCAN), address]
                said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            found = {int(port) for port in said.split()}
            wrong += [
                f"{port} from {source or 'outside'}"
                for port in sorted(found - allowed(inventory, target, source))
            ]
        yield Figure("ports open to too many", target, len(wrong), limits.findings["ports"], details=wrong)


def ssh(inventory: Inventory, limits: Limits, tools: Path) -> Iterator[Figure]:
    """What ssh-audit warns of."""
    for name in inventory.hosts:
        entry = next(entry for entry in inventory.entries if entry.name == name)
        port = str(entry.data.get("ssh_port", 22))
        run = subprocess.run(
            [tools / "ssh-audit", "--json", "--skip-rate-test", "-p", port, inventory.address(name)],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            told = limits.counted("ssh-audit", _warnings(json.loads(run.stdout)))
        except ValueError:
            yield Figure("ssh-audit, findings", name, None, 0, details=[run.stdout + run.stderr])
            continue
        yield Figure("ssh-audit, findings", name, len(told), limits.findings["ssh-audit"], details=told)


def _warnings(report: dict[str, object]) -> Iterator[str]:
    for kind in ("kex", "key", "enc", "mac"):
        entries = report.get(kind)
        assert isinstance(entries, list), kind
        for entry in entries:
            for severity in ("fail", "warn"):
                for text in entry.get("notes", {}).get(severity, []):
                    yield f"{entry['algorithm']}: {text}"


def tls(inventory: Inventory, limits: Limits, tools: Path) -> Iterator[Figure]:
    """Where HTTPS isn't as Mozilla's intermediate profile."""
    front = inventory.groups.get("balancer") or inventory.groups.get("cdn", ())
    for name in front if inventory.settings.tls.enabled else ():
        program = "haproxy" if "balancer" in inventory.groups else "nginx"
        certificate = inventory.hosts[name].run(f"cat /etc/{program}/tls/certificate.pem").text
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(certificate + "\n")
            file.flush()
            run = subprocess.run(
                [
                    *(tools / "sslyze", "--mozilla_config=intermediate"),
                    *(f"--certinfo_ca_file={file.name}", "--certinfo"),
                    f"{inventory.address(name)}:{inventory.settings.tls.port}",
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        verdict = run.stdout.partition("COMPLIANCE AGAINST")[2]
        told = re.findall(r"^ +\* (.+)$", verdict, re.M)
        measured = run.returncode == 0 or bool(told)
        told = limits.counted("sslyze", told)
        yield Figure(
            "sslyze, findings",
            name,
            len(told) if measured else None,
            limits.findings["sslyze"],
            details=told if measured else [run.stdout[-500:] + run.stderr[-500:]],
        )

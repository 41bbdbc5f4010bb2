"""The result of a check, and its formats for programs. Pure."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from bitrix_cdn.fleet.errors import HostError

VERSION = 1
"""Of the JSON; another number when something in it is renamed, removed or changes its meaning."""

CLEAN, FAILED, DRIFT = 0, 1, 3
"""Exit statuses."""


PORTS, ACCOUNTS, KEYS, FILES = "Listening ports", "Accounts", "SSH keys", "Files in our directories"
INSPECTED = (PORTS, ACCOUNTS, KEYS, FILES)
"""What is compared beside the operations of the deploy."""


class DriftError(HostError):
    """Why nothing could be checked; one line."""


@dataclass(frozen=True)
class Difference:
    """One thing that isn't as it must be; masked already."""

    kind: str
    """`file`, `access`, `unknown-file`, `package`, `service`, `port`, `account`, `key` or `operation`."""
    what: str
    """The thing itself: a path, a package, a unit, `8000/tcp`, an account, or the name of an operation."""
    summary: str
    check: str
    """The operation that would put it right, or the look that found it."""
    diff: list[str] = field(default_factory=list)
    """A unified diff without line ends, from what is there to what must be."""


@dataclass(frozen=True)
class HostReport:
    """What a check says of one host."""

    name: str
    groups: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failed: str = ""
    """Why it could not be checked; then nothing is known of it."""
    held: bool = False
    """Whether that is because somebody else is at work on it."""
    checks: list[str] = field(default_factory=list)
    """All that was compared: operations, and what the inspection covers."""
    digest: str = ""
    """Of all that a deploy would change, as it was told, secrets included."""

    @property
    def status(self) -> str:
        return "failed" if self.failed else "drift" if self.differences else "clean"


@dataclass(frozen=True)
class Report:
    """What a check says of all hosts."""

    inventory: str
    hosts: list[HostReport]
    started: float
    """Unix time."""
    seconds: float
    metrics: str = ""
    """Directory for metrics on the monitoring hosts; empty: nowhere."""
    monitoring: list[str] = field(default_factory=list)
    """The monitoring hosts."""

    @property
    def status(self) -> int:
        """The exit status: what could not be checked counts more than what differs."""
        if any(host.failed for host in self.hosts):
            return FAILED
        return DRIFT if any(host.differences for host in self.hosts) else CLEAN


def as_json(report: Report) -> str:
    """The report as docs/drift.md describes it."""
    names = {CLEAN: "clean", FAILED: "failed", DRIFT: "drift"}
    return json.dumps(
        {
            "version": VERSION,
            "inventory": report.inventory,
            "started": datetime.fromtimestamp(report.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(report.seconds, 2),
            "status": names[report.status],
            "hosts": [
                {
                    "name": host.name,
                    "status": host.status,
                    "error": host.failed or None,
                    "differences": [asdict(one) for one in host.differences],
                }
                for host in report.hosts
            ],
        },
        indent=2,
    )


def as_junit(report: Report) -> bytes:
    """A suite for each host, and in it a case for each thing compared.

    Valid by Ant's schema, which demands the most, and by that of Jenkins' xUnit plugin.
    """
    root = ET.Element("testsuites")
    for number, host in enumerate(report.hosts):
        root.append(_suite(host, report, number))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(host: HostReport, report: Report, number: int) -> ET.Element:
    found: dict[str, list[Difference]] = {check: [] for check in host.checks}
    for difference in host.differences:
        found.setdefault(difference.check, []).append(difference)
    if host.failed:
        found = {"Check": []}
    suite = ET.Element(
        "testsuite",
        id=str(number),
        package="drift",
        name=host.name,
        hostname=host.name,
        tests=str(len(found)),
        failures="0" if host.failed else str(sum(1 for one in found.values() if one)),
        errors="1" if host.failed else "0",
        skipped="0",
        time=f"{report.seconds:.3f}",
        timestamp=datetime.fromtimestamp(report.started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
    )
    ET.SubElement(suite, "properties")
    for check, differences in found.items():
        case = ET.SubElement(suite, "testcase", classname=host.name, name=check, time="0")
        if host.failed:
            ET.SubElement(case, "error", type="unchecked", message=host.failed).text = host.failed
        elif differences:
            message = "; ".join(f"{one.what}: {one.summary}" for one in differences)
            failure = ET.SubElement(case, "failure", type=differences[0].kind, message=message)
            lines = [line for one in differences for line in (f"{one.what}: {one.summary}", *one.diff)]
            failure.text = "\n".join(lines)
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    return suite


def as_metrics(report: Report) -> str:
    """The report as node_exporter's textfile collector reads it; of a host not checked, no differences."""
    lines = [
        "# HELP drift_differences Places in which a host differs from what its inventory describes.",
        "# TYPE drift_differences gauge",
        *(
            f"drift_differences{{{_label(host.name)}}} {len(host.differences)}"
            for host in report.hosts
            if not host.failed
        ),
        "# HELP drift_check_failed Whether the last check of a host could not be made.",
        "# TYPE drift_check_failed gauge",
        *(f"drift_check_failed{{{_label(host.name)}}} {int(bool(host.failed))}" for host in report.hosts),
        "# HELP drift_check_timestamp_seconds When the last check was started.",
        "# TYPE drift_check_timestamp_seconds gauge",
        f"drift_check_timestamp_seconds {report.started:.0f}",
    ]
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'host="{escaped}"'

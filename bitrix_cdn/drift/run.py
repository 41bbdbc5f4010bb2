"""Has pyinfra make the dry run, and puts together what it said."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitrix_cdn.drift.redaction import Redaction, words
from bitrix_cdn.drift.report import LOOKS, Difference, DriftError, HostReport, Report
from bitrix_cdn.fleet import HostError, UsageError, deploys
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.inventory import chosen
from bitrix_cdn.fleet.results import Finding, Result

CHECK = "bitrix_cdn/drift/check.py"

EVERYTHING = "drift_everything"
"""Among the data of the run's hosts: judge also what the settings leave alone."""


@dataclass
class Told:
    """What the dry run told besides its plan."""

    metrics: str = ""
    secrets: list[str] = field(default_factory=list)
    checked: dict[str, list[str]] = field(default_factory=dict)
    """For each host that was looked at to the end, the hashes of its operations."""
    failed: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """The hosts that failed because somebody else is at work there."""
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """All else, by host."""


def check(
    inventory: str, limit: Sequence[str] = (), *, everything: bool = False, salt: str | None = None
) -> Report:
    """Compares the hosts of an inventory with what it describes.

    :param limit: names or groups of hosts; `*` in them stands for anything. Empty: all.
    :param everything: judge also what the settings leave alone.
    :param salt: of the hosts' digests. With one, only what a deploy would change is told, also where not
        everybody may read it.
    :raises UsageError: the inventory can't be, or has no such hosts.
    :raises DriftError: pyinfra could not make the dry run.
    """
    if not Path(inventory).is_file():
        raise UsageError(f"{inventory}: no such inventory")
    started, clock = time.time(), time.monotonic()
    findings: list[Finding] = []
    result = deploys.run(
        inventory,
        CHECK,
        limit=limit,
        dry=True,
        tolerant=True,
        data={EVERYTHING: everything},
        on_event=lambda one: findings.append(one) if isinstance(one, Finding) else None,
        findings=True,
    )
    failure = result.failure
    if failure and (failure.kind is not HostError or not result.entries):
        raise failure.error()
    told = read(findings)
    mask = Redaction(told.secrets)
    groups = {entry.name: entry.groups for entry in result.entries}
    names = chosen(inventory, groups, limit)
    if failure and all(name in told.checked for name in names):
        raise DriftError(f"{inventory}: pyinfra failed: {mask.text(failure.why)}")
    hosts = [_host(name, groups[name], told, result, mask, salt) for name in names]
    return Report(
        inventory,
        hosts,
        started,
        time.monotonic() - clock,
        told.metrics,
        [name for name, of in groups.items() if "monitoring" in of],
    )


def read(findings: Iterable[Finding]) -> Told:
    """Puts the records of :mod:`bitrix_cdn.engine.differences` in order."""
    told = Told()
    for finding in findings:
        record = dict(finding.record)
        host = record["host"]
        if "secrets" in record:
            told.metrics = record["metrics"]
            told.secrets = [one for one in record["secrets"] if one]
        elif "done" in record:
            told.checked[host] = record["done"]
        elif "failed" in record:
            told.failed[host] = record["failed"]
            told.held |= {host} if record["held"] else set()
        else:
            told.records.setdefault(host, []).append(record)
    return told


def _host(
    name: str, groups: Sequence[str], told: Told, result: Result, mask: Redaction, salt: str | None
) -> HostReport:
    if name not in told.checked:
        reason = result.faults.get(name) or told.failed.get(name) or (result.failure and result.failure.why)
        failed = mask.text(reason or "could not be checked")
        return HostReport(name, list(groups), failed=failed, held=name in told.held)
    names = {one.hash: one.name.removeprefix("deploy.py | ") for one in result.operations}
    changed = [one.hash for one in result.operations if name in one.would_change]
    found: dict[str, list[Difference]] = {one: [] for one in changed}
    looks = []
    digest = [salt or "", *sorted(names[one] for one in changed)]
    for record in told.records.get(name, []):
        operation = record.get("explained") or record["operation"]
        if operation is None:
            looks.append(_of_look(record["finding"], mask))
        elif operation in found:
            found[operation] += _differences(record, names[operation], mask, reveal=salt is not None)
            digest.append(json.dumps({**record, "operation": None, "explained": None}, sort_keys=True))
    for operation, differences in found.items():
        if not differences:
            name_of = names[operation]
            found[operation] = [Difference("operation", name_of, "a deploy would change it", name_of)]
    return HostReport(
        name,
        list(groups),
        [*(one for differences in found.values() for one in differences), *(looks if salt is None else ())],
        checks=[*(names[one] for one in told.checked[name] if one in names), *LOOKS],
        digest=hashlib.sha256("\n".join(digest).encode()).hexdigest(),
    )


def _of_look(finding: dict[str, str], mask: Redaction) -> Difference:
    return Difference(
        finding["kind"], mask.text(finding["what"]), mask.text(finding["summary"]), finding["look"]
    )


def _differences(
    record: dict[str, Any], operation: str, mask: Redaction, *, reveal: bool
) -> list[Difference]:
    """What one record of an operation says."""
    if "file" in record:
        return _of_file(record, operation, mask, reveal=reveal)
    if "surplus" in record:
        return [Difference("file", mask.text(record["surplus"]), "must not be there", operation)]
    if "refused" in record:
        return [Difference("file", mask.text(record["refused"]), mask.text(record["words"]), operation)]
    if "unit" in record:
        return [Difference("service", record["unit"], mask.text("; ".join(record["faults"])), operation)]
    return _of_commands(record["commands"], operation, mask)


def _of_file(record: dict[str, Any], operation: str, mask: Redaction, *, reveal: bool) -> list[Difference]:
    path, kind, there, wanted = record["file"], record["kind"], record["content"], record["must_content"]
    if kind != "file":
        fault = "is missing" if kind == "nothing" else f"is a {mask.text(kind)}, must be a file"
        return [Difference("file", path, fault, operation)]
    found = []
    mode, user, group = record["must_access"]
    if record["access"] and record["access"] != record["must_access"]:
        is_mode, is_user, is_group = record["access"]
        fault = f"is {is_mode} {is_user}:{is_group}, must be {mode} {user}:{group}"
        found.append(Difference("access", path, mask.text(fault), operation))
    if record["same"]:
        return found
    if there is None:
        return [*found, Difference("file", path, "differs, and is too long to show how", operation)]
    # What not everybody may read holds secrets, or was closed as it does now.
    closed = any(not int(one, 8) & 0o004 for one in (mode, *record["access"][:1]))
    public = _public(path) if closed else None
    diff = mask.diff(path, there, wanted, public=public, reveal=reveal)
    return [
        *found,
        Difference("file", path, "differs" if diff else "differs in its line ends", operation, diff),
    ]


@functools.cache
def _public(path: str) -> set[str]:
    """The words in the templates of a file."""
    sources = ROOT.joinpath("templates").glob(f"*{path}.j2")
    return {word for source in sources for word in words(source.read_text())}


def _of_commands(commands: Sequence[str], operation: str, mask: Redaction) -> list[Difference]:
    shown = " ; ".join(line for command in commands for line in command.strip().splitlines()[:1])
    shown = mask.text(shown if len(shown) <= 160 else f"{shown[:159]}\N{HORIZONTAL ELLIPSIS}")
    summary = f"a deploy would run: {shown}" if shown else "a deploy would change it"
    missing = [package for command in commands for package in packages(command)]
    if missing:
        return [Difference("package", package, "is not installed", operation) for package in missing]
    unit = next((found[1] for command in commands if (found := _SYSTEMCTL.search(command))), "")
    if unit:
        return [Difference("service", unit, summary, operation)]
    return [Difference("operation", operation, summary, operation)]


_SYSTEMCTL = re.compile(r"^systemctl (?:-\S+ )*[a-z-]+ (\S+)")


def packages(command: str) -> list[str]:
    """The packages that an operation's command would install."""
    found = re.search(r"\b(?:apt-get|dnf)\b.* install ([^;&|>]*)", command)
    return [word for word in found[1].split() if not word.startswith("-")] if found else []

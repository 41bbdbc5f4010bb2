"""Has pyinfra make the dry run, and combines its findings into a report."""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitrix_cdn.drift.comparison import Undeclared
from bitrix_cdn.drift.redaction import Redaction, words
from bitrix_cdn.drift.report import INSPECTED, Difference, DriftError, HostReport, Report
from bitrix_cdn.engine.findings import Commands, Finding, RefusedFile, SurplusFile, WrongFile, WrongUnit
from bitrix_cdn.fleet import HostError, UsageError, deploys
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.inventory import chosen
from bitrix_cdn.fleet.results import Result

CHECK = "bitrix_cdn/drift/check.py"

EVERYTHING = "drift_everything"
"""Among the data of the run's hosts: judge also what the settings leave alone."""


@dataclass(frozen=True)
class Deployment:
    """What all hosts have in common."""

    metrics: str
    """Directory for metrics on the monitoring hosts; empty: nowhere."""
    secrets: tuple[str, ...]
    """What must not show."""


@dataclass(frozen=True)
class Checked:
    """A host was looked at to the end."""

    operations: tuple[str, ...]
    """Their hashes."""


@dataclass(frozen=True)
class Unchecked:
    """A host was not looked at to the end."""

    why: str
    held: bool
    """Whether that is because somebody else is at work there."""


@dataclass
class Findings:
    """What the dry run told besides its plan, in order."""

    deployment: Deployment = Deployment("", ())
    checked: dict[str, Checked] = field(default_factory=dict)
    unchecked: dict[str, Unchecked] = field(default_factory=dict)
    of_hosts: dict[str, list[Finding]] = field(default_factory=dict)
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
    told = ordered(findings)
    redaction = Redaction(told.deployment.secrets)
    groups = {entry.name: entry.groups for entry in result.entries}
    names = chosen(inventory, groups, limit)
    if failure and all(name in told.checked for name in names):
        raise DriftError(f"{inventory}: pyinfra failed: {redaction.text(failure.why)}")
    hosts = [_host(name, groups[name], told, result, redaction, salt) for name in names]
    return Report(
        inventory,
        hosts,
        started,
        time.monotonic() - clock,
        told.deployment.metrics,
        [name for name, of in groups.items() if "monitoring" in of],
    )


def ordered(findings: Iterable[Finding]) -> Findings:
    """Puts what was told in order."""
    found = Findings()
    for finding in findings:
        match finding.what:
            case Deployment():
                found.deployment = finding.what
            case Checked():
                found.checked[finding.host] = finding.what
            case Unchecked():
                found.unchecked[finding.host] = finding.what
            case _:
                found.of_hosts.setdefault(finding.host, []).append(finding)
    return found


def _host(
    name: str, groups: Sequence[str], told: Findings, result: Result, redaction: Redaction, salt: str | None
) -> HostReport:
    if name not in told.checked:
        unchecked = told.unchecked.get(name, Unchecked(result.failure.why if result.failure else "", False))
        failed = result.faults.get(name) or unchecked.why or "could not be checked"
        return HostReport(name, list(groups), failed=redaction.text(failed), held=unchecked.held)
    names = {one.hash: one.name.removeprefix("deploy.py | ") for one in result.operations}
    changed = [one.hash for one in result.operations if name in one.would_change]
    found: dict[str, list[Difference]] = {one: [] for one in changed}
    undeclared = []
    digest = [salt or "", *sorted(names[one] for one in changed)]
    for finding in told.of_hosts.get(name, []):
        if isinstance(finding.what, Undeclared):
            undeclared.append(_of_undeclared(finding.what, redaction))
        elif finding.operation in found:
            operation = finding.operation
            found[operation] += _differences(
                finding.what, names[operation], redaction, reveal=salt is not None
            )
            digest.append(repr(finding.what))
    for operation, differences in found.items():
        if not differences:
            name_of = names[operation]
            found[operation] = [Difference("operation", name_of, "a deploy would change it", name_of)]
    return HostReport(
        name,
        list(groups),
        [
            *(one for differences in found.values() for one in differences),
            *(undeclared if salt is None else ()),
        ],
        checks=[*(names[one] for one in told.checked[name].operations if one in names), *INSPECTED],
        digest=hashlib.sha256("\n".join(digest).encode()).hexdigest(),
    )


def _of_undeclared(one: Undeclared, redaction: Redaction) -> Difference:
    return Difference(one.kind, redaction.text(one.what), redaction.text(one.summary), one.check)


def _differences(what: object, operation: str, redaction: Redaction, *, reveal: bool) -> list[Difference]:
    """What one finding of an operation says."""
    match what:
        case WrongFile():
            return _of_file(what, operation, redaction, reveal=reveal)
        case SurplusFile(path):
            return [Difference("file", redaction.text(path), "must not be there", operation)]
        case RefusedFile(path, words):
            return [Difference("file", redaction.text(path), redaction.text(words), operation)]
        case WrongUnit(unit, faults):
            return [Difference("service", unit, redaction.text("; ".join(faults)), operation)]
        case Commands(commands):
            return _of_commands(commands, operation, redaction)
    raise TypeError(what)


def _of_file(one: WrongFile, operation: str, redaction: Redaction, *, reveal: bool) -> list[Difference]:
    path = one.path
    if one.kind != "file":
        fault = "is missing" if one.kind == "nothing" else f"is a {redaction.text(one.kind)}, must be a file"
        return [Difference("file", path, fault, operation)]
    found = []
    mode, user, group = one.must_access
    if one.access and one.access != one.must_access:
        is_mode, is_user, is_group = one.access
        fault = f"is {is_mode} {is_user}:{is_group}, must be {mode} {user}:{group}"
        found.append(Difference("access", path, redaction.text(fault), operation))
    if one.same:
        return found
    if one.content is None:
        return [*found, Difference("file", path, "differs, and is too long to show how", operation)]
    # What not everybody may read holds secrets, or was closed as it does now.
    closed = any(not int(bits, 8) & 0o004 for bits in (mode, *one.access[:1]))
    public = _public(path) if closed else None
    diff = redaction.diff(path, one.content, one.must_content, public=public, reveal=reveal)
    return [
        *found,
        Difference("file", path, "differs" if diff else "differs in its line ends", operation, diff),
    ]


@functools.cache
def _public(path: str) -> set[str]:
    """The words in the templates of a file."""
    sources = ROOT.joinpath("templates").glob(f"*{path}.j2")
    return {word for source in sources for word in words(source.read_text())}


def _of_commands(commands: Sequence[str], operation: str, redaction: Redaction) -> list[Difference]:
    shown = " ; ".join(line for command in commands for line in command.strip().splitlines()[:1])
    shown = redaction.text(shown if len(shown) <= 160 else f"{shown[:159]}\N{HORIZONTAL ELLIPSIS}")
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

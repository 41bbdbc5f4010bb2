"""Has pyinfra make the dry run, and puts together what it said."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bitrix_cdn.drift.redaction import Redaction, words
from bitrix_cdn.drift.report import LOOKS, Difference, DriftError, HostReport, Report
from bitrix_cdn.engine.findings import ENVIRONMENT
from bitrix_cdn.fleet import UsageError, deploys, load
from bitrix_cdn.fleet.deploys import ROOT, complaint, limits, said_of
from bitrix_cdn.fleet.inventory import chosen

CHECK = "bitrix_cdn/drift/check.py"

EVERYTHING = "BITRIX_CDN_DRIFT_EVERYTHING"
"""Set in the environment of the dry run: judge also what the settings leave alone."""


@dataclass
class Told:
    """What the dry run told besides its plan."""

    groups: dict[str, list[str]] = field(default_factory=dict)
    """Of all hosts of the inventory, in its order."""
    metrics: str = ""
    secrets: list[str] = field(default_factory=list)
    checked: dict[str, list[str]] = field(default_factory=dict)
    """For each host that was looked at to the end, the hashes of its operations."""
    failed: dict[str, str] = field(default_factory=dict)
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
    # A file without a name, in memory: what is told there holds secrets.
    with open(os.memfd_create("differences"), "r+b") as channel:  # noqa: PTH123
        status, plan, errors = _dry_run(inventory, limit, channel, everything=everything)
        channel.seek(0)
        told = read(channel)
    mask = Redaction(told.secrets)
    if not told.groups:
        # The dry run came to none of them.
        told.groups = {entry["name"]: entry["groups"] for entry in load(inventory).entries}
    names = chosen(inventory, told.groups, limit)
    if status == 0 and plan is None:
        status = 1
    if status and all(name in told.checked for name in names):
        raise DriftError(
            f"{inventory}: pyinfra failed: {mask.text(complaint(errors) or f'exit status {status}')}"
        )
    hosts = [_host(name, told, plan or [], errors, mask, salt) for name in names]
    return Report(
        inventory,
        hosts,
        started,
        time.monotonic() - clock,
        told.metrics,
        [name for name, groups in told.groups.items() if "monitoring" in groups],
    )


def _dry_run(
    inventory: str, limit: Sequence[str], channel: BinaryIO, *, everything: bool
) -> tuple[int, list[dict[str, Any]] | None, str]:
    environment = {ENVIRONMENT: str(channel.fileno()), **({EVERYTHING: "1"} if everything else {})}
    run = deploys.run(
        *("--dry", "--json", "--fail-percent", "100", *limits(limit)),
        inventory=inventory,
        operations=CHECK,
        environment=environment,
        descriptors=[channel.fileno()],
    )
    return run.status, (run.report or {}).get("plan"), run.said


def read(lines: Iterable[bytes]) -> Told:
    """Puts the records of :mod:`bitrix_cdn.engine.differences` in order."""
    told = Told()
    for line in lines:
        record = json.loads(line)
        host = record["host"]
        if "hosts" in record:
            told.groups, told.metrics = record["hosts"], record["metrics"]
            told.secrets = [one for one in record["secrets"] if one]
        elif "done" in record:
            told.checked[host] = record["done"]
        elif "failed" in record:
            told.failed[host] = record["failed"]
        else:
            told.records.setdefault(host, []).append(record)
    return told


def _host(
    name: str, told: Told, plan: Sequence[dict[str, Any]], errors: str, mask: Redaction, salt: str | None
) -> HostReport:
    if name not in told.checked:
        reason = said_of(name, errors) or told.failed.get(name) or complaint(errors)
        return HostReport(name, told.groups[name], failed=mask.text(reason or "could not be checked"))
    names = {operation["op_hash"]: operation["name"].removeprefix("deploy.py | ") for operation in plan}
    changed = [operation["op_hash"] for operation in plan if name in operation["hosts_with_change"]]
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
        told.groups[name],
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

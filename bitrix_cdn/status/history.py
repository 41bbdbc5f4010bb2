"""The history of the hosts: their audit logs, combined by run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bitrix_cdn.fleet import HostError, Inventory, UsageError
from bitrix_cdn.fleet.audit import list_script

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Ended:
    """How a run ended on one host."""

    result: str
    """`ok`, `failed`, `interrupted`, `at work`, or `did not end`: neither its end nor its interruption was
    written, as after a power cut."""
    changes: int | None = None
    """Operations that changed the host; None: that is not counted."""
    seconds: float | None = None
    plan: str = ""
    why: str = ""

    def __str__(self) -> str:
        counted = {None: "", 0: ", nothing changed", 1: ", 1 change"}.get(
            self.changes, f", {self.changes} changes"
        )
        took = "" if self.seconds is None else f", {self.seconds:.0f} s"
        plan = f", plan {self.plan}" if self.plan else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.result}{counted}{took}{plan}{why}"


@dataclass(frozen=True)
class Run:
    """One command of an operator."""

    began: str
    what: str
    operator: str
    machine: str
    inventory: str
    hosts: Mapping[str, Ended]


@dataclass
class History:
    """All logs."""

    runs: list[Run] = field(default_factory=list)
    """The oldest first."""
    broken: dict[str, list[str]] = field(default_factory=dict)
    """By host, where a log was changed or lines were removed."""
    failed: list[HostError] = field(default_factory=list)
    """Of hosts that could not be asked."""


def ask(inventory: Inventory, names: Sequence[str]) -> History:
    """The logs of these hosts."""

    def one(name: str) -> dict[str, Any] | HostError:
        remote = inventory.hosts[name]
        try:
            remote.connect()
            said: dict[str, Any] = json.loads(remote.run(list_script(), silence=30).text)
        except HostError as error:
            return error
        except ValueError:
            return HostError(f"{name}: says nothing of its audit log that could be read")
        return said

    with ThreadPoolExecutor(max_workers=8) as threads:
        answers = dict(zip(names, threads.map(one, names), strict=True))
    found = merged({name: one for name, one in answers.items() if not isinstance(one, HostError)})
    found.failed = [one for one in answers.values() if isinstance(one, HostError)]
    return found


def merged(logs: Mapping[str, Mapping[str, Any]]) -> History:
    """Puts the logs of several hosts together.

    :param logs: by host, as `cdn-host audit list` prints them.
    """
    runs: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for host, log in logs.items():
        for entry in log["entries"]:
            runs.setdefault(str(entry.get("run", "")), []).append((host, entry))
    found = []
    for name, told in runs.items():
        first = min((entry for _, entry in told), key=lambda entry: str(entry.get("time", "")))
        # Of a run that went on over a lost connection, the last end counts.
        ends = {host: _ended(entry) for host, entry in told if entry.get("event") == "end"}
        for host, _ in told:
            at_work = name in logs[host].get("at_work", ())
            ends.setdefault(host, Ended("at work" if at_work else "did not end"))
        keys = ("time", "what", "operator", "machine", "inventory")
        time, what, operator, machine, inventory = (str(first.get(key, "")) for key in keys)
        found.append(Run(time, what, operator, machine, inventory, dict(sorted(ends.items()))))
    found.sort(key=lambda run: run.began)
    return History(found, {host: list(log["broken"]) for host, log in logs.items() if log["broken"]})


def _ended(entry: Mapping[str, Any]) -> Ended:
    return Ended(
        str(entry.get("result", "?")),
        entry.get("changes"),
        entry.get("seconds"),
        str(entry.get("plan", "")),
        str(entry.get("why", "")),
    )


def lines(run: Run) -> Iterator[str]:
    """A run, for people."""
    where = f", {run.inventory}" if run.inventory else ""
    yield f"{run.began[:19].replace('T', ' ')} UTC  {run.what}, by {run.operator} on {run.machine}{where}"
    width = max(map(len, run.hosts))
    for name, ended in run.hosts.items():
        yield f"    {name:{width}}  {ended}"


def moment(text: str, now: datetime | None = None) -> str:
    """A time that an operator gives, as the log has it.

    :raises UsageError: it is none.
    """
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        at = (now or datetime.now(UTC)) - timedelta(**{_UNITS[found[2]]: int(found[1])})
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                f"--since {text}: a date (2026-11-28, 2026-11-28T12:00), or 90m, 12h or 7d is allowed; UTC"
            ) from None
        at = at.astimezone(UTC) if at.tzinfo else at
    return f"{at:%Y-%m-%dT%H:%M:%S}"

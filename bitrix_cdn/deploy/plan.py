"""A plan: what a deploy would change, shown, saved, and compared with what it would change now.

A plan is a drift check without the inspection: the dry run of `deploy.py`, with what each operation reports.
It also shows files that not everybody may read; secrets are masked in them as everywhere.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitrix_cdn.drift import run
from bitrix_cdn.drift.report import Difference, DriftError
from bitrix_cdn.fleet import Inventory, RefusedError, UsageError
from bitrix_cdn.fleet.audit import digest
from bitrix_cdn.fleet.lock import now, operator
from bitrix_cdn.fleet.sources import state

VERSION = 1
"""Of the file; another number when something in it is renamed, removed or changes its meaning."""


@dataclass(frozen=True)
class Plan:
    """What a deploy would change."""

    inventory: str
    limit: tuple[str, ...]
    state: str
    """Of what would be deployed: this tree, and the inventory with its settings."""
    hosts: Mapping[str, tuple[Difference, ...]]
    digests: Mapping[str, str]
    """Of all that was told of each host, secrets included."""
    salt: str
    """Of the digests."""
    made: str
    by: str

    @property
    def hash(self) -> str:
        """What the audit log calls it."""
        return digest(f"{name} {self.digests[name]}" for name in sorted(self.digests))

    @property
    def count(self) -> int:
        return sum(map(len, self.hosts.values()))


def make(inventory: Inventory, limit: Sequence[str] = (), salt: str | None = None) -> Plan:
    """Asks the hosts; changes nothing.

    :param salt: of the plan that it is to be compared with.
    :raises RefusedError: somebody else is at work there.
    :raises DriftError: one of them can't be asked.
    """
    salt = salt or secrets.token_hex(16)
    report = run.check(inventory.file, limit, salt=salt)
    for host in report.hosts:
        if host.held:
            raise RefusedError(host.failed)
        if host.failed:
            raise DriftError(f"{host.name}: {host.failed}")
    return Plan(
        inventory.file,
        tuple(limit),
        state(inventory),
        {host.name: tuple(host.differences) for host in report.hosts},
        {host.name: host.digest for host in report.hosts},
        salt,
        now(),
        operator(),
    )


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan as its file has it."""
    return {
        "version": VERSION,
        **asdict(plan),
        "hosts": {name: [asdict(one) for one in found] for name, found in plan.hosts.items()},
    }


def save(plan: Plan, path: Path) -> None:
    """Writes it for its owner alone, in one rename."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(as_data(plan), file, indent=1)
        file.write("\n")
    new.replace(path)


def read(path: Path) -> Plan:
    """The plan in a file.

    :raises UsageError: it holds none.
    """
    try:
        return of_data(json.loads(path.read_text()), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}: is no plan; `bitrix-cdn plan --save FILE` makes one") from None


def of_data(data: Mapping[str, Any], name: str) -> Plan:
    """The plan of :func:`as_data`.

    :param name: what errors call it.
    :raises UsageError: it is of another version.
    """
    fields = dict(data)
    if fields.pop("version") != VERSION:
        raise UsageError(f"{name}: is of another version of bitrix-cdn; make it again")
    fields["limit"] = tuple(fields["limit"])
    fields["hosts"] = {
        host: tuple(Difference(**one) for one in found) for host, found in fields["hosts"].items()
    }
    return Plan(**fields)


def refuse_if_moved_on(plan: Plan, now: Plan) -> None:
    """Compares a plan with what a deploy would change now.

    :raises RefusedError: they differ; says in what.
    """
    if plan.state != now.state:
        raise RefusedError("the sources or the inventory are not those of the plan; make it again")
    moved = [name for name in plan.digests if plan.digests[name] != now.digests.get(name)]
    if moved or set(plan.digests) != set(now.digests):
        raise RefusedError(
            f"{', '.join(moved) or 'the hosts'}: a deploy would change something else than was planned; "
            "make the plan again"
        )

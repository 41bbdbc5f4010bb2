"""What hosts tell a drift check, and the report that it makes of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bitrix_cdn.drift.comparison import Undeclared
from bitrix_cdn.drift.report import Report
from bitrix_cdn.drift.run import Checked, Deployment, check
from bitrix_cdn.engine.findings import Commands, Finding, RefusedFile, SurplusFile, WrongFile, WrongUnit
from bitrix_cdn.fleet import deploys
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.results import Entry, Failure, Operation, Result

ALERTING = "/etc/prometheus/alertmanager.yml"
OPEN = "/etc/nginx/nginx.conf"
GROUPS = {"shop": ("bitrix",), "pics": ("cdn", "monitoring")}


What = Undeclared | Commands | RefusedFile | SurplusFile | WrongFile | WrongUnit


def told(*whats: What, secrets: Sequence[str] = (), done: Sequence[str] = tuple(GROUPS)) -> list[Finding]:
    """What an operation on the host of the pictures tells, and what comes before and after."""
    return [
        Finding("shop", None, Deployment("/m", tuple(secrets))),
        *(Finding("pics", None if isinstance(what, Undeclared) else "1", what) for what in whats),
        *(Finding(name, None, Checked(("1", "2"))) for name in done),
    ]


def a_file(path: str, there: str | None, wanted: str, *, mode: str = "640", **values: Any) -> WrongFile:
    access = (mode, "root", "root")
    return replace(WrongFile(path, "file", access, access, there, wanted), **values)


def report(
    monkeypatch: pytest.MonkeyPatch,
    findings: list[Finding],
    *,
    changed: Sequence[str] = ("pics",),
    failure: Failure | None = None,
    faults: Mapping[str, str] | None = None,
    limit: Sequence[str] = (),
    salt: str | None = None,
) -> Report:
    """A check with a pyinfra that tells and returns what is given; with a salt, a plan."""
    entries = tuple(Entry(name, groups, {}) for name, groups in GROUPS.items())
    operations = (
        Operation("1", "deploy.py | Alertmanager | Write the routes", would_change=tuple(changed)),
        Operation("2", "deploy.py | Install nginx"),
    )

    def pyinfra(*_: object, on_event: Callable[[Finding], object], **__: object) -> Result:
        for finding in findings:
            on_event(finding)
        return Result(entries, frozenset(GROUPS), faults or {}, operations, failure)

    monkeypatch.setattr(deploys, "run", pyinfra)
    return check(str(ROOT / "inventories/production.py"), limit, salt=salt)

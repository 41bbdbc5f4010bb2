"""The rules as Prometheus reads them, the cases of `tests/prometheus`, and the runbooks behind the alerts."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.alarms import FAULTS, PROVEN_OTHERWISE
from tests.kit.alerting import WATCHDOG, Alert, alerts, names, rules, settings_with
from tests.kit.deployment import ROOT
from tests.kit.tools import needs, said

CASES = sorted((ROOT / "tests/prometheus").glob("*.yml"))
RUNBOOKS = ROOT / "docs/runbooks"
HEADINGS = ["What it means", "How to check", "What to do", "How to know that it is over"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the rules."""
    needs("promtool", "prometheus")
    directory = tmp_path_factory.mktemp("rules")
    for name, content in rules().items():
        (directory / name).write_text(content)
    return directory


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"levels": {"availability": 0.95, "fast": 0.999, "ssim": 0.9}},
        {"alertmanager": {"runbooks_url": "https://git.example.com/shop/blob/main/"}},
        {"mounts": {"metrics": ""}},
        {"backup": {}},
        {"converter": {"encoding": {"policy": "fixed"}, "store": {"high_water": 1.0}}},
        {"language": "ru"},
    ],
    ids=["defaults", "levels", "runbooks", "no metrics of mounts", "no backups", "no eviction", "in Russian"],
)
def test_prometheus_takes_them(settings: dict[str, Any], tmp_path: Path) -> None:
    needs("promtool", "prometheus")
    for name, content in rules(settings_with(**settings)).items():
        (tmp_path / name).write_text(content)
        assert "SUCCESS" in said("promtool", "check", "rules", tmp_path / name)


def test_a_balancer_that_nobody_asks_about_is_missed() -> None:
    assert 'job="haproxy"' not in rules()["alerts.yml"]
    assert 'absent_over_time(up{job="haproxy"}' in rules(balanced=True)["alerts.yml"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_they_fire_and_end_when_they_must(case: Path, place: Path) -> None:
    (place / case.name).write_text(case.read_text())
    assert "SUCCESS" in said("promtool", "test", "rules", case.name, cwd=place)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_evaluates_all_groups_in_their_order(case: Path) -> None:
    # Groups left out are evaluated in any order: an alert would see what was recorded a step ago, or nothing.
    head = case.read_text().split("\ntests:")[0]
    groups = [group for text in rules().values() for group in re.findall(r"^ {2}- name: (\w+)$", text, re.M)]
    assert re.findall(r"^ {2}- (\w+)$", head, re.M) == groups


def fired(alert: Alert) -> list[list[bool]]:
    """Of each case about an alert, whether it fires at each of its times."""
    seen = []
    window = re.search(r"window: (\w+)", alert.text)
    for case in CASES:
        for test in case.read_text().split("\n  - name: ")[1:]:
            looks = [
                look
                for look in test.split("      - eval_time: ")[1:]
                if re.search(rf"^ {{8}}alertname: {alert.name}$", look, re.M)
            ]
            seen.append(
                [
                    any(
                        f'severity: "{alert.severity}"' in labels
                        and (not window or f'window: "{window[1]}"' in labels)
                        for labels in re.findall(r"exp_labels: \{(.*)\}", look)
                    )
                    for look in looks
                ]
            )
    return [looks for looks in seen if looks]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_has_a_case_that_fires_and_ends(alert: Alert) -> None:
    cases = fired(alert)
    assert any(any(looks) for looks in cases), f"{alert.name} ({alert.severity}) fires in no case"
    if alert.name != WATCHDOG:
        assert any(later < now for looks in cases for now, later in itertools.pairwise(looks)), (
            f"{alert.name} ({alert.severity}) ends in no case"
        )


def test_an_idle_system_is_asked_about_each_alert() -> None:
    idle = (ROOT / "tests/prometheus/idle.yml").read_text()
    for test in idle.split("\n  - name: ")[1:]:
        assert re.findall(r"alertname: (\w+)}", test) == [name for name in names() if name != WATCHDOG]
        assert "exp_alerts" not in test


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_says_how_bad_it_is_and_what_it_is_about(alert: Alert) -> None:
    assert alert.severity in {"critical", "warning", "info"} or alert.name == WATCHDOG
    for annotation in ("summary", "description", "runbook_url"):
        assert re.search(rf"^ {{10}}{annotation}: ", alert.text, re.M), annotation


def test_what_wakes_somebody_is_told_within_a_minute() -> None:
    # A question to the target, a look at the rules, and this.
    assert [alert.name for alert in alerts() if alert.severity == "critical" and alert.seconds > 30] == []


@pytest.mark.parametrize("name", names())
def test_an_alert_has_a_runbook_that_says_all_of_it(name: str) -> None:
    links = {link for alert in alerts() if alert.name == name for link in _runbooks(alert)}
    assert len(links) == 1, f"{name} has the runbooks {links}"
    [link] = links
    page, _, anchor = link.partition("#")
    assert anchor == name.lower()
    text = (ROOT / page).read_text()
    sections = re.findall(rf"^## {name}\n(.*?)(?=^## |^# |\Z)", text, re.M | re.S)
    assert len(sections) == 1, f"{page} has {len(sections)} sections ## {name}"
    parts = re.split(r"^### (.*)\n", sections[0], flags=re.M)
    assert parts[1::2] == HEADINGS
    for heading, body in zip(HEADINGS, parts[2::2], strict=True):
        assert len(body.split()) > 3, f"{page}: {name}: {heading} says nothing"


def test_a_runbook_is_found_where_the_setting_says() -> None:
    prefix = "https://git.example.com/shop/blob/main/"
    text = rules(settings_with(alertmanager={"runbooks_url": prefix}))["alerts.yml"]
    links = re.findall(r'runbook_url: "(.*)"', text)
    assert links
    assert all(link.startswith(f"{prefix}docs/runbooks/") for link in links)


def test_all_links_between_runbooks_lead_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for file, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            target = (page.parent / file) if file else page
            assert target.is_file(), f"{page.name}: {file}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name}: {file}#{anchor}"


def test_the_table_of_all_alerts_is_up_to_date() -> None:
    rows = []
    for name in names():
        same = [alert for alert in alerts() if alert.name == name]
        severities = ", ".join(dict.fromkeys(alert.severity for alert in same))
        [link] = _runbooks(same[0])
        page = link.rpartition("/")[2]
        rows.append(f"| [{name}]({page}) | {severities} | {page.partition('#')[0]} |")
    table = "\n".join(rows)
    assert table in (RUNBOOKS / "README.md").read_text(), f"docs/runbooks/README.md should have:\n{table}"


def _runbooks(alert: Alert) -> list[str]:
    return re.findall(r'^ {10}runbook_url: "(.*)"$', alert.text, re.M)


def test_each_alert_is_made_to_ring_in_the_lab_or_said_why_not() -> None:
    made = {name for fault in FAULTS for name in fault.alerts} | {WATCHDOG}
    assert made.isdisjoint(PROVEN_OTHERWISE)
    assert made | set(PROVEN_OTHERWISE) == set(names())

"""What the console makes of what hosts, Prometheus and Alertmanager say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from bitrix_console.chart import HEIGHT, WIDTH, chart
from bitrix_console.pages import is_fine
from bitrix_console.prometheus import CHARTS, VALUES, WINDOWS, Point, moment, read, script, silence
from bitrix_console.runbooks import runbook
from web_kit.roles import Role

from bitrix_cdn.settings import Settings
from tests.kit.console import ALERT, Console, csrf, post
from tests.kit.deployment import ROOT


def answer(**sections: Any) -> str:
    return "".join(f"\n== {name.replace('_', ' ', 1)}\n{json.dumps(one)}\n" for name, one in sections.items())


SERIES = {"data": {"result": [{"values": [[0, "1.5"], [60, "NaN"], [120, "3"]]}]}}
FIRING = {
    "fingerprint": "f00",
    "startsAt": "2026-11-28T12:00:00.123456789Z",
    "labels": {"alertname": "DiskLow", "severity": "warning", "host": "cdn"},
    "annotations": {"summary": "little room", "runbook_url": "https://x/docs/runbooks/hosts.md#disklow"},
    "status": {"silencedBy": []},
}


def test_answers_are_understood() -> None:
    watchdog = {"labels": {"alertname": "Watchdog"}}
    grave = {**FIRING, "labels": {"alertname": "MountDown", "severity": "critical"}, "annotations": {}}
    quiet = {**grave, "status": {"silencedBy": ["s1"]}}
    found = read(
        answer(
            chart_requests=SERIES,
            value_drift={"data": {"result": [{"value": [0, "2"]}]}},
            value_saved_day={"data": {"result": [{"value": [0, "NaN"]}]}},
            alerts=[watchdog, quiet, FIRING, grave],
        )
    )
    assert found.charts["requests"] == (Point(0, 1.5), Point(120, 3))
    assert found.charts["hits"] == ()
    assert found.values == {"drift": 2}
    assert found.alerts
    # The gravest first, what is silenced last.
    assert [(one.name, one.silenced) for one in found.alerts] == [
        ("MountDown", ()),
        ("DiskLow", ()),
        ("MountDown", ("s1",)),
    ]
    assert found.alerts[1].runbook == "hosts.md#disklow"
    assert found.alerts[1].since == pytest.approx(1795867200.123456)


@pytest.mark.parametrize("said", ["", "\n== alerts\n\n", "\n== alerts\n<html>", '\n== alerts\n{"error": 1}'])
def test_no_answer_is_not_no_alert(said: str) -> None:
    assert read(said).alerts is None


def test_all_questions_are_asked_and_no_sum_of_days_is_too_long() -> None:
    for window in WINDOWS:
        text = script(Settings(), window, 1_800_000_007.0)
        for name in (
            *(f"chart {one}" for one in CHARTS),
            *(f"value {one}" for one in VALUES),
            "alerts",
            "silences",
        ):
            assert f"'== {name}'" in text
        points = {int(end) - int(start) for start, end in re.findall(r"start=(\d+)&end=(\d+)", text)}
        assert points == {WINDOWS[window]}


def test_a_moment_that_is_none() -> None:
    assert moment(None) == moment("yesterday") == 0.0


def test_a_silence_is_for_exactly_this_alert_and_ends() -> None:
    made = json.loads(silence({"b": "2", "a": "1.*"}, "ann", 'why "so"', 0.0, 1.5))
    assert [(one["name"], one["value"], one["isRegex"]) for one in made["matchers"]] == [
        ("a", "1.*", False),
        ("b", "2", False),
    ]
    assert (made["startsAt"], made["endsAt"]) == ("1970-01-01T00:00:00Z", "1970-01-01T01:30:00Z")
    assert (made["createdBy"], made["comment"]) == ("ann", 'why "so"')


def test_a_chart_has_a_gap_where_nothing_is_known() -> None:
    drawn = chart([Point(0, 0), Point(60, 5), Point(300, 10), Point(360, 10)])
    assert drawn
    assert drawn.lines == ("0.0,58.0 50.0,30.0", f"250.0,2.0 {WIDTH}.0,2.0")
    assert (drawn.last, drawn.least, drawn.most) == (10, 0, 10)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-5.0, -1.0], [1e18, 1e-9]])
def test_a_chart_stays_in_its_box(values: list[float]) -> None:
    drawn = chart([Point(60.0 * number, value) for number, value in enumerate(values)])
    assert drawn
    for x, y in (point.split(",") for line in drawn.lines for point in line.split()):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart([]) is None


def test_each_alert_has_its_runbook_in_both_languages() -> None:
    rules = (ROOT / "templates/prometheus/etc/prometheus/rules/alerts.yml.j2").read_text()
    places = set(re.findall(r'runbook_url: ".*/([\w-]+\.md#\w+)"', rules))
    assert len(places) > 30
    for place in sorted(places):
        english, russian = runbook(place, "en"), runbook(place, "ru")
        assert english, place
        assert russian, place
        assert re.search(r"[\u0430-\u044f]", russian), place
        assert not re.search(r"[\u0430-\u044f]", english), place
        assert not re.search(r'href="(?!https?://)', english + russian), place


@pytest.mark.parametrize(
    "place", ["", "mounts.md", "../mounts.md#x", "nowhere.md#x", "mounts.md#x", "/etc/passwd#x"]
)
def test_there_is_no_runbook_elsewhere(place: str) -> None:
    assert runbook(place, "en") is None


# The pages


def test_everything_works_only_when_all_is_known_and_no_alert_fires(console: Console) -> None:
    def fine() -> bool:
        console.watcher.look()
        return is_fine(console.watcher.told, console.clock.now)

    assert not is_fine(console.watcher.told, console.clock.now)  # nothing is known yet
    assert fine()
    console.hosts.alerts = None
    assert not fine()
    console.hosts.alerts = (ALERT,)
    assert not fine()
    console.hosts.alerts = (replace(ALERT, silenced=("s",)),)
    assert fine()
    whole = console.hosts.statuses
    console.hosts.statuses = (replace(whole[0], failed="no route"), *whole[1:])
    assert not fine()
    console.hosts.statuses = whole
    assert fine()
    console.clock.now += 61
    assert not is_fine(console.watcher.told, console.clock.now)  # too old


def test_what_is_known_stays_and_is_said_to_be_old_when_the_hosts_are_away(console: Console) -> None:
    console.watcher.look()
    console.hosts.away = "cdn: no route"
    console.clock.now += 120
    console.watcher.look()
    page = console.logged_in("ann", Role.VIEWER).get("/").text
    assert "cdn: no route" in page
    assert "What is shown is 2\N{NO-BREAK SPACE}min old." in page
    assert "1c0ae4" in page
    assert "Everything works" not in page


def test_the_part_that_is_asked_for_again_is_no_whole_page(console: Console) -> None:
    console.watcher.look()
    browser = console.logged_in("ann", Role.VIEWER)
    part = browser.get("/?window=7d", headers={"X-Part": "1"}).text
    assert "<html" not in part
    assert 'id="host-cdn"' in part
    assert 'id="host-cdn"' in browser.get("/?window=nonsense").text
    part = browser.get("/alerts", headers={"X-Part": "1"}).text
    assert "<html" not in part
    assert 'id="firing"' in part


def test_a_viewer_sees_alerts_and_runbook_and_can_not_silence(console: Console) -> None:
    console.hosts.alerts = (ALERT,)
    console.watcher.look()
    viewer = console.logged_in("vic", Role.VIEWER)
    assert "resize-cache is not mounted" in viewer.get("/alerts").text
    page = viewer.get("/alerts/abc123", headers={"Accept-Language": "ru"}).text
    assert "Что делать" in page
    assert "/silence" not in page
    assert viewer.get("/alerts/gone").status_code == 404
    assert post(viewer, "/alerts/abc123/silence", reason="x", hours="1").status_code == 403
    assert console.hosts.sent == []


def test_a_silence_needs_reason_and_end_and_is_recorded(console: Console) -> None:
    console.hosts.alerts = (ALERT,)
    console.watcher.look()
    browser = console.logged_in("olga", Role.OPERATOR)
    for reason, hours in (
        ("", "1"),
        (" ", "1"),
        ("x", ""),
        ("x", "0"),
        ("x", "721"),
        ("x", "nan"),
        ("x", "-1"),
    ):
        assert post(browser, "/alerts/abc123/silence", reason=reason, hours=hours).status_code == 422
    assert console.hosts.sent == []
    assert post(browser, "/alerts/abc123/silence", reason="new disk comes", hours="2").status_code == 303
    [(method, path, body)] = console.hosts.sent
    assert (method, path) == ("POST", "/api/v2/silences")
    assert json.loads(body)["createdBy"] == "olga"
    entry = console.audit.search("alert.silence")[0]
    assert (entry.who, entry.target, entry.detail) == ("olga", "MountDown", "new disk comes")
    assert post(browser, "/silences/../../x/end").status_code in (404, 405)
    assert post(browser, "/silences/0b7c1f1e-1111-4222-8333-444455556666/end").status_code == 303
    assert console.hosts.sent[-1][:2] == ("DELETE", "/api/v2/silence/0b7c1f1e-1111-4222-8333-444455556666")
    console.hosts.away = "cdn: no route"
    assert post(browser, "/alerts/abc123/silence", reason="x", hours="1").status_code == 502
    assert console.audit.search("alert.silence")[0].result == "failed"
    program = browser.post(
        "/api/alerts/abc123/silence", json={"reason": "", "hours": 1}, headers={"X-CSRF-Token": csrf(browser)}
    )
    assert program.status_code == 422


def test_past_alerts_are_kept(console: Console) -> None:
    browser = console.logged_in("ann", Role.VIEWER)

    def past() -> list[tuple[str, float, float]]:
        return [(one["name"], one["began"], one["ended"]) for one in browser.get("/api/alerts/past").json()]

    console.hosts.alerts = (ALERT,)
    console.watcher.look()
    assert past() == []
    console.clock.now += 60
    console.hosts.alerts = None  # no answer is not the end
    console.watcher.look()
    console.hosts.away = "no route"
    console.watcher.look()
    assert past() == []
    console.hosts.alerts, console.hosts.away = (), ""
    console.watcher.look()
    ended = console.clock.now
    assert past() == [("MountDown", 1000.0, ended)]
    # It fires again, later.
    console.hosts.alerts = (replace(ALERT, since=2000.0),)
    console.watcher.look()
    assert past() == [("MountDown", 1000.0, ended)]
    assert "MountDown" in browser.get("/alerts").text

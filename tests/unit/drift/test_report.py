"""The forms of a report for programs."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

from bitrix_cdn.drift.allowances import settings_section
from bitrix_cdn.drift.report import Difference, HostReport, Report, as_json, as_junit, as_metrics

FILE = Difference("file", "/etc/a", "differs", "Role | Write", ["--- a", "+++ b", "-<x> & y"])
PORT = Difference("port", "8000/tcp", "python3 listens on 0.0.0.0", "Listening ports")
REPORT = Report(
    "inventories/shop.py",
    [
        HostReport("shop", ["bitrix"], [PORT], checks=["Role | Write", "Listening ports"]),
        HostReport(
            "pics", ["cdn"], [FILE, FILE, PORT], checks=["Role | Write", "Role | Run", "Listening ports"]
        ),
        HostReport("away", ["cdn"], failed="Could not connect"),
        HostReport("good", ["cdn"], checks=["Role | Write"]),
    ],
    started=1795528650.4,
    seconds=3.21,
)

# What Ant's schema and that of Jenkins' xUnit plugin (junit-10) both allow: attributes that must be there,
# those that may be, and the elements inside, in this order.
GRAMMAR: dict[str, tuple[set[str], set[str], str]] = {
    "testsuites": (set(), set(), "(testsuite )*"),
    "testsuite": (
        {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package", "id"},
        {"skipped"},
        "properties (testcase )*system-out system-err ",
    ),
    "testcase": ({"name", "classname", "time"}, set(), "((error|failure|skipped) )?"),
    "failure": ({"type"}, {"message"}, ""),
    "error": ({"type"}, {"message"}, ""),
    "properties": (set(), set(), "(property )*"),
    "system-out": (set(), set(), ""),
    "system-err": (set(), set(), ""),
}


def test_junit_is_valid() -> None:
    root = ET.fromstring(as_junit(REPORT))
    assert root.tag == "testsuites"
    for element in root.iter():
        must, may, inside = GRAMMAR[element.tag]
        assert must <= set(element.attrib) <= must | may, element.tag
        assert re.fullmatch(inside, "".join(f"{child.tag} " for child in element)), element.tag
    for number, suite in enumerate(root):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        assert suite.get("id") == str(number)
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))


def test_junit_has_a_suite_a_host_and_a_case_a_thing() -> None:
    suites = {suite.get("name"): suite for suite in ET.fromstring(as_junit(REPORT))}
    assert list(suites) == ["shop", "pics", "away", "good"]
    cases = {case.get("name"): case for case in suites["pics"].findall("testcase")}
    assert list(cases) == ["Role | Write", "Role | Run", "Listening ports"]
    failure = cases["Role | Write"].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "-<x> & y" in failure.text
    assert len(cases["Role | Run"]) == 0
    error = suites["away"].find("testcase/error")
    assert error is not None
    assert error.get("message") == "Could not connect"


def test_the_json_has_its_documented_shape() -> None:
    found = json.loads(as_json(REPORT))
    assert found.keys() == {"version", "inventory", "started", "seconds", "status", "hosts"}
    assert (found["version"], found["status"], found["started"]) == (1, "failed", "2026-11-24T13:57:30+00:00")
    assert [host["status"] for host in found["hosts"]] == ["drift", "drift", "failed", "clean"]
    assert found["hosts"][2]["error"] == "Could not connect"
    assert found["hosts"][0]["error"] is None
    [difference] = found["hosts"][0]["differences"]
    assert difference == {
        "kind": "port",
        "what": "8000/tcp",
        "summary": "python3 listens on 0.0.0.0",
        "check": "Listening ports",
        "diff": [],
    }


def test_metrics_say_nothing_of_a_host_that_was_not_checked() -> None:
    lines = as_metrics(REPORT).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples == [
        'drift_differences{host="shop"} 1',
        'drift_differences{host="pics"} 3',
        'drift_differences{host="good"} 0',
        'drift_check_failed{host="shop"} 0',
        'drift_check_failed{host="pics"} 0',
        'drift_check_failed{host="away"} 1',
        'drift_check_failed{host="good"} 0',
        "drift_check_timestamp_seconds 1795528650",
    ]


def test_a_suggestion_is_what_the_settings_take() -> None:
    key = Difference("key", "SHA256:" + "a" * 43, "is a key of the account root", "SSH keys")
    report = Report("i.py", [HostReport("shop", ["bitrix"], [PORT, key]), *REPORT.hosts[1:]], 0, 0)
    section = eval("{" + settings_section(report) + "}")
    assert section == {
        "drift": {
            "keys": ["SHA256:" + "a" * 43],
            "ports": ["8000/tcp"],
            "site_accounts": [],
            "site_ports": ["8000/tcp"],
        }
    }

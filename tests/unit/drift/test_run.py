"""From what a dry run tells to a report, in which no secret shows."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from bitrix_cdn.drift import run
from bitrix_cdn.drift.allowances import settings_section
from bitrix_cdn.drift.comparison import Undeclared
from bitrix_cdn.drift.redaction import MASK, Redaction
from bitrix_cdn.drift.report import CLEAN, DRIFT, FAILED, DriftError, Report, as_json, as_junit, as_metrics
from bitrix_cdn.drift.run import Deployment, Unchecked, ordered, packages
from bitrix_cdn.drift.table import show
from bitrix_cdn.engine.distribution import known
from bitrix_cdn.engine.findings import Commands, Finding, RefusedFile, SurplusFile, WrongUnit
from bitrix_cdn.fleet import UsageError
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.results import Failure
from tests.unit.drift.reports import ALERTING, OPEN, What, a_file, report, told


def outputs(found: Report) -> str:
    """All that a report can be printed as."""
    shown = io.StringIO()
    show(found, Console(file=shown, width=4000))
    return "\n".join(
        [
            shown.getvalue(),
            as_json(found),
            html.unescape(as_junit(found).decode()),
            as_metrics(found),
            settings_section(found),
        ]
    )


# One line, as secrets are; more than three characters, and none that the report itself is made of.
secret = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N", "P", "S"]), min_size=6
)
lines = [
    "{}",
    "  {}",
    "auth_password: {}",
    '        auth_password: "{}"',
    "- url: '{}'",
    "api_key={}",
    "requirepass {}",
    "https://user:{}@example.com/",
    "  - {}: x",
    "{}: {}",
    "receivers: {}",
]


# Each example makes two whole reports.
@settings(deadline=None)
@given(secret, secret, st.sampled_from(lines), st.sampled_from(lines))
@example("qwertz-12", "s3cret!'\"<&>", "auth_password: {}", "{}")
def test_no_secret_shows_in_any_output(known: str, unknown: str, line: str, other: str) -> None:
    """Neither one that the settings name, nor one that somebody wrote into a file that holds such."""
    public = (ROOT / "templates/alertmanager/etc/prometheus/alertmanager.yml.j2").read_text()
    there = f"global:\n{other.format(unknown, unknown)}\n# {known}\nroute:\n"
    wanted = f"global:\n{line.format(json.dumps(known)[1:-1], known)}\nroute:\n"
    records: list[What] = [
        a_file(ALERTING, there, wanted),
        a_file(OPEN, f"# {known}\nuser x;\n", f"proxy_pass http://x/{known};\n", mode="644"),
        WrongUnit("nginx.service", (f"says {known}",)),
        SurplusFile(f"/etc/{known}"),
        RefusedFile(f"/etc/{known}", f"no {known}"),
        Commands((f"useradd -p {known} eve",)),
        Undeclared("Accounts", "account", known, known),
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = outputs(report(monkeypatch, told(*records, secrets=[known])))
        without = [a_file(ALERTING, "a\n", "b\n"), a_file(OPEN, "a\n", "b\n", mode="644"), *records[2:]]
        plain = outputs(report(monkeypatch, told(*without, secrets=[known])))
    for one in (known, unknown):
        assume(one not in public and one not in plain and one not in "proxy_pass http://x/")
        assert one not in found
        assert json.dumps(one)[1:-1] not in found
    assert MASK in found


def test_a_file_of_secrets_shows_which_lines_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    there = "global:\n        auth_password: hunter2\n        require_tls: true\n"
    wanted = "global:\n        auth_password: s3cret-9\n        require_tls: true\n"
    found = report(monkeypatch, told(a_file(ALERTING, there, wanted), secrets=["s3cret-9"]))
    [difference] = found.hosts[1].differences
    assert difference.kind == "file"
    assert f"-        auth_password: {MASK}" in difference.diff
    assert f"+        auth_password: {MASK}" in difference.diff
    assert f"         require_tls: {MASK}" in difference.diff


def test_a_file_for_all_to_read_shows_how_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    records = told(a_file(OPEN, "worker_processes 1;\nkeep;\n", "worker_processes 2;\nkeep;\n", mode="644"))
    [difference] = report(monkeypatch, records).hosts[1].differences
    assert difference.diff[2:] == [
        "@@ -1,2 +1,2 @@",
        "-worker_processes 1;",
        "+worker_processes 2;",
        " keep;",
    ]
    assert difference.check == "Alertmanager | Write the routes"


def test_a_file_that_somebody_closed_shows_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_file(OPEN, "key abcdef\n", "key ghijkl\n", mode="644", access=("600", "root", "root"))
    found = report(monkeypatch, told(record))
    assert [one.kind for one in found.hosts[1].differences] == ["access", "file"]
    assert "abcdef" not in outputs(found)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"kind": "nothing"}, "is missing"),
        ({"kind": "link to /dev/null"}, "is a link to /dev/null, must be a file"),
        (
            {"access": ("666", "www-data", "root"), "same": True},
            "is 666 www-data:root, must be 644 root:root",
        ),
        ({"content": None}, "differs, and is too long to show how"),
        ({"content": "b", "must_content": "b\n"}, "differs in its line ends"),
    ],
)
def test_what_else_a_file_can_be(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], said: str) -> None:
    found = report(monkeypatch, told(a_file(OPEN, "a\n", "b\n", mode="644", **record)))
    assert [(one.what, one.summary) for one in found.hosts[1].differences] == [(OPEN, said)]


def test_a_change_that_nobody_explains_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    [difference] = report(monkeypatch, told()).hosts[1].differences
    assert (difference.kind, difference.what) == ("operation", "Alertmanager | Write the routes")


def test_packages_and_services_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "DEBIAN_FRONTEND=noninteractive apt-get -y -o X=y --no-install-recommends install mtail nginx"
    assert packages(command) == ["mtail", "nginx"]
    rocky = known({"id": "rocky", "version": "9.4"})
    assert rocky is not None
    assert packages(rocky.install_script(["sshfs", "restic"])) == ["fuse-sshfs", "restic"]
    found = report(monkeypatch, told(Commands((command,))))
    assert [(one.kind, one.what) for one in found.hosts[1].differences] == [
        ("package", "mtail"),
        ("package", "nginx"),
    ]
    found = report(monkeypatch, told(Commands(("systemctl stop redis-server.service",))))
    [difference] = found.hosts[1].differences
    assert (difference.kind, difference.what) == ("service", "redis-server.service")
    assert "systemctl stop" in difference.summary


def test_the_exit_status_says_clean_drift_or_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, told(), changed=()).status == CLEAN
    assert report(monkeypatch, told()).status == DRIFT
    unknown = Undeclared("Accounts", "account", "eve", "is unknown")
    assert report(monkeypatch, told(unknown), changed=()).status == DRIFT
    # What is not known counts more than what is.
    assert report(monkeypatch, told(done=["pics"])).status == FAILED


def test_a_host_that_is_missing_in_the_plan_was_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(
        monkeypatch,
        told(done=["pics"]),
        failure=Failure("No hosts remaining!"),
        faults={"shop": "Could not connect (timed out)"},
    )
    assert [(one.name, one.failed) for one in found.hosts] == [
        ("shop", "Could not connect (timed out)"),
        ("pics", ""),
    ]
    # Nothing that was told of it before it failed is taken for what it is.
    failed = Finding("shop", None, Unchecked("held by ann since 10:00", held=True))
    before = Finding("shop", "1", SurplusFile("/etc/x"))
    shop, pics = report(monkeypatch, [before, failed, *told(done=["pics"])]).hosts
    assert (shop.failed, shop.held, shop.differences) == ("held by ann since 10:00", True, [])
    assert not pics.held


def test_a_limit_chooses_hosts_and_groups_and_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, names in ((["pics"], ["pics"]), (["bitrix"], ["shop"]), (["s*", "cdn"], ["shop", "pics"])):
        assert [one.name for one in report(monkeypatch, told(), limit=limit).hosts] == names
    with pytest.raises(UsageError, match=r"no host or group is named pisc; there are: bitrix, cdn"):
        report(monkeypatch, told(), limit=["pics", "pisc"])


def test_a_pyinfra_that_fails_after_all_hosts_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriftError, match=r"pyinfra failed: Cycle detected"):
        report(monkeypatch, told(), failure=Failure("Cycle detected"))


@pytest.mark.parametrize("kind", [UsageError, KeyboardInterrupt])
def test_a_check_that_never_began_is_no_report(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    with pytest.raises(kind, match="why"):
        report(monkeypatch, told(), failure=Failure("why", kind=kind))


def test_what_is_told_is_put_in_order_by_host() -> None:
    found = ordered(told(SurplusFile("/a"), secrets=["x"]))
    assert found.deployment == Deployment("/m", ("x",))
    assert [one.what for one in found.of_hosts["pics"]] == [SurplusFile("/a")]


def test_masks_stay_away_from_short_and_empty_secrets() -> None:
    assert Redaction(["", None, "ab"]).text("about") == "about"


@pytest.mark.parametrize(
    "line",
    [
        "password = hunter2-x",
        "redis_password: 'hunter2-x'",
        '"api_key": "hunter2-x"',
        "requirepass hunter2-x",
        "url = https://user:hunter2-x@example.com/",
        "telegram 1234567890:AAhunter2-xAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_what_looks_like_a_secret_is_masked_wherever_it_is(line: str) -> None:
    assert "hunter2-x" not in Redaction().text(line)


@pytest.mark.parametrize("line", ["server_tokens off;", "token_file = /etc/x", "listen 80;", "host: a:b"])
def test_what_does_not_look_like_one_is_left(line: str) -> None:
    assert Redaction().text(line) == line


def test_a_private_key_is_masked_line_by_line() -> None:
    label = "PRIVATE KEY"
    pem = f"-----BEGIN {label}-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END {label}-----\n"
    shown = "\n".join(Redaction().diff("/etc/x.pem", pem, pem.replace("hkiG", "hkiH"), public=None))
    assert "MIIE" not in shown
    assert "hki" not in shown
    assert "MIIE" not in Redaction().text(f"x\n{pem}y")


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert "\x1b" not in Redaction().text("\x1b[2Jgone")


def test_a_long_diff_is_cut() -> None:
    there = "".join(f"line {number}\n" for number in range(500))
    assert len(Redaction().diff("/x", there, "", public=None)) == 201


def test_this_repository_is_where_the_check_runs() -> None:
    assert (ROOT / run.CHECK).is_file()
    assert isinstance(ROOT, Path)

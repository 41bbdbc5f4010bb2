"""What a plan shows, keeps, and refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bitrix_cdn.deploy import plan as plans
from bitrix_cdn.deploy.plan import Plan
from bitrix_cdn.drift.comparison import Undeclared
from bitrix_cdn.drift.redaction import MASK, Redaction
from bitrix_cdn.drift.report import Difference
from bitrix_cdn.fleet import RefusedError, UsageError
from tests.unit.drift.reports import ALERTING, a_file, report, told

ONE = Difference("file", "/etc/x", "differs", "nginx | Write x", ["--- a", "+++ b", "-1", "+2"])
PLAN = Plan("shop.py", (), "state", {"cdn": (ONE,)}, {"cdn": "1"}, "salt", "today", "ann")


def test_a_plan_is_kept_for_its_owner_alone_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    plans.save(PLAN, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert plans.read(path) == PLAN
    plans.save(PLAN, path)  # another one in its place
    assert [one.name for one in tmp_path.iterdir()] == ["plan"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 9}', "\x00"])
def test_what_is_no_plan_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    with pytest.raises(UsageError, match="No such file"):
        plans.read(path)
    path.write_text(text)
    with pytest.raises(UsageError, match=r"plan: is (no plan|of another version)"):
        plans.read(path)


def test_hosts_or_sources_that_have_moved_on_are_refused() -> None:
    plans.refuse_if_moved_on(PLAN, dataclasses.replace(PLAN, made="later", by="bob"))
    with pytest.raises(RefusedError, match="the sources or the inventory"):
        plans.refuse_if_moved_on(PLAN, dataclasses.replace(PLAN, state="other"))
    for digests in ({"cdn": "2"}, {}, {"cdn": "1", "edge": "1"}):
        with pytest.raises(RefusedError, match="a deploy would change something else than was planned"):
            plans.refuse_if_moved_on(PLAN, dataclasses.replace(PLAN, digests=digests))


THERE = "global:\n    smtp: a\n\n\n\n\n\nurl: https://hooks.test/old-0ld-old\n"
WANTED = "global:\n    smtp: b\n\n\n\n\n\nurl: https://hooks.test/s3cret-9\n"


def planned(
    monkeypatch: pytest.MonkeyPatch, there: str, wanted: str, salt: str = "1"
) -> tuple[list[str], str]:
    records = told(
        a_file(ALERTING, there, wanted),
        Undeclared("Accounts", "account", "eve", "x"),
        secrets=["s3cret-9"],
    )
    host = report(monkeypatch, records, salt=salt).hosts[1]
    [difference] = host.differences  # what no deploy would change is no part of it
    return difference.diff, host.digest


def test_a_file_that_not_everybody_may_read_is_shown_and_its_secrets_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diff, _ = planned(monkeypatch, THERE, WANTED)
    assert ["-    smtp: a" in diff, "+    smtp: b" in diff] == [True, True]
    assert f"+url: https://hooks.test/{MASK}" in diff
    # What a secret replaces is one too, although it isn't known.
    assert f"-url: {MASK}" in diff
    assert "old-0ld-old" not in json.dumps(diff)


def test_each_line_of_a_block_that_gets_a_secret_is_hidden_as_it_was() -> None:
    diff = Redaction(["s3cret-9"]).diff("/p", "hunter2\n", "s3cret-9\n", public=set(), reveal=True)
    assert diff[3:] == [f"-{MASK}", f"+{MASK}"]
    named = Redaction().diff("/p", "hunter2\n", "password = x\n", public=set(), reveal=True)
    assert "hunter2" not in "".join(named)


def test_another_secret_is_another_plan_though_it_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, digest = planned(monkeypatch, THERE, WANTED)
    assert planned(monkeypatch, THERE, WANTED) == (shown, digest)
    again, other = planned(monkeypatch, THERE.replace("old-0ld-old", "older-old"), WANTED)
    assert again == shown
    assert other != digest
    assert planned(monkeypatch, THERE, WANTED, salt="2")[1] != digest

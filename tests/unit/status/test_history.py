"""The audit logs of several hosts, put together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bitrix_cdn.fleet import UsageError
from bitrix_cdn.status.history import lines, merged, moment


def entry(event: str, run: str, time: str, **more: Any) -> dict[str, Any]:
    who = {"what": "deploy", "operator": "ann", "machine": "laptop", "inventory": "shop.py"}
    return {"event": event, "run": run, "time": f"2026-11-28T{time}.000Z", **who, **more}


def log(*entries: dict[str, Any], broken: tuple[str, ...] = (), at_work: tuple[str, ...] = ()) -> Any:
    return {"entries": [*entries], "broken": [*broken], "at_work": [*at_work]}


def test_runs_come_by_time_each_with_its_hosts() -> None:
    found = merged(
        {
            "cdn": log(
                entry("begin", "b", "12:00:00"),
                entry("end", "b", "12:00:09", result="ok", changes=2, seconds=9.2, plan="f00d"),
                entry("begin", "c", "13:00:00", operator="bob"),
            ),
            "bitrix": log(
                entry("begin", "a", "11:00:00"),
                entry("end", "a", "11:00:01", result="failed", changes=0, why="bitrix: Install Varnish"),
                entry("begin", "b", "12:00:00"),
                entry("end", "b", "12:00:09", result="ok", changes=1, seconds=9.2),
            ),
        }
    )
    assert [line for run in found.runs for line in lines(run)] == [
        "2026-11-28 11:00:00 UTC  deploy, by ann on laptop, shop.py",
        "    bitrix  failed, nothing changed: bitrix: Install Varnish",
        "2026-11-28 12:00:00 UTC  deploy, by ann on laptop, shop.py",
        "    bitrix  ok, 1 change, 9 s",
        "    cdn     ok, 2 changes, 9 s, plan f00d",
        "2026-11-28 13:00:00 UTC  deploy, by bob on laptop, shop.py",
        "    cdn  did not end",
    ]
    assert found.broken == {}


def test_what_is_at_work_and_what_went_on_over_a_lost_connection() -> None:
    found = merged(
        {
            "cdn": log(
                entry("begin", "a", "11:00:00"),
                entry("end", "a", "11:10:00", result="interrupted"),
                entry("end", "a", "11:20:00", result="ok"),
                entry("begin", "b", "12:00:00"),
                at_work=("b",),
                broken=("line 2 is cut short",),
            )
        }
    )
    assert [run.hosts["cdn"].result for run in found.runs] == ["ok", "at work"]
    assert found.broken == {"cdn": ["line 2 is cut short"]}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-01", "2026-11-01T00:00:00"),
        ("2026-11-01T10:30", "2026-11-01T10:30:00"),
        ("2026-11-01T10:30+03:00", "2026-11-01T07:30:00"),
        ("90m", "2026-11-28T10:30:00"),
        ("7d", "2026-11-21T12:00:00"),
    ],
)
def test_a_time_is_a_date_or_so_long_ago(text: str, time: str) -> None:
    assert moment(text, datetime(2026, 11, 28, 12, tzinfo=UTC)) == time


@pytest.mark.parametrize("text", ["yesterday", "7w", "-3d", "2026-13-01"])
def test_another_time_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="is allowed"):
        moment(text)

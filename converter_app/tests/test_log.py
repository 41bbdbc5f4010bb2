"""What the log tells, and what it only counts."""

from __future__ import annotations

import logging

import pytest

from webp_converter.base import log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(log, "_minutes", {})
    return now


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [(record.getMessage(), record.__dict__["fields"]) for record in caplog.records]


def test_what_the_site_can_cause_a_thousand_times_is_told_twenty_times_and_counted(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(1000):
        log.sparing("damaged picture removed", path=b"/%d.jpg" % number)
    assert len(told(caplog)) == log.EACH
    log.info("published", path=b"/a.jpg")
    assert len(told(caplog)) == log.EACH + 1
    clock[0] += log.MINUTE_S
    log.info("published", path=b"/b.jpg")
    assert ("damaged picture removed", {"more": 980}) in told(caplog)[log.EACH + 1 :]
    # The next minute begins anew, and nothing is counted twice.
    log.sparing("damaged picture removed", path=b"/c.jpg")
    assert told(caplog)[-1] == ("damaged picture removed", {"path": b"/c.jpg"})
    assert len(told(caplog)) == log.EACH + 4


def test_few_are_told_each_and_kinds_do_not_share(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(log.EACH):
        log.sparing("one kind")
    log.sparing("another kind")
    clock[0] += log.MINUTE_S
    log.info("published")
    assert len(told(caplog)) == log.EACH + 2

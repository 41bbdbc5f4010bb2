"""What the operator's machine remembers of a rollout."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bitrix_cdn.rollout.errors import RefusedError, RolloutError
from bitrix_cdn.rollout.record import Record


def opened(home: Path, state: str = "one", said: list[str] | None = None) -> Record:
    record = Record("inventories/shop.py", home)
    record.open(state, (said if said is not None else []).append)
    return record


def test_an_unfinished_rollout_is_gone_on_with(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.finish(["edge1"])
    first.enter(["edge2"], "deploy")
    token = first.progress.token
    first.close()
    second = opened(tmp_path)
    assert list(second.progress.finished) == ["edge1"]
    assert (second.progress.batch, second.progress.step) == (["edge2"], "deploy")
    assert second.progress.token == token
    second.close()


def test_another_state_begins_anew_with_the_same_lock(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.finish(["edge1"])
    token = first.progress.token
    first.close()
    second = opened(tmp_path, "two")
    assert second.progress.finished == {}
    assert second.progress.token == token
    second.close()


def test_one_that_has_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.finish(["edge1"])
    first.end()
    first.close()
    second = opened(tmp_path)
    assert second.progress.finished == {}
    second.close()


def test_two_runs_at_once_are_one_too_many(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(RefusedError, match="runs here already"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_other_inventories_have_records_of_their_own(tmp_path: Path) -> None:
    first = opened(tmp_path)
    other = Record("inventories/other.py", tmp_path)
    other.open("one", lambda text: None)
    assert other.progress.token != first.progress.token
    first.close()
    other.close()


def test_what_a_killed_run_started_is_waited_for(tmp_path: Path) -> None:
    first = opened(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[first.work])
    first.close()
    said: list[str] = []
    begun = time.monotonic()
    threading.Timer(1.0, child.communicate, [b"\n"]).start()
    opened(tmp_path, said=said).close()
    assert time.monotonic() - begun >= 1
    assert said == ["waiting for the end of what a killed rollout started"]


@pytest.mark.parametrize("content", ["", "{", '{"unknown": 1}'])
def test_one_that_can_not_be_read_is_said(tmp_path: Path, content: str) -> None:
    opened(tmp_path).close()
    [file] = tmp_path.glob("*.json")
    file.write_text(content)
    with pytest.raises(RolloutError, match="can't be read; remove it"):
        opened(tmp_path)


def test_only_the_last_logs_are_kept(tmp_path: Path) -> None:
    record = opened(tmp_path)
    for number in range(60):
        (record.logs / f"20260101T0000{number:02}-deploy.log").touch()
    record.log("deploy").touch()
    assert len(list(record.logs.glob("*.log"))) == 51
    record.close()

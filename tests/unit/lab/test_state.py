"""The record of a lab, and the lock that guards it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev.lab import state
from dev.lab.errors import LabError
from dev.lab.layout import Layout
from dev.lab.state import HostRecord, Record

RECORD = Record("one", 7, "trixie", (HostRecord("bitrix", 2, "base-1"), HostRecord("cdn", 3, "base-2")))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Layout:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    return Layout("one")


def test_a_record_is_read_as_written(files: Layout) -> None:
    assert state.read(files) is None
    state.write(files, RECORD)
    assert state.read(files) == RECORD
    # What is being discarded is no lab any more.
    discarded = files.directory.with_name(".discarded-one-1")
    discarded.mkdir()
    (discarded / "state.json").write_text(files.record.read_text())
    assert state.all_records() == [RECORD]
    assert [path.name for path in files.directory.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 0}', '{"format": 1}', '{"format": 1, "hosts": [1]}', "\0"]
)
def test_an_unreadable_record_is_one_line(files: Layout, text: str) -> None:
    files.directory.mkdir(parents=True)
    files.record.write_text(text)
    with pytest.raises(LabError, match="lab down") as caught:
        state.read(files)
    assert "\n" not in str(caught.value)
    assert state.all_records() == []


def test_no_lab_is_one_line_that_says_how_to_start_it(files: Layout) -> None:
    with pytest.raises(LabError) as caught:
        state.load("one")
    assert str(caught.value) == "there is no lab one: start it with `LAB_NAME=one python -m dev.lab up`"


def test_an_unknown_host_is_one_line_that_names_those_there_are() -> None:
    with pytest.raises(LabError, match=r"no host 'edge' \(its hosts: bitrix, cdn\)"):
        RECORD.host("edge")


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "directory" / ".lock"
    waited: list[str] = []
    with state.locked(lock):
        with (
            pytest.raises(LabError, match="has been held"),
            state.locked(lock, lambda: waited.append("x"), timeout=0.1),
        ):
            pytest.fail("two hold the same lock")
        assert waited == ["x"]
    assert not lock.exists()
    with state.locked(lock):
        pass


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    script = (
        "import sys, time; from pathlib import Path; from dev.lab import state\n"
        "with state.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LabError), state.locked(lock, timeout=0.1):
            pytest.fail("the other process holds it")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    with state.locked(lock, timeout=5):
        pass
    assert not lock.exists()

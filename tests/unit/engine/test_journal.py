"""What scripts record before they change something, with the programs that run on hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitrix_cdn.engine import agent, journal
from bitrix_cdn.engine.journal import begin_script, commit_script, record_script, undo_script
from host_agent.journal import JOURNAL
from tests.kit.agent import sent_with


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the journal is in these tests, for what is sent to the hosts too."""
    place = tmp_path / "lib/journal"
    monkeypatch.setattr(journal, "JOURNAL", place)
    with sent_with("journal", JOURNAL, place, tmp_path / "agent"):
        yield place


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "it's a file"
    file.write_text("first\n")
    return file


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", f"set -eu\n{script}"], capture_output=True, text=True, check=False)


def told(script: str) -> dict[str, object]:
    done = run(script)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_what_a_script_changes_is_undone(file: Path, place: Path) -> None:
    assert told(begin_script()) == {"open": True}
    for content in ("second", "third"):
        done = run(f'{record_script([str(file)])}\necho {content} > "{file}"')
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    undone = told(undo_script())
    assert undone == {"open": False, "was_open": True, "paths": 1, "units": []}
    assert file.read_text() == "first\n"
    assert told(undo_script()) == {"open": False, "was_open": False}


def test_what_a_script_changes_is_kept(file: Path) -> None:
    told(begin_script())
    run(f'{record_script([str(file)])}\necho second > "{file}"')
    assert told(commit_script()) == {"open": False, "was_open": True}
    assert file.read_text() == "second\n"


def test_where_no_journal_is_open_a_script_needs_no_python_and_leaves_nothing(
    file: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "PYTHON", "/nonexistent/python3")
    done = run(f"{record_script([str(file)], unit='a.service', action='restart')}\necho done")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert not place.parent.exists()


def test_what_can_not_be_recorded_is_not_changed(file: Path, place: Path) -> None:
    told(begin_script())
    (place / "files").write_text("in the way")
    done = run(f'{record_script([str(file)])}\necho second > "{file}"')
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert file.read_text() == "first\n"


def test_an_undo_waits_for_a_script_that_has_recorded(file: Path) -> None:
    told(begin_script())
    slow = f'set -eu\n{record_script([str(file)])}\necho recorded\nsleep 1\necho second > "{file}"'
    with subprocess.Popen(["sh", "-c", slow], stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout
        assert script.stdout.readline() == "recorded\n"
        told(undo_script())
    assert file.read_text() == "first\n"


@pytest.mark.parametrize("within", ["a journal", "none"])
def test_a_trial_is_recorded_whether_or_not_a_journal_is_open(
    file: Path, place: Path, tmp_path: Path, within: str
) -> None:
    trial = tmp_path / "trial"
    if within == "a journal":
        told(begin_script())
    assert run(f'{record_script([str(file)], trial=str(trial))}\necho second > "{file}"').returncode == 0
    assert len(list((trial / "files").iterdir())) == 1
    if within == "a journal":
        assert told(undo_script())["paths"] == 2
        assert (file.read_text(), trial.exists()) == ("first\n", False)

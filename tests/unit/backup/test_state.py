"""What is remembered of the last runs, what Prometheus is told, and that runs don't meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.backup.errors import BackupError, Status
from host_agent.backup.state import METRICS, Restore, State, Task, alone, forget_restore


def test_a_failure_keeps_the_time_of_the_last_success() -> None:
    good = Task().ended(1000.0, 5.0, None)
    assert (good.run, good.success, good.error) == (1000.0, 1000.0, "")
    bad = good.ended(2000.0, 1.0, BackupError("no space is left", Status.DISK_FULL))
    assert (bad.run, bad.success, bad.error, bad.status) == (2000.0, 1000.0, "no space is left", 6)


def test_prometheus_is_told_only_of_what_was() -> None:
    text = State().metrics()
    assert [line for line in text.splitlines() if not line.startswith("#")] == []
    failed = State(backup=Task().ended(2000.0, 1.0, BackupError("x")))
    assert 'backup_failed{what="backup"} 1' in failed.metrics()
    assert "last_success_timestamp_seconds{" not in failed.metrics()
    good = replace(failed, backup=failed.backup.ended(3000.0, 2.0, None), snapshot="ab", size=7, added=3)
    for line in (
        'backup_failed{what="backup"} 0',
        'backup_last_success_timestamp_seconds{what="backup"} 3000.000',
        "backup_size_bytes 7",
        "backup_added_bytes 3",
    ):
        assert line in good.metrics().splitlines()


def test_it_is_saved_for_root_alone_and_told_to_all(tmp_path: Path) -> None:
    state = State(snapshot="ab", check=Task().ended(1.0, 1.0, None)).opened("/srv", "id")
    state.save(tmp_path, str(tmp_path / "metrics"))
    assert State.load(tmp_path) == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "metrics" / METRICS).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", ["", "{", "[]", '{"backup": {}}', '{"backup": 1, "check": 2}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert State.load(tmp_path) == State()


def test_a_repository_is_known_at_its_place_only() -> None:
    state = State().opened("/srv/a", "id")
    assert state.known("/srv/a") == "id"
    assert state.known("/srv/b") == ""


def test_a_restore_remembers_what_is_done(tmp_path: Path) -> None:
    assert Restore.load(tmp_path) is None
    restore = Restore("ab12", "yesterday", True).with_done("identity").with_done("pictures")
    restore.save(tmp_path)
    assert Restore.load(tmp_path) == restore
    forget_restore(tmp_path)
    forget_restore(tmp_path)
    assert Restore.load(tmp_path) is None


def test_a_damaged_restore_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "restore.json").write_text("{")
    with pytest.raises(BackupError, match="remove it to start over"):
        Restore.load(tmp_path)


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(BackupError) as caught, alone(tmp_path):
        pass
    assert caught.value.status == Status.LOCKED
    with alone(tmp_path):
        pass

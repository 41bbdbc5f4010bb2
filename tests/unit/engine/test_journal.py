"""The undo journal: its scripts, on files of a test's own, with a systemctl that keeps states in files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitrix_cdn.engine.journal import commit_script, undo_script
from tests.unit.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def seen(root: Path) -> dict[str, tuple[str, int, int, str]]:
    """All below a directory: what it is, its mode, its time and what is in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            found[str(path)] = ("link", 0, 0, str(path.readlink()))
        elif path.is_dir():
            found[str(path)] = ("directory", status.st_mode, 0, "")
        else:
            found[str(path)] = ("file", status.st_mode, status.st_mtime_ns, path.read_text())
    return found


def test_files_links_and_directories_go_back_as_they_were(machine: Machine) -> None:
    kept, gone, link = machine.etc / "it's.conf", machine.etc / "old.conf", machine.etc / "current"
    new, deep = machine.etc / "new.conf", machine.etc / "a/b/c.conf"
    release, stamp = machine.etc / "releases/2", machine.etc / "applied/x"
    kept.write_text("Привет\n")
    kept.chmod(0o600)
    gone.write_text("x\n")
    link.symlink_to("releases/1")
    for path in (kept, gone):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    before = seen(machine.etc)
    machine.begin()
    machine.done(machine.record(kept, gone, link, new, deep, late=(release, stamp)))
    kept.write_text("other\n")
    gone.unlink()
    link.unlink()
    link.symlink_to("releases/2")
    new.write_text("")
    (deep.parent).mkdir(parents=True)
    deep.write_text("")
    (release / "bin").mkdir(parents=True)
    (release / "bin/python").write_text("")
    stamp.parent.mkdir()
    stamp.write_text("")
    (machine.etc / "new.conf.bitrix-cdn-new").write_text("of a run that was killed")
    assert "put back 7 paths" in machine.undo()
    assert seen(machine.etc) == before
    assert not machine.journal.exists()


def test_what_was_first_recorded_counts(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("first\n")
    machine.begin()
    for content in ("second\n", "third\n"):
        machine.done(machine.record(path))
        path.write_text(content)
        machine.begin()
    machine.undo()
    assert path.read_text() == "first\n"


def test_without_a_journal_nothing_is_recorded_and_nothing_undone(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("first\n")
    machine.done(machine.record(path, unit="a.service", action="restart"))
    assert not machine.journal.parent.exists()
    machine.journal.parent.mkdir()
    assert "nothing to do" in machine.undo()


def test_a_directory_that_holds_more_meanwhile_stays(machine: Machine) -> None:
    machine.begin()
    machine.done(machine.record(machine.etc / "d/a.conf"))
    (machine.etc / "d").mkdir()
    (machine.etc / "d/a.conf").write_text("ours")
    (machine.etc / "d/b.conf").write_text("the administrator's")
    machine.undo()
    assert [path.name for path in (machine.etc / "d").iterdir()] == ["b.conf"]


def test_units_are_restarted_or_reloaded_as_they_were_in_the_order_of_the_deploy(machine: Machine) -> None:
    machine.unit("nginx.service", "active", "enabled")
    machine.unit("redis.service", "active", "enabled")
    machine.unit("fresh.timer", "inactive", "disabled")
    machine.unit("looked-at.service", "active", "enabled")
    machine.begin()
    machine.done(machine.record(unit="redis.service", action="restart"))
    machine.done(machine.record(unit="fresh.timer", action="restart") + "\nsystemctl enable fresh.timer")
    machine.done(machine.record(unit="nginx.service", action="reload"))
    machine.done(machine.record(unit="looked-at.service"))
    machine.unit("fresh.timer", "active", "enabled")
    (machine.units / "log").unlink()
    machine.undo()
    assert machine.log() == [
        "stop fresh.timer",
        "disable fresh.timer",
        "daemon-reload",
        "restart redis.service",
        "reload-or-restart nginx.service",
    ]
    assert (machine.units / "fresh.timer.active").read_text() == "inactive\n"


def test_a_unit_that_was_reloaded_first_and_restarted_then_is_restarted(machine: Machine) -> None:
    machine.unit("nginx.service", "active", "enabled")
    machine.begin()
    for action in ("reload", "restart"):
        machine.done(machine.record(unit="nginx.service", action=action))
    machine.undo()
    assert "restart nginx.service" in machine.log()


def test_a_unit_that_does_not_come_back_keeps_the_journal_and_the_stamps(machine: Machine) -> None:
    stamp, path = machine.etc / "stamp", machine.etc / "a.conf"
    stamp.write_text("old\n")
    path.write_text("old\n")
    machine.unit("a.service", "active", "enabled")
    machine.unit("b.service", "active", "enabled")
    machine.begin()
    machine.done(machine.record(path, late=(stamp,), unit="a.service", action="restart"))
    machine.done(machine.record(unit="b.service", action="restart"))
    stamp.write_text("new\n")
    path.write_text("new\n")
    (machine.units / "a.service.broken").touch()
    result = machine.run(undo_script(str(machine.journal)))
    assert result.returncode == 1
    assert result.stderr == "a.service does not come back; its last lines:\nlast words of a.service\n"
    assert "restart b.service" in machine.log()
    # A deploy that comes now must not think that the unit runs with the old files.
    assert (path.read_text(), stamp.read_text()) == ("old\n", "new\n")
    (machine.units / "a.service.broken").unlink()
    machine.undo()
    assert stamp.read_text() == "old\n"


def test_a_unit_that_was_failed_before_need_not_work_after(machine: Machine) -> None:
    machine.unit("a.service", "failed", "enabled")
    machine.begin()
    machine.done(machine.record(unit="a.service", action="restart"))
    machine.unit("a.service", "active", "enabled")
    machine.undo()
    assert (machine.units / "a.service.active").read_text() == "inactive\n"


def test_committing_keeps_the_change(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("first\n")
    machine.begin()
    machine.done(machine.record(path))
    path.write_text("second\n")
    machine.done(commit_script(str(machine.journal)))
    assert "nothing to do" in machine.undo()
    assert path.read_text() == "second\n"


def test_a_change_of_a_trial_is_undone_alone_and_with_all_else(machine: Machine) -> None:
    path, other, trial = machine.etc / "a.conf", machine.etc / "b.conf", machine.etc / "trial"
    for file in (path, other):
        file.write_text("first\n")
    machine.begin()
    machine.done(machine.record(other))
    machine.done(machine.record(path, trial=str(trial)))
    for file in (path, other):
        file.write_text("second\n")
    machine.done(undo_script(str(trial)))
    assert (path.read_text(), other.read_text()) == ("first\n", "second\n")
    machine.done(machine.record(path, trial=str(trial)))
    path.write_text("third\n")
    machine.undo()
    assert (path.read_text(), other.read_text()) == ("first\n", "first\n")
    assert not trial.exists()


STEPS = ("cp", "mv", "rm", "mkdir", "sync", "rmdir", "systemctl")


@pytest.fixture
def killer(tmp_path: Path) -> Path:
    """Commands that kill the script that runs them before the step whose number is in $UNITS/kill."""
    directory = tmp_path / "killer"
    directory.mkdir()
    for name in STEPS:
        command = directory / name
        command.write_text(
            "#!/bin/sh\nread n < $UNITS/steps; n=$((n + 1)); echo $n > $UNITS/steps; read at < $UNITS/kill\n"
            "[ $n != $at ] || { read script < $UNITS/script; kill -9 $script; exit 1; }\n"
            f'PATH=${{PATH#*:}} exec {name} "$@"\n'
        )
        command.chmod(0o755)
    return directory


def finishes(machine: Machine, script: str, killer: Path, step: int) -> bool:
    """Runs a script; whether it came to its end before that step."""
    (machine.units / "steps").write_text("0\n")
    (machine.units / "kill").write_text(f"{step}\n")
    result = machine.run(f"echo $$ > $UNITS/script\nPATH={killer}:$PATH\n{script}")
    assert result.returncode in (0, -9), result.stderr
    return result.returncode == 0


def test_killed_before_any_step_of_recording_or_undoing_all_is_right_in_the_end(
    tmp_path: Path, killer: Path
) -> None:
    for kill_change in (True, False):
        step, finished = 0, False
        while not finished:
            step += 1
            root = tmp_path / f"{kill_change}-{step}"
            root.mkdir()
            machine = Machine(root)
            changed, removed = machine.etc / "a.conf", machine.etc / "b.conf"
            new, stamp = machine.etc / "d/c.conf", machine.etc / "stamp"
            changed.write_text("old a\n")
            removed.write_text("old b\n")
            stamp.write_text("old stamp\n")
            machine.unit("a.service", "active", "enabled")
            before = seen(machine.etc)
            change = "\n".join(
                [
                    machine.record(changed, removed, new, late=(stamp,), unit="a.service", action="restart"),
                    f"rm {removed}; mkdir -p {new.parent}; echo new > {new}",
                    f"echo new > {changed}.bitrix-cdn-new; mv {changed}.bitrix-cdn-new {changed}",
                    f"systemctl restart a.service; echo new > {stamp}",
                ]
            )
            undo = undo_script(str(machine.journal))
            machine.begin()
            if kill_change:
                finished = finishes(machine, change, killer, step)
            else:
                machine.done(change)
                finished = finishes(machine, undo, killer, step)
            machine.done(undo)
            assert seen(machine.etc) == before, f"killed at {step} of {'change' if kill_change else 'undo'}"
            assert not machine.journal.exists()
        assert step > 10, "nothing was ever killed"


def test_undoing_waits_for_what_still_works_on_the_host(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("old\n")
    machine.begin()
    slow = machine.record(path) + f"\necho on > {machine.units}/started; /bin/sleep 1; echo new > {path}"
    background = f"( {slow} ) & while [ ! -e {machine.units}/started ]; do /bin/sleep 0.05; done\n"
    machine.done(background + undo_script(str(machine.journal)))
    assert path.read_text() == "old\n"

"""The undo journal, on files of a test's own and services that keep their states in files."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from host_agent import journal
from host_agent.journal import Journal, cli
from host_agent.journal.undo import undo
from host_agent.json_output import AgentError, Status
from tests.unit.journal.machine import Machine, finishes


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
    modules = machine.etc / "modules"
    modules.mkdir()
    (modules / "one.py").write_text("1\n")
    kept.write_text("Привет\n")
    kept.chmod(0o600)
    gone.write_text("x\n")
    link.symlink_to("releases/1")
    for path in (kept, gone):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    os.setxattr(kept, "user.mine", b"kept")
    os.chown(kept, 1234, 2345)
    before = seen(machine.etc)
    machine.journal.open()
    machine.record(kept, gone, link, new, deep, modules, late=(release, stamp))
    kept.unlink()
    kept.write_text("other\n")
    gone.unlink()
    link.unlink()
    link.symlink_to("releases/2")
    new.write_text("")
    deep.parent.mkdir(parents=True)
    deep.write_text("")
    (modules / "one.py").unlink()
    modules.rmdir()
    (release / "bin").mkdir(parents=True)
    (release / "bin/python").write_text("")
    stamp.parent.mkdir()
    stamp.write_text("")
    (machine.etc / "new.conf.bitrix-cdn-new").write_text("of a run that was killed")
    assert machine.undo() == 8
    assert seen(machine.etc) == before
    assert os.getxattr(kept, "user.mine") == b"kept"
    assert (kept.stat().st_uid, kept.stat().st_gid) == (1234, 2345)


def test_names_may_have_any_bytes(machine: Machine) -> None:
    path = machine.etc / os.fsdecode(b"caf\xe9 \xd0\x9f.conf")
    path.write_text("first\n")
    machine.journal.open()
    machine.record(Path(json.loads(json.dumps(str(path)))))
    path.write_text("second\n")
    machine.undo()
    assert path.read_text() == "first\n"


def test_what_was_first_recorded_counts(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("first\n")
    machine.journal.open()
    for content in ("second\n", "third\n"):
        machine.record(path)
        path.write_text(content)
        machine.journal.open()
    machine.undo()
    assert path.read_text() == "first\n"


def test_without_a_journal_nothing_is_recorded_and_nothing_undone(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("first\n")
    machine.record(path, unit="a.service", action="restart")
    assert list(machine.journal.place.parent.iterdir()) == []
    assert undo(machine.journal, machine.services) is None
    assert list(machine.journal.place.parent.iterdir()) == []


def test_a_directory_that_holds_more_meanwhile_stays(machine: Machine) -> None:
    machine.journal.open()
    machine.record(machine.etc / "d/a.conf")
    (machine.etc / "d").mkdir()
    (machine.etc / "d/a.conf").write_text("ours")
    (machine.etc / "d/b.conf").write_text("the administrator's")
    machine.undo()
    assert [path.name for path in (machine.etc / "d").iterdir()] == ["b.conf"]


@pytest.mark.parametrize("changed", ["not at all", "in part"])
def test_a_directory_that_was_to_be_removed_goes_back_though_it_is_still_there(
    machine: Machine, changed: str
) -> None:
    """As where the deploy was killed before it removed it, or an undo was after it put it back."""
    modules = machine.etc / "modules"
    (modules / "deep").mkdir(parents=True)
    for name in ("one.py", "deep/two.py"):
        (modules / name).write_text(f"{name}\n")
    before = seen(machine.etc)
    machine.journal.open()
    machine.record(modules)
    if changed == "in part":
        (modules / "one.py").unlink()
    machine.undo()
    assert seen(machine.etc) == before


def test_a_directory_where_a_file_was_to_be_is_somebody_elses(machine: Machine) -> None:
    machine.journal.open()
    machine.record(machine.etc / "a.conf")
    (machine.etc / "a.conf").mkdir()
    (machine.etc / "a.conf/theirs").write_text("")
    machine.undo()
    assert (machine.etc / "a.conf/theirs").exists()


def test_units_are_restarted_or_reloaded_as_they_were_in_the_order_of_the_deploy(machine: Machine) -> None:
    for unit in ("nginx.service", "redis.service", "looked-at.service", "redis-server@cache.service"):
        machine.services.be(unit, "active")
    machine.services.be("fresh.timer", "inactive", "disabled")
    machine.journal.open()
    machine.record(unit="redis.service", action="restart")
    machine.record(unit="fresh.timer", action="restart")
    machine.record(unit="nginx.service", action="reload")
    machine.record(unit="looked-at.service")
    machine.record(unit="redis-server@cache.service", action="restart")
    for number in range(10):
        machine.services.be(f"{number}.service", "active")
        machine.record(unit=f"{number}.service", action="restart")
    machine.services.be("fresh.timer", "active", "enabled")
    undone = undo(machine.journal, machine.services)
    assert undone is not None
    assert undone.units == [
        "restart redis.service",
        "reload-or-restart nginx.service",
        "restart redis-server@cache.service",
        *(f"restart {number}.service" for number in range(10)),
    ]
    done = [line for line in machine.services.done() if not line.startswith("reset-failed")]
    assert done == ["stop fresh.timer", "disable fresh.timer", "daemon-reload", *undone.units]
    assert machine.services.state("fresh.timer") == "inactive"


def test_a_unit_that_was_reloaded_first_and_restarted_then_is_restarted(machine: Machine) -> None:
    machine.services.be("nginx.service", "active")
    machine.journal.open()
    for action in ("reload", "restart"):
        machine.record(unit="nginx.service", action=action)
    undo(machine.journal, machine.services)
    assert "restart nginx.service" in machine.services.done()


def test_a_unit_that_does_not_come_back_keeps_the_journal_and_the_stamps(machine: Machine) -> None:
    stamp, path = machine.etc / "stamp", machine.etc / "a.conf"
    stamp.write_text("old\n")
    path.write_text("old\n")
    for unit in ("a.service", "b.service"):
        machine.services.be(unit, "active")
    machine.journal.open()
    machine.record(path, late=(stamp,), unit="a.service", action="restart")
    machine.record(unit="b.service", action="restart")
    stamp.write_text("new\n")
    path.write_text("new\n")
    machine.services.breaks("a.service")
    with pytest.raises(AgentError, match=r"^a.service does not come back$") as failed:
        machine.undo()
    assert failed.value.more == "the last lines of a.service:\nlast words of a.service"
    assert machine.services.done().count("restart a.service") == 5
    assert machine.services.state("b.service") == "active"
    # A deploy that comes now must not think that the unit runs with the old files.
    assert (path.read_text(), stamp.read_text()) == ("old\n", "new\n")
    machine.services.mend("a.service")
    machine.undo()
    assert stamp.read_text() == "old\n"


def test_a_unit_that_ends_soon_after_its_start_keeps_the_journal(machine: Machine) -> None:
    machine.services.be("a.service", "active")
    machine.journal.open()
    machine.record(unit="a.service", action="restart")
    looks = 0

    def wait(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if seconds == 1:
            machine.services.be("a.service", "failed")

    machine.services.wait = wait  # type: ignore[method-assign]
    with pytest.raises(AgentError, match=r"^a.service does not stay active$"):
        machine.undo()
    assert 100 <= looks <= 105
    assert machine.journal.is_open


def test_a_new_unit_that_does_not_stop_keeps_the_journal_and_all_else_goes_back(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("old\n")
    machine.services.be("old.service", "active")
    machine.journal.open()
    machine.record(path, unit="new.service", action="restart")
    machine.record(unit="old.service", action="reload")
    path.write_text("new\n")
    machine.services.be("new.service", "active")
    machine.services.breaks("new.service", "stop")
    machine.services.be("new.service", "active")
    with pytest.raises(AgentError, match=r"^new.service does not stop$"):
        machine.undo()
    assert machine.journal.is_open
    assert path.read_text() == "old\n"
    assert "reload-or-restart old.service" in machine.services.done()


def test_a_unit_that_was_failed_before_need_not_work_after(machine: Machine) -> None:
    machine.services.be("a.service", "failed")
    machine.journal.open()
    machine.record(unit="a.service", action="restart")
    machine.services.be("a.service", "active")
    machine.undo()
    assert machine.services.state("a.service") == "inactive"


def test_a_unit_that_was_starting_before_need_not_work_after(machine: Machine) -> None:
    machine.services.be("a.service", "activating")
    machine.journal.open()
    machine.record(unit="a.service", action="restart")
    machine.services.breaks("a.service")
    machine.undo()


def test_a_change_of_a_trial_is_undone_alone_and_with_all_else(machine: Machine, tmp_path: Path) -> None:
    path, other, trial = machine.etc / "a.conf", machine.etc / "b.conf", tmp_path / "lib/trial"
    for file in (path, other):
        file.write_text("first\n")
    machine.journal.open()
    machine.record(other)
    machine.record(path, trial=trial)
    for file in (path, other):
        file.write_text("second\n")
    undo(Journal(trial), machine.services)
    assert (path.read_text(), other.read_text()) == ("first\n", "second\n")
    machine.record(path, trial=trial)
    path.write_text("third\n")
    machine.undo()
    assert (path.read_text(), other.read_text()) == ("first\n", "first\n")
    assert not trial.exists()


def test_a_trial_needs_no_journal_around_it(machine: Machine, tmp_path: Path) -> None:
    path, trial = machine.etc / "a.conf", tmp_path / "state/not yet there/trial"
    path.write_text("first\n")
    machine.record(path, trial=trial)
    path.write_text("second\n")
    undo(Journal(trial), machine.services)
    assert path.read_text() == "first\n"
    assert not machine.journal.is_open


def test_a_record_is_on_the_disk_before_it_is_in_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files of it and its directory; then the directories that it is named in."""
    directory = machine.etc / "modules"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep/two.py").write_text("2\n")
    (directory / "link").symlink_to("deep")
    machine.services.be("a.service", "active")
    machine.journal.open()
    happened: list[tuple[str, Path]] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        happened.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        there = {one for one in (path, *path.rglob("*")) if not one.is_symlink()}
        missing = there - {one for what, one in happened if what == "sync"}
        assert not missing, "not on the disk yet"
        happened.append(("rename", target))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    machine.record(directory, machine.etc / "new.conf", unit="a.service", action="restart")
    renames = [number for number, (what, _) in enumerate(happened) if what == "rename"]
    assert len(renames) == 3
    for number in renames:
        after = [one for what, one in happened[number : number + 3] if what == "sync"]
        assert after == [happened[number][1].parent, machine.journal.place]
    kept = machine.journal.place / "units/a.service"
    assert happened[-2:] == [("sync", kept / "restart"), ("sync", kept)]


def test_what_was_put_back_is_on_the_disk_before_the_journal_is_closed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, new, stamp = machine.etc / "a.conf", machine.etc / "new.conf", machine.etc / "lib/stamp"
    stamp.parent.mkdir()
    for path in (changed, stamp):
        path.write_text("old\n")
    machine.journal.open()
    machine.record(changed, new, late=(stamp,))
    new.write_text("")
    happened: list[Path] = []
    fsync, close = os.fsync, Journal.close

    def synced(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def closed(journal: Journal) -> None:
        assert set(happened) == {changed, stamp, machine.etc, stamp.parent}
        close(journal)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Journal, "close", closed)
    machine.undo()
    assert happened[-1] == machine.journal.place.parent


@pytest.mark.parametrize("kill", ["the change", "the undo"])
def test_killed_before_any_step_of_recording_or_undoing_all_is_right_in_the_end(
    tmp_path: Path, kill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed processes lose nothing that they have written; hundreds of these take a minute.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    step, finished = 0, False
    while not finished:
        step += 1
        machine = Machine(tmp_path / str(step))
        changed, removed = machine.etc / "a.conf", machine.etc / "b.conf"
        new, stamp, modules = machine.etc / "d/c.conf", machine.etc / "stamp", machine.etc / "modules"
        changed.write_text("old a\n")
        removed.write_text("old b\n")
        stamp.write_text("old stamp\n")
        modules.mkdir()
        (modules / "one.py").write_text("old module\n")
        machine.services.be("a.service", "active")
        machine.services.be("new.service", "inactive", "disabled")
        before = seen(machine.etc)

        def change(
            machine: Machine = machine,
            changed: Path = changed,
            removed: Path = removed,
            new: Path = new,
            stamp: Path = stamp,
            modules: Path = modules,
        ) -> None:
            machine.record(changed, removed, new, modules, late=(stamp,), unit="a.service", action="restart")
            machine.record(unit="new.service", action="restart")
            removed.unlink()
            new.parent.mkdir()
            new.write_text("new\n")
            part = Path(f"{changed}.bitrix-cdn-new")
            part.write_text("new\n")
            part.replace(changed)
            (modules / "one.py").unlink()
            modules.rmdir()
            machine.services.do("restart", "a.service")
            machine.services.do("enable", "new.service")
            machine.services.do("restart", "new.service")
            stamp.write_text("new\n")

        machine.journal.open()
        if kill == "the change":
            finished = finishes(change, step)
        else:
            change()
            finished = finishes(partial(undo, machine.journal, machine.services), step)
        undo(machine.journal, machine.services)
        assert seen(machine.etc) == before, f"killed at step {step} of {kill}"
        assert not machine.journal.is_open
        assert (machine.services.state("a.service"), machine.services.state("new.service")) == (
            "active",
            "inactive",
        )
        assert machine.services.enabled("new.service") == "disabled"
    assert step > 20, "nothing was ever killed"


def test_undoing_waits_for_what_still_works_on_the_host(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("old\n")
    machine.journal.open()
    with machine.changing() as lock:
        journal.record(machine.services, [str(path)], journal=machine.journal.place, lock=lock)
        undoing = threading.Thread(target=machine.undo)
        undoing.start()
        time.sleep(0.2)
        path.write_text("new\n")
    undoing.join()
    assert path.read_text() == "old\n"


def test_it_waits_for_what_a_killed_run_has_started_too(machine: Machine) -> None:
    path = machine.etc / "a.conf"
    path.write_text("old\n")
    machine.journal.open()

    def killed() -> None:
        with machine.changing() as lock:
            journal.record(machine.services, [str(path)], journal=machine.journal.place, lock=lock)
            # Such as a script that is at work.
            os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", f"sleep 0.5; echo new > '{path}'")
            os.kill(os.getpid(), signal.SIGKILL)

    assert not finishes(killed, 0)
    machine.undo()
    assert path.read_text() == "old\n"
    time.sleep(0.7)
    assert path.read_text() == "old\n"


def test_who_comes_to_record_while_it_is_undone_changes_nothing(machine: Machine) -> None:
    machine.journal.open()
    looks = iter([True, False])

    class Undone(Journal):
        """It is closed between the first look and the moment when its lock is had."""

        @property
        def is_open(self) -> bool:
            return next(looks)

    with machine.changing() as lock, pytest.raises(AgentError, match="is being undone"):
        Undone(machine.journal.place).recording(lock)


def test_what_the_command_prints_is_json(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "Journal", lambda: machine.journal)
    monkeypatch.setattr(cli, "Systemd", lambda: machine.services)
    machine.services.be("a.service", "active")
    for arguments, told in (
        (["undo"], {"open": False, "was_open": False}),
        (["commit"], {"open": False, "was_open": False}),
        (["begin"], {"open": True}),
        (["commit"], {"open": False, "was_open": True}),
        (["begin"], {"open": True}),
        (["begin"], {"open": True}),
        (["undo"], {"open": False, "was_open": True, "paths": 0, "units": ["restart a.service"]}),
    ):
        if arguments == ["undo"] and machine.journal.is_open:
            machine.record(unit="a.service", action="restart")
        assert cli.main(arguments) == Status.DONE
        assert json.loads(capsys.readouterr().out) == told
    machine.journal.open()
    machine.record(unit="a.service", action="restart")
    machine.services.breaks("a.service")
    assert cli.main(["undo"]) == Status.FAILED
    # The last line is what the operator's side shows.
    assert capsys.readouterr().err.splitlines() == [
        "the last lines of a.service:",
        "last words of a.service",
        "a.service does not come back",
    ]

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import host

from bitrix_cdn.engine import services
from bitrix_cdn.engine.prefetch import prefetch_facts
from bitrix_cdn.engine.services import Applied, action_for, faults, running
from tests.kit.support import wait_until
from tests.unit.engine.machines import add, changed, execute, host_of, machines, ran

# As systemd's does: 254 and newer prints a line for a unit that isn't there, older ones stop at it.
SYSTEMCTL = """#!/bin/sh
verb=$1; shift
for unit; do
    case $verb-$unit in
        is-active-missing*) echo inactive ;;
        is-active-*) echo active ;;
        is-enabled-missing*) [ {newer} = yes ] && echo not-found || exit 1 ;;
        is-enabled-off*) echo disabled ;;
        is-enabled-*) echo enabled ;;
        show-*.*) printf 'MainPID=0\nInvocationID=%s\nStateChangeTimestampMonotonic=5\n\n' "$unit" ;;
    esac
done
"""

UNITS = ("first.service", "missing.service", "off@1.service", "last.timer")


@pytest.fixture(params=["no", "yes"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd, older and newer than 254, and a place for stamps."""
    command = tmp_path / "bin/systemctl"
    command.parent.mkdir()
    command.write_text(SYSTEMCTL.replace("{newer}", request.param))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setattr(services, "STAMPS", str(tmp_path / "stamps"))


def questions(tmp_path: Path) -> list[dict[str, Any]]:
    """One for each unit, with files, stamps and readiness of all kinds."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    asked = []
    for number, unit in enumerate(UNITS):
        file = tmp_path / f"file {number}"
        if number != 1:
            file.write_text(f"ready {number}\nactive\n")
            (stamps / unit).write_text(f"started {number}\nreloaded none\n")
        ready = ("false", "true", "exit 0", "true")[number]
        asked.append({"unit": unit, "start": [str(file)], "reload": [], "ready": ready})
    return asked


@pytest.mark.usefixtures("systemd")
def test_units_asked_together_are_what_each_is_by_itself(tmp_path: Path) -> None:
    asked = questions(tmp_path)
    with machines("one") as state:
        fact = Applied()
        alone = [host.get_fact(Applied, **question) for question in asked]
        _, output = host_of(state).run_shell_command(fact.together(asked))
        parts = fact.parts(output.stdout_lines, asked)
        together = [fact.process(part) for part in parts]
        assert all(float(one.pop("clock").split()[0]) > 0 for one in (*together, *alone))
        assert together == alone
    assert [one["active"] for one in alone] == ["active", "inactive", "active", "active"]
    assert [one["enabled"] in {"enabled", "disabled"} for one in alone] == [True, False, True, True]
    assert [one["ready"] for one in alone] == ["no", "yes", "", "yes"]
    assert [one.get("started") for one in alone] == ["0", None, "2", "3"]
    assert len({one["start"] for one in alone}) == 4


@pytest.mark.usefixtures("systemd")
def test_many_units_take_one_trip(tmp_path: Path) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        stamps = tmp_path / "stamps"
        stamps.mkdir()
        for number in range(20):
            (stamps / f"{number}.service").write_text("started none\nreloaded none\n")
            add(state, running, "one", unit=f"{number}.service")
        execute(state)
        assert changed(state) == [False] * 20
        assert len(ran(host_of(state))) == 1
        # All units, and the second `systemctl` as well.
        assert ran(host_of(state))[0].count("is-active") == 1


def test_an_output_of_other_units_is_no_answer() -> None:
    asked = [{"unit": "a.service"}, {"unit": "b.service"}]
    with pytest.raises(ValueError, match="1 units of 2"):
        Applied().parts(["active x", "active y", "enabled x", "enabled y", "ready yes"], asked)


@pytest.mark.parametrize(
    ("program", "ago", "same"), [("nginx", 0, True), ("nginx", 60, False), ("sshd", 60, True)]
)
def test_workers_that_systemd_did_not_have_forked_are_another_life(
    program: str, ago: int, same: bool, tmp_path: Path
) -> None:
    (tmp_path / program).symlink_to("/bin/sh")
    process = subprocess.Popen(
        [tmp_path / program, "-c", "read go; sleep 60 & read end"], stdin=subprocess.PIPE
    )
    changed = (time.clock_gettime(time.CLOCK_BOOTTIME) - ago) * 1e6
    systemctl = f"""systemctl() {{ printf '%s\\n' MainPID={process.pid} InvocationID=a ReloadResult=success \\
        StateChangeTimestampMonotonic={changed:.0f} ActiveEnterTimestampMonotonic=1; }}"""

    def lives() -> str:
        script = f"{systemctl}\n{services._LIVES}\nlives {program}.service"
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout

    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        before = lives()
        assert f"life a/{changed:.0f} " in before
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        wait_until("a worker", children.read_text)
        assert (lives() == before) is same
    finally:
        for worker in children.read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        process.kill()
        process.wait()


# Started 100 s after boot with files as old as boot, and stamped then; it is 1000 s after boot now.
STAMPED = {
    "active": "active",
    "enabled": "enabled",
    "ready": "yes",
    "start": "s",
    "started": "s",
    "reload": "r",
    "reloaded": "r",
    "start_files": "1/5000.5",
    "then_start_files": "1/5000.5",
    "reload_files": "2/5000.5",
    "then_reload_files": "2/5000.5",
    "life": "a/100",
    "then_life": "a/100",
    "taken": "100000000 100000000",
    "clock": "6000.25 1000.25",
}
RESTARTED = {"life": "b/500", "taken": "500000000 500000000"}
RELOADED = {"life": "a/500", "taken": "100000000 500000000"}


@pytest.mark.parametrize(
    ("since", "action"),
    [
        ({}, None),
        ({"active": "failed"}, "restart"),
        ({"ready": "no"}, "reload"),
        ({"started": "x"}, "restart"),
        ({"reloaded": "x"}, "reload"),
        # No file changed, whatever became of the process.
        (RESTARTED, None),
        (RELOADED, None),
        # Changed and put back, while the process ran on as it was.
        ({"reload_files": "3/5800"}, None),
        # Changed, taken by hand, and put back.
        ({**RELOADED, "reload_files": "3/5800"}, "reload"),
        ({**RESTARTED, "reload_files": "3/5800"}, "reload"),
        ({**RESTARTED, "start_files": "3/5800"}, "restart"),
        # Put back before it was taken; a reload doesn't take what only a start does.
        ({**RELOADED, "reload_files": "3/5400"}, None),
        ({**RESTARTED, "start_files": "3/5400"}, None),
        ({**RELOADED, "start_files": "3/5400"}, "restart"),
        # A reload that failed took nothing; systemd hasn't read a unit's file yet.
        ({**RELOADED, "reload_files": "3/5400", "taken": "100000000 0"}, "reload"),
        ({**RESTARTED, "start_files": "3/5400", "taken": "0 500000000"}, "restart"),
        # The clock was set back an hour after the restart: its time goes with it.
        ({**RESTARTED, "reload_files": "3/2300", "clock": "2400 1000"}, "reload"),
        ({**RESTARTED, "reload_files": "3/1800", "clock": "2400 1000"}, None),
        # By a signal: systemd knows nothing, the unit's processes or the unit do.
        ({"life": "a/100 7/8", "reload_files": "3/5800"}, "reload"),
        ({"told": "x", "then_told": "y", "reload_files": "3/5800"}, "reload"),
        # Its files are right, and it runs with others.
        ({"runs": "x", "then_runs": "y"}, "restart"),
        ({"runs": "x", "then_runs": "x"}, None),
    ],
)
def test_what_a_unit_needs_to_run_with_its_files(since: dict[str, str], action: str | None) -> None:
    now = STAMPED | since
    assert action_for(now) == action
    assert bool(faults(now)) == (action is not None)


def test_a_stamp_of_an_earlier_release_restarts_nothing() -> None:
    old = {key: value for key, value in STAMPED.items() if not key.startswith("then_")}
    assert action_for(old | {"runs": "x", "told": "y"}) is None


def test_drift_says_what_runs() -> None:
    assert faults(STAMPED | RELOADED | {"reload_files": "3/5800"}) == [
        "runs with other settings than its files: they were others when somebody restarted or reloaded it"
    ]
    assert faults(STAMPED | RELOADED | {"reload": "edited", "reload_files": "3/5400"}) == [
        "runs with its files as somebody changed them: it was restarted or reloaded since"
    ]
    assert faults(STAMPED | {"reload": "edited", "reload_files": "3/5400"}) == [
        "has not taken its files as they are now"
    ]

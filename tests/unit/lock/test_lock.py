"""The lock of a host, as who is on the host has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from host_agent import flock
from host_agent.json_output import AgentError, Status
from host_agent.lock import Holder, Lock, cli, parse
from tests.kit.deployment import ROOT
from tests.unit.lock.holders import ANN, BOB


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the lock is in these tests."""
    return tmp_path / "state/lock"


@pytest.fixture
def lock(place: Path) -> Lock:
    return Lock(place)


HOLD = """
import json, sys
from pathlib import Path
from host_agent.lock import Holder, Lock
path, holder, lease = sys.argv[1:]
say = lambda word, other: print(word, json.dumps(other), flush=True)
Lock(Path(path)).hold(Holder(*json.loads(holder)), float(lease), say)
"""

Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def holds(place: Path) -> Iterator[Hold]:
    """Starts a run that holds the host."""
    runs = []

    def start(holder: Holder, lease: float = 20) -> subprocess.Popen[str]:
        runs.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLD, place, json.dumps(holder), str(lease)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return runs[-1]

    yield start
    for run in runs:
        run.kill()
        run.wait()


def said(run: subprocess.Popen[str]) -> tuple[str, Holder]:
    assert run.stdout
    word, _, holder = run.stdout.readline().partition(" ")
    return word, Holder(*json.loads(holder))


def test_who_takes_it_is_told_to_the_next_one(lock: Lock, place: Path) -> None:
    assert lock.take(ANN) is None
    assert parse(place.read_text()) == ANN
    assert place.stat().st_mode & 0o777 == 0o644
    assert lock.take(BOB) == ANN
    assert lock.holder() == ANN


def test_ones_own_is_taken_again(lock: Lock) -> None:
    lock.take(ANN)
    again = ANN._replace(since="later")
    assert lock.take(again) is None
    assert lock.holder() == again


def test_only_the_holder_gives_it_back(lock: Lock, place: Path) -> None:
    lock.release(ANN.token)
    assert not place.parent.exists()
    lock.take(ANN)
    lock.release(BOB.token)
    assert lock.holder() == ANN
    for _ in range(2):
        lock.release(ANN.token)
        assert lock.holder() is None


def test_a_broken_lock_is_that_of_whom_it_was_taken_from(lock: Lock) -> None:
    lock.take(BOB)
    # Bob's by now, and not Ann's any more that was to be broken.
    carl = Holder("carl", "desk", "now", "rollout", "c" * 32)
    assert lock.take(carl, ANN) == BOB
    assert lock.take(carl, BOB) is None
    assert lock.holder() == carl


@pytest.mark.parametrize("content", ["{", "[]", '{"operator": "ann"}', "ann was here", "\n{\n}\n", "\0"])
def test_one_that_can_not_be_read_holds_and_can_be_broken(lock: Lock, place: Path, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content)
    holder = lock.holder()
    assert holder is not None
    assert "can't be read" in str(holder)
    assert lock.take(ANN) == holder
    lock.release("")
    assert lock.take(ANN, holder) is None


def test_who_breaks_one_that_can_not_be_read_breaks_no_other(lock: Lock, place: Path) -> None:
    place.parent.mkdir()
    place.write_text("{")
    unreadable = lock.holder()
    place.unlink()
    lock.take(BOB)
    assert lock.take(ANN, unreadable) == BOB


def test_an_empty_file_is_no_lock(lock: Lock, place: Path) -> None:
    place.parent.mkdir()
    place.touch()
    assert lock.holder() is None
    assert lock.take(ANN) is None


def test_of_many_at_once_one_gets_it(place: Path) -> None:
    class Slow(Lock):
        def _persistent_holder(self) -> Holder | None:
            found = super()._persistent_holder()
            time.sleep(0.01)
            return found

    lock = Slow(place)
    others = [ANN._replace(token=f"{number:032x}") for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lock.take, others))
    [winner] = [one for one, result in zip(others, results, strict=True) if result is None]
    assert lock.holder() == winner
    assert set(results) == {None, winner}


def test_no_lock_is_nobodys() -> None:
    assert parse("") is None
    assert parse("\n") is None


def test_a_run_keeps_all_others_away_and_ends_with_its_connection(lock: Lock, holds: Hold) -> None:
    first = holds(ANN)
    assert said(first) == ("taken", ANN)
    assert said(holds(BOB)) == ("held", ANN)
    assert said(holds(ANN)) == ("ours", ANN)
    assert lock.holder() == ANN
    assert lock.take(BOB) == ANN
    assert first.stdin
    first.stdin.close()
    first.wait(5)
    assert lock.holder() is None
    assert said(holds(BOB)) == ("taken", BOB)


def test_a_rollout_keeps_runs_away_but_those_that_it_starts(lock: Lock, holds: Hold) -> None:
    lock.take(ANN)
    assert said(holds(BOB)) == ("held", ANN)
    assert said(holds(ANN)) == ("taken", ANN)
    # And goes on where such a run has not ended yet.
    assert lock.take(ANN) is None


def test_a_run_that_falls_silent_holds_nothing_any_more(holds: Hold) -> None:
    first = holds(ANN, 0.5)
    assert said(first) == ("taken", ANN)
    first.wait(5)
    assert said(holds(BOB)) == ("taken", BOB)


def test_a_run_that_speaks_holds_for_longer_than_its_lease(lock: Lock, holds: Hold) -> None:
    first = holds(ANN, 1)
    assert said(first) == ("taken", ANN)
    assert first.stdin
    for _ in range(8):
        first.stdin.write("\n")
        first.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.25)
    assert lock.holder() == ANN


def test_a_living_run_can_be_broken(lock: Lock, holds: Hold) -> None:
    first = holds(ANN)
    assert said(first) == ("taken", ANN)
    assert lock.force_release() == ANN
    assert first.wait(5) == -signal.SIGTERM
    assert said(holds(BOB)) == ("taken", BOB)
    assert lock.force_release() == BOB


def test_a_rollouts_lock_can_be_broken_and_there_may_be_none(lock: Lock) -> None:
    assert lock.force_release() is None
    lock.take(ANN)
    assert lock.force_release() == ANN
    assert lock.force_release() is None


def test_a_run_that_names_no_process_is_not_broken_by_chance(lock: Lock, place: Path) -> None:
    place.parent.mkdir()
    run = place.with_name("lock.run")
    run.write_text(f"{ANN.written()}\nsomething\n")
    with flock.opened(run) as file:
        assert flock.locked(file, flock.EXCLUSIVE, 0)
        with pytest.raises(AgentError, match="names no process"):
            lock.force_release()


# What holds in earlier versions, and on a host that has no Python yet.
IN_SHELL = """
exec 9<"$1"; flock -w 10 9; exec 7>>"$1/lock.run"; flock -w 1 7 || exit 3
printf '%s\\n%s\\n' "$2" $$ > "$1/lock.run"; exec 9<&-; echo taken; read -r _
"""


def test_it_respects_a_run_of_an_earlier_version_and_is_respected(
    lock: Lock, place: Path, holds: Hold
) -> None:
    place.parent.mkdir()
    command = ["bash", "-c", IN_SHELL, "sh", str(place.parent), BOB.written()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as earlier:
        assert earlier.stdout
        assert earlier.stdout.readline() == "taken\n"
        assert lock.holder() == BOB
        assert lock.take(ANN) == BOB
        assert said(holds(ANN)) == ("held", BOB)
        assert lock.force_release() == BOB
    assert said(holds(ANN)) == ("taken", ANN)
    assert subprocess.run(command, input="", check=False, text=True).returncode == 3


def test_what_the_command_prints_is_json_and_its_status_tells_of_a_holder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "Lock", lambda: Lock(place))
    mask = os.umask(0o077)
    try:
        ann, bob = (json.dumps(one._asdict()) for one in (ANN, BOB))
        for arguments, status, holder in (
            (["show"], Status.DONE, None),
            (["take", ann], Status.DONE, None),
            (["take", bob], Status.HELD, ANN),
            (["take", bob, "--instead-of", ann], Status.DONE, None),
            (["give-back", BOB.token], Status.DONE, None),
            (["take", ann], Status.DONE, None),
            (["break"], Status.DONE, ANN),
        ):
            assert cli.main(arguments) == status
            told = json.loads(capsys.readouterr().out)["holder"]
            assert told == (holder._asdict() if holder else None)
        assert place.parent.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(mask)


def test_what_goes_wrong_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.parent.write_text("")
    monkeypatch.setattr(cli, "Lock", lambda: Lock(place))
    assert cli.main(["take", json.dumps(ANN._asdict())]) == Status.FAILED
    assert capsys.readouterr().err == f"{place.parent}: File exists\n"

"""The lock on a host, with the shell that runs there."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bitrix_cdn.fleet import lock
from bitrix_cdn.fleet.lock import HELD, Holder, parse, refusal

ANN = Holder("ann", "laptop", "2026-01-02 03:04:05 UTC", "rollout of inventories/it's a shop.py", "a" * 32)
BOB = Holder("bob", "ci", "2026-01-02 03:05:00 UTC", "rollout of inventories/shop.py", "b" * 32)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the lock is in these tests."""
    path = tmp_path / "state" / "lock"
    monkeypatch.setattr(lock, "LOCK", str(path))
    return path


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def test_who_takes_it_is_told_to_the_next_one(place: Path) -> None:
    assert run(lock.take_script(ANN)).returncode == 0
    assert parse(place.read_text()) == ANN
    refused = run(lock.take_script(BOB))
    assert (refused.returncode, parse(refused.stdout)) == (HELD, ANN)
    assert parse(run(lock.look_script()).stdout) == ANN


def test_ones_own_is_taken_again(place: Path) -> None:
    run(lock.take_script(ANN))
    again = Holder(ANN.operator, ANN.machine, "later", ANN.what, ANN.token)
    assert run(lock.take_script(again)).returncode == 0
    assert parse(place.read_text()) == again


def test_only_the_holder_gives_it_back(place: Path) -> None:
    run(lock.take_script(ANN))
    assert run(lock.release_script(BOB.token)).returncode == 0
    assert place.exists()
    assert run(lock.release_script(ANN.token)).returncode == 0
    assert not place.exists()
    assert run(lock.release_script(ANN.token)).returncode == 0


def test_a_broken_lock_is_that_of_whom_it_was_taken_from(place: Path) -> None:
    run(lock.take_script(BOB))
    # Bob's by now, and not Ann's any more that was to be broken.
    carl = Holder("carl", "desk", "now", "rollout", "c" * 32)
    assert run(lock.take_script(carl, instead_of=ANN)).returncode == HELD
    assert run(lock.take_script(carl, instead_of=BOB)).returncode == 0
    assert parse(place.read_text()) == carl


@pytest.mark.parametrize("content", ["{", "[]", '{"operator": "ann"}', "ann was here"])
def test_one_that_can_not_be_read_holds_and_can_be_broken(place: Path, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content)
    holder = parse(run(lock.look_script()).stdout)
    assert holder is not None
    assert "can't be read" in str(holder)
    assert run(lock.take_script(ANN)).returncode == HELD
    assert run(lock.take_script(ANN, instead_of=holder)).returncode == 0


def test_an_empty_file_is_no_lock(place: Path) -> None:
    place.parent.mkdir()
    place.touch()
    assert run(lock.take_script(ANN)).returncode == 0


def test_of_many_at_once_one_gets_it(place: Path) -> None:
    others = [Holder("ann", "laptop", "now", "rollout", f"{number:032x}") for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda one: run(lock.take_script(one)), others))
    [winner] = [one for one, result in zip(others, results, strict=True) if result.returncode == 0]
    assert parse(place.read_text()) == winner
    assert {result.returncode for result in results} == {0, HELD}


def test_no_lock_is_nobodys() -> None:
    assert parse("") is None
    assert parse("\n") is None


def test_a_deploy_is_let_through_with_the_holders_token_only() -> None:
    text = json.dumps(json.loads(ANN.written()))
    assert refusal("cdn", "", "") is None
    assert refusal("cdn", text, ANN.token) is None
    for token in ("", BOB.token):
        said = refusal("cdn", text, token)
        assert said is not None
        assert said.startswith("cdn: held by ann on laptop since 2026-01-02 03:04:05 UTC")
        assert "\n" not in said
    # One that can't be read has no token, and an empty one opens nothing.
    assert refusal("cdn", "{", "") is not None


def holds(holder: Holder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", lock.hold_script(holder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(run: subprocess.Popen[str]) -> str:
    assert run.stdout
    return run.stdout.readline().strip()


def test_a_run_keeps_all_others_away_and_ends_with_its_connection() -> None:
    first = holds(ANN)
    assert said(first) == "lock: taken"
    assert said(holds(BOB)) == f"lock: held by {ANN.written()}"
    assert said(holds(ANN)) == "lock: ours"
    assert parse(run(lock.look_script()).stdout) == ANN
    refused = run(lock.take_script(BOB))
    assert (refused.returncode, parse(refused.stdout)) == (HELD, ANN)
    assert first.stdin
    first.stdin.close()
    first.wait(5)
    assert parse(run(lock.look_script()).stdout) is None
    assert said(holds(BOB)) == "lock: taken"


def test_a_rollout_keeps_runs_away_but_those_that_it_starts() -> None:
    run(lock.take_script(ANN))
    assert said(holds(BOB)) == f"lock: held by {ANN.written()}"
    assert said(holds(ANN)) == "lock: taken"


def test_a_run_that_falls_silent_holds_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 1)
    first = holds(ANN)
    assert said(first) == "lock: taken"
    first.wait(5)
    assert said(holds(BOB)) == "lock: taken"


def test_a_living_run_can_be_broken() -> None:
    first = holds(ANN)
    assert said(first) == "lock: taken"
    assert run(lock.break_script()).returncode == 0
    first.wait(5)
    assert said(holds(BOB)) == "lock: taken"

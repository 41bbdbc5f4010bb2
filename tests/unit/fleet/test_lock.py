"""The hosts' lock from the operator's side: what hosts are asked, with the programs that run there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitrix_cdn.engine import agent
from bitrix_cdn.fleet import lock
from bitrix_cdn.fleet.lock import refusal
from host_agent.json_output import Status
from host_agent.lock import LOCK, Lock, parse
from tests.kit.agent import sent_with
from tests.unit.lock.holders import ANN, BOB


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the lock is in these tests, for what is sent to the hosts too."""
    path = tmp_path / "state/lock"
    monkeypatch.setattr(lock, "LOCK", path)
    with sent_with("lock", LOCK, path, tmp_path / "agent"):
        yield path


@pytest.fixture(params=["with Python", "without Python"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the host has Python."""
    if request.param == "without Python":
        monkeypatch.setattr(agent, "PYTHON", "/nonexistent/python3")
    return str(request.param)


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def looked() -> object:
    return parse(run(lock.holder_script()).stdout)


Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def holds() -> Iterator[Hold]:
    """Starts a run that holds the host."""
    runs = []

    def start(holder: object) -> subprocess.Popen[str]:
        command = ["sh", "-c", lock.hold_script(holder)]  # type: ignore[arg-type]
        runs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return runs[-1]

    yield start
    for one in runs:
        one.communicate()


def said(one: subprocess.Popen[str]) -> tuple[str, object]:
    assert one.stdout
    answer = json.loads(one.stdout.readline())
    holder = answer.get("holder")
    return answer["lock"], parse(json.dumps(holder)) if holder else None


def test_a_rollout_takes_it_and_gives_it_back(place: Path) -> None:
    assert run(lock.take_script(ANN)).returncode == Status.DONE
    assert looked() == ANN
    refused = run(lock.take_script(BOB))
    assert refused.returncode == Status.HELD
    assert json.loads(refused.stdout) == {"holder": ANN._asdict()}
    assert run(lock.take_script(BOB, instead_of=ANN)).returncode == Status.DONE
    assert looked() == BOB
    run(lock.give_back_script(ANN.token))
    assert looked() == BOB
    run(lock.give_back_script(BOB.token))
    assert looked() is None


def test_a_rollout_needs_a_host_that_was_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "PYTHON", "/nonexistent/python3")
    refused = run(lock.take_script(ANN))
    assert (refused.returncode, refused.stdout) == (Status.FAILED, "")
    assert refused.stderr == "there is no Python, which a deploy installs: deploy first\n"


def test_a_run_keeps_all_others_away_and_ends_with_its_connection(python: str, holds: Hold) -> None:
    first = holds(ANN)
    assert said(first)[0] == "taken"
    assert said(holds(BOB)) == ("held", ANN)
    assert said(holds(ANN))[0] == "ours"
    assert looked() == ANN
    first.communicate()
    assert looked() is None
    assert said(holds(BOB))[0] == "taken"


def test_python_that_comes_meanwhile_finds_who_was_there_before(
    holds: Hold, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as bare:
        bare.setattr(agent, "PYTHON", "/nonexistent/python3")
        first = holds(ANN)
        assert said(first)[0] == "taken"
    assert said(holds(BOB)) == ("held", ANN)
    assert said(holds(ANN))[0] == "ours"
    assert Lock(place).take(BOB) == ANN


def test_what_a_run_that_falls_silent_holds_is_free(
    python: str, holds: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE", 1)
    first = holds(ANN)
    assert said(first)[0] == "taken"
    first.wait(5)
    assert said(holds(BOB))[0] == "taken"


def test_a_living_run_can_be_broken(python: str, holds: Hold) -> None:
    first = holds(ANN)
    assert said(first)[0] == "taken"
    assert run(lock.break_script()).returncode == 0
    first.wait(5)
    assert said(holds(BOB))[0] == "taken"
    assert run(lock.break_script()).returncode == 0


def test_one_that_can_not_be_read_holds(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("{\n")
    assert "can't be read" in str(looked())


def test_a_deploy_is_let_through_with_the_holders_token_only() -> None:
    assert refusal("cdn", None, "") is None
    assert refusal("cdn", ANN, ANN.token) is None
    for token in ("", BOB.token):
        said = refusal("cdn", ANN, token)
        assert said is not None
        assert said.startswith("cdn: held by ann on laptop since 2026-01-02 03:04:05 UTC")
        assert "\n" not in said
    # One that can't be read has no token, and an empty one opens nothing.
    assert refusal("cdn", parse("{"), "") is not None


def test_nothing_that_is_installed_takes_part(tmp_path: Path, place: Path) -> None:
    """Neither an agent of another version nor what stands in the working directory or the environment."""
    (tmp_path / "host_agent").mkdir()
    for name in ("host_agent/__init__.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('another version')\n")
    done = subprocess.run(
        ["sh", "-c", agent.call("lock", "show")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.stdout, done.stderr) == ('{"holder": null}\n', "")

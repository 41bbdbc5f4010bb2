"""The workflow file of the hosted CI: what no schema asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.deployment import ROOT
from tests.run import stages

FILE = ROOT / ".github/workflows/ci.yml"
# YAML 1.1 reads `on` as true, which nothing here asks for.
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
SCRIPTS: dict[str, str] = {
    f"{name}-{number}": step["run"]
    for name, job in JOBS.items()
    for number, step in enumerate(job["steps"])
    if "run" in step
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_shellcheck_has_nothing_to_say_of_a_step(script: str) -> None:
    assert "${{" not in script, "what GitHub puts in is no data but a part of the script: give it as env"
    checked = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", "--shell=bash", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_bounded_and_may_read_only(name: str) -> None:
    # By night alerts are waited for, an hour and more.
    assert 0 < JOBS[name]["timeout-minutes"] <= (150 if name == "test-all" else 90)
    assert JOBS[name]["permissions"] == {"contents": "read"}
    assert WORKFLOW["permissions"] == {}


@pytest.mark.parametrize("name", JOBS)
def test_actions_are_pinned_by_commit_and_keep_no_credentials(name: str) -> None:
    for step in JOBS[name]["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_each_make_target_that_it_calls_exists() -> None:
    called = {word for script in SCRIPTS.values() for word in re.findall(r"\bmake ([\w./-]+)", script)}
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called
    assert called <= set(targets)


def test_the_night_runs_each_stage_that_a_push_does_not() -> None:
    matrix = JOBS["test-all"]["strategy"]["matrix"]
    for suite in matrix["suite"]:
        pushed, every = ({stage.name for stage in stages(suite, every=all_)} for all_ in (False, True))
        assert {f"{stage}-{suite}" for stage in matrix["stage"]} == every - pushed
    assert set(matrix["suite"]) == {entry["suite"] for entry in JOBS["test"]["strategy"]["matrix"]["include"]}


def test_only_the_drift_check_sees_secrets_and_takes_the_key_away() -> None:
    jobs = {name for name, job in JOBS.items() if "secrets." in yaml.safe_dump(job)}
    assert jobs == {"drift"}
    removed = [step for step in JOBS["drift"]["steps"] if "rm -f ~/.ssh/id_ed25519" in step.get("run", "")]
    assert [step["if"] for step in removed] == ["always()"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout and a separate account for the steps of the drift check."""
    (tmp_path / "inventories").mkdir()
    return tmp_path


def _step(job: str, name: str) -> str:
    found: str = next(step["run"] for step in JOBS[job]["steps"] if step.get("name") == name)
    return found


def _bash(script: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=home,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "INVENTORY": "inventories/ci.py", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_key_is_readable_by_its_owner_alone(home: Path) -> None:
    script = _step("drift", "Write the inventory, the key and the hosts' keys")
    done = _bash(script, home, INVENTORY_TEXT="hosts = ['$HOME']", SSH_KEY="the\nkey", KNOWN_HOSTS="a host")
    assert done.returncode == 0, done.stderr
    key = home / ".ssh/id_ed25519"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("the\nkey\n", 0o600)
    assert (home / ".ssh/known_hosts").read_text() == "a host\n"
    assert (home / "inventories/ci.py").read_text() == "hosts = ['$HOME']\n"
    assert "key" not in done.stdout + done.stderr
    assert _bash(_step("drift", "Remove the key"), home).returncode == 0
    assert not key.exists()
    assert not (home / "inventories/ci.py").exists()


def test_without_the_secrets_nothing_is_written(home: Path) -> None:
    script = _step("drift", "Write the inventory, the key and the hosts' keys")
    done = _bash(script, home, INVENTORY_TEXT="x", SSH_KEY="", KNOWN_HOSTS="")
    assert (done.returncode, (home / ".ssh").exists()) == (1, False)
    assert "DRIFT_SSH_KEY" in done.stdout


@pytest.mark.parametrize(
    ("status", "says"), [(0, ""), (1, "not all hosts could be checked"), (3, "differ"), (130, "not all")]
)
def test_drift_is_told_from_a_check_that_failed(home: Path, status: int, says: str) -> None:
    command = home / ".venv/bin/bitrix-cdn"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\nexit {status}\n")
    command.chmod(0o755)
    done = _bash(_step("drift", "Compare the hosts with their inventory"), home)
    assert done.returncode == status
    assert says in done.stdout
    assert bool(done.stdout) == bool(status)

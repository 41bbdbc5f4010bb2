"""What an operator does with `bitrix-cdn` on deployed hosts, and what it says there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.cli.exits import Exit
from dev.lab import state
from host_agent.audit.log import DIRECTORY, NAME
from tests.kit.deployment import ROOT, Deployment
from tests.kit.hosts import Cdn
from tests.kit.support import wait_until
from tests.kit.tools import started

CONF = "/etc/redis/redis-queue.conf"
"""Closed to all but Redis."""

LOG = f"{DIRECTORY}/{NAME}"


class Operator:
    """Types commands."""

    def __init__(self, inventory: str, lab: str, home: Path) -> None:
        self.inventory = inventory
        self._environment = {
            **os.environ,
            "BITRIX_CDN_INVENTORY": inventory,
            "LAB_NAME": lab,
            "XDG_STATE_HOME": str(home),
        }

    def starts(self, *arguments: str) -> subprocess.Popen[str]:
        """Types a command on a new terminal, and doesn't wait for its end."""
        return started(sys.executable, "-m", "bitrix_cdn", *arguments, cwd=ROOT, env=self._environment)

    def types(self, *arguments: str, status: Exit = Exit.FINE) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bitrix_cdn", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def asks(self, *arguments: str) -> Any:
        return json.loads(self.types(*arguments, "--json"))


@pytest.fixture
def operator(deployment: Deployment, lab: state.Lab, tmp_path: Path) -> Operator:
    return Operator(deployment.inventory, lab.name, tmp_path)


@pytest.fixture
def edited(cdn: Cdn) -> Iterator[Cdn]:
    """The CDN host, with a setting that somebody changed by hand."""
    kept = cdn.remote.run("cat", CONF)
    cdn.remote.run("sed", "-i", "s/^maxmemory .*/maxmemory 99mb/", CONF)
    yield cdn
    cdn.remote.run("sh", "-c", f"cat > {CONF}", input=kept.encode())


def test_a_plan_shows_what_differs_and_is_what_is_done_or_refused(
    operator: Operator, edited: Cdn, tmp_path: Path
) -> None:
    plan = str(tmp_path / "plan")
    shown = operator.types("plan", "--save", plan, status=Exit.DIFFERENCES).splitlines()
    assert "    -maxmemory 99mb" in shown
    assert any(line.startswith("    +maxmemory ") for line in shown)
    assert not [line for line in shown if line.startswith("bitrix: /")]
    # The host moves on.
    edited.remote.run("sed", "-i", "s/^maxmemory .*/maxmemory 98mb/", CONF)
    assert "cdn: a deploy would change something else than was planned" in operator.types(
        "apply", plan, status=Exit.REFUSED
    )
    assert "maxmemory 98mb" in edited.remote.run("cat", CONF)
    assert "not locked" in operator.types("lock")
    operator.types("plan", "--save", plan, status=Exit.DIFFERENCES)
    done = operator.types("apply", plan).splitlines()
    assert any(" of " in line and "cdn: Redis | " in line for line in done), done
    assert done[-1].startswith("next: ")
    assert "maxmemory 98mb" not in edited.remote.run("cat", CONF)
    assert operator.types("plan").splitlines()[-1] == "nothing to change on 2 hosts"


def test_an_interrupted_deploy_says_so_and_leaves_nothing_that_runs(
    operator: Operator, cdn: Cdn, tmp_path: Path
) -> None:
    process = operator.starts("apply")
    logs = tmp_path / "bitrix-cdn" / "logs"
    wait_until(
        "the first operation",
        lambda: [one for one in logs.glob("*.log") if "Starting operation" in one.read_text()],
        timeout=120,
        interval=0.1,
    )
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, said
    assert said == "apply: interrupted; run it again to finish\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert "not locked" in operator.types("lock")


def test_a_deploy_that_can_not_begin_says_why_in_one_line(operator: Operator, cdn: Cdn) -> None:
    cdn.remote.run("mv", "/etc/os-release", "/etc/os-release.kept")
    cdn.remote.put("/etc/os-release", b"ID=plan9\nVERSION_ID=4\n")
    try:
        said = operator.types("apply", status=Exit.FAILED)
    finally:
        cdn.remote.run("mv", "/etc/os-release.kept", "/etc/os-release")
    assert said.startswith("apply: cdn: plan9 4 is not supported on a host of ")
    assert len(said.splitlines()) == 1


def test_status_and_verify_say_that_all_is_well_and_what_is_not(operator: Operator, cdn: Cdn) -> None:
    checks = operator.asks("verify")
    assert [one for one in checks if not one["ok"]] == []
    assert {"as WebP", "as it is"} <= {one["name"].partition(" ")[2] for one in checks}
    hosts = {one["name"]: one for one in operator.asks("status")}
    assert [mount["state"] for host in hosts.values() for mount in host["mounts"]] == ["mounted"] * 2
    assert hosts["cdn"]["release"] in operator.types("release")
    cdn.remote.run("systemctl", "stop", "mtail.service")
    try:
        assert "! mtail.service does not run" in operator.types("status", status=Exit.FAILED)
        assert "journalctl -u UNIT" in operator.types("verify", status=Exit.FAILED)
    finally:
        cdn.remote.run("systemctl", "start", "mtail.service")


def test_the_other_commands_end_as_the_table_says(operator: Operator) -> None:
    assert "no release nosuch; there is " in operator.types("release", "back", "nosuch", status=Exit.FAILED)
    assert operator.asks("lock") == {"bitrix": None, "cdn": None}
    asked = operator.types("explain", "/upload/nosuch.jpg", status=Exit.FAILED)
    assert "nosuch.jpg" in asked


def test_the_log_tells_of_each_run_also_of_one_that_was_killed(operator: Operator, edited: Cdn) -> None:
    operator.types("apply")
    before = operator.asks("log")
    last = before["runs"][-1]
    assert (last["what"], before["broken"]) == ("deploy", {})
    assert {name: (one["result"], one["changes"] > 0) for name, one in last["hosts"].items()} == {
        "bitrix": ("ok", False),
        "cdn": ("ok", True),
    }
    # One that has nothing to change would be over before it is killed.
    edited.remote.run("sed", "-i", "s/^maxmemory .*/maxmemory 99mb/", CONF)
    pyinfra = subprocess.Popen(
        [Path(sys.executable).parent / "pyinfra", "-y", operator.inventory, "deploy.py"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    edited.remote.run("sh", "-c", f"until tail -n 1 {LOG} | grep -q '\"begin\"'; do sleep 0.02; done")
    pyinfra.kill()
    pyinfra.wait()
    edited.remote.run("sh", "-c", f"until tail -n 1 {LOG} | grep -q '\"interrupted\"'; do sleep 0.1; done")
    shown = operator.types("log", "--limit", "cdn", "--since", "1h").splitlines()
    assert shown[-2].endswith(Path(operator.inventory).name)
    assert shown[-1].startswith("    cdn  interrupted, ")
    edited.remote.run("sed", "-i", 's/"operator": "[a-z]*"/"operator": "nobody"/', LOG)
    try:
        assert "the audit log is broken" in operator.types("log", status=Exit.FAILED)
    finally:
        edited.remote.run("mv", LOG, f"{LOG}.tampered")

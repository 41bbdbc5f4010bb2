"""Runs that meet each other, and hosts that fall silent in the middle of one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dev.lab import state
from tests.kit.deployment import ROOT, pyinfra, refusal
from tests.kit.hosts import Cdn
from tests.kit.support import wait_until

BEGUN = "/run/a-run-has-begun"

# Whatever the operator's machine sends is dropped for 35 s.
CUT = """\
nft delete table inet cut 2>/dev/null
systemd-run -q --collect --on-active=35 nft delete table inet cut
nft -f - <<END
table inet cut {
  chain input {
    type filter hook input priority -300;
    ip saddr ${SSH_CLIENT%% *} tcp dport 22 drop
  }
}
END
sleep 100 >/dev/null 2>&1 &
wait
"""


@pytest.fixture
def slow(tmp_path: Path) -> str:
    """A deploy that takes a while."""
    script = tmp_path / "slow.py"
    script.write_text(
        "from pyinfra import host\n"
        "from pyinfra.operations import server\n"
        "from roles.preflight import refuse_if_held, settings_of\n"
        "refuse_if_held(settings_of(host))\n"
        f"server.shell(name='Take a while', commands=['touch {BEGUN}; sleep 600'])\n"
    )
    return str(script)


def test_a_host_is_changed_by_one_run_at_a_time(lab: state.Lab, cdn: Cdn, slow: str) -> None:
    cdn.remote.run("rm", "-f", BEGUN)
    first = subprocess.Popen(
        [ROOT / ".venv/bin/pyinfra", "-y", "inventories/lab.py", slow],
        cwd=ROOT,
        env={**os.environ, "LAB_NAME": lab.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            "the first run at work", lambda: cdn.remote.run("sh", "-c", f"ls {BEGUN} || true"), timeout=30
        )
        for operations in ("deploy.py", "rotate_keys.py", "rollback.py"):
            second = pyinfra("-y", operations=operations, lab=lab.name)
            refusal(second, "held by", " since ", "slow.py", "bitrix-cdn lock break")
            assert "Starting operation" not in second.output
    finally:
        first.kill()
        first.wait()
    # One that is killed holds nothing any more.
    run = pyinfra("-y", "--json", lab=lab.name)
    assert (run.status, run.changed()) == (0, {}), run.output


def test_a_host_that_falls_silent_ends_the_run_soon(lab: state.Lab, cdn: Cdn, tmp_path: Path) -> None:
    script = tmp_path / "cut.py"
    script.write_text(
        "from pyinfra.operations import server\n"
        f"server.shell(name='Cut the connection', commands=[{CUT!r}])\n"
    )
    run = pyinfra("-y", "--limit", "cdn", operations=str(script), lab=lab.name, timeout=40)
    refusal(run, "cdn", "has been silent for 20 s", "run it again")
    assert run.seconds < 30 + 5, "30 s from the cut on, and the start of pyinfra"
    wait_until("the host again", lambda: cdn.remote.run("echo", "here", check=False), timeout=60)
    again = pyinfra("-y", lab=lab.name)
    assert again.status == 0, again.output

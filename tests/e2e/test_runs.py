"""Hosts that fall silent in the middle of a run."""

from __future__ import annotations

from pathlib import Path

from lab import state
from tests.deployment import pyinfra
from tests.e2e.conftest import Cdn
from tests.e2e.test_deploy import refusal
from tests.support import wait_until

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

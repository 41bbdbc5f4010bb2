"""What known tools say of five hosts, as `make audit` measures it, within its limits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.deployment import ROOT, Deployment
from tests.kit.support import Figure


@pytest.mark.edges
@pytest.mark.timeout(1800)
def test_the_hosts_are_as_tools_want_them(deployment: Deployment, figure: Figure) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dev.audit", "--inventory", deployment.inventory],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in run.stdout.splitlines():
        figure(f"audit: {line.strip()}")
    assert run.returncode == 0, run.stdout + run.stderr

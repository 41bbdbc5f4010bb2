"""The drift check, as an operator runs it on a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from dev.lab import state
from tests.kit.deployment import ROOT, Deployment

CLEAN, FAILED, DRIFT = 0, 1, 3


@dataclass(frozen=True)
class Checked:
    """What `bitrix-cdn drift --json` said."""

    status: int
    report: dict[str, Any]
    errors: str
    seconds: float

    def found(self, host: str) -> dict[tuple[str, str], dict[str, Any]]:
        """The differences of a host by kind and thing."""
        [one] = [one for one in self.report["hosts"] if one["name"] == host]
        return {(difference["kind"], difference["what"]): difference for difference in one["differences"]}


def check(deployment: Deployment, lab: state.Lab, *arguments: str) -> Checked:
    """One check of the lab."""
    started = time.monotonic()
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "bitrix_cdn",
            "drift",
            "check",
            "-i",
            deployment.inventory,
            "--json",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "LAB_NAME": lab.name},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    seconds = time.monotonic() - started
    assert result.stdout, result.stderr
    return Checked(result.returncode, json.loads(result.stdout), result.stderr, seconds)

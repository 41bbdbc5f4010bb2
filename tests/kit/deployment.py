"""pyinfra as an operator runs it, and what a run said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dev.lab import state

ROOT = Path(__file__).parents[2]
INVENTORY = "inventories/lab.py"
INVENTORY_OF_EDGES = "inventories/lab_edges.py"
"""The same with two edges and a balancer."""


@dataclass(frozen=True)
class Run:
    """One run of pyinfra."""

    status: int
    output: str
    """What it printed for people, without colours."""
    report: dict[str, Any] | None
    """What it printed for programs, where that was asked for."""
    seconds: float

    def changed(self) -> dict[str, list[str]]:
        """The operations that changed something, each with its hosts."""
        assert self.report is not None, self.output
        return {op["name"]: op["success"] for op in self.report["results"]["operations"] if op["success"]}

    def planned(self) -> dict[str, list[str]]:
        """The operations that would change something, each with its hosts."""
        assert self.report is not None, self.output
        return {op["name"]: op["hosts_with_change"] for op in self.report["plan"] if op["hosts_with_change"]}

    def hosts(self) -> set[str]:
        """The hosts that took part: one that can't be reached is silently missing from a plan."""
        return (
            set()
            if "Connected" not in self.output
            else {
                line.split("[", 1)[1].split("]", 1)[0]
                for line in self.output.splitlines()
                if "Connected" in line
            }
        )


def pyinfra(
    *arguments: str,
    inventory: str = INVENTORY,
    operations: str = "deploy.py",
    lab: str | None = None,
    timeout: float = 600,
    root: Path = ROOT,
    receiver: str | None = None,
) -> Run:
    """Runs `pyinfra ARGUMENTS INVENTORY OPERATIONS` from the root of the repository.

    :param lab: name of the lab that `inventories/lab.py` and `inventories/lab_edges.py` shall mean.
    :param root: of another copy of the repository.
    :param receiver: address of a webhook that the lab's Alertmanager shall tell of alerts.
    :raises AssertionError: it takes longer than `timeout` seconds; its output so far is the message.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYINFRA_")}
    if lab is not None:
        environment["LAB_NAME"] = lab
    if receiver is not None:
        environment["LAB_RECEIVER"] = receiver
    started = time.monotonic()
    try:
        result = subprocess.run(
            [Path(sys.executable).parent / "pyinfra", *arguments, inventory, operations],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise AssertionError(
            f"pyinfra {inventory} {operations} takes longer than {timeout:g} s:\n{said[-4000:]}"
        ) from None
    seconds = time.monotonic() - started
    report = json.loads(result.stdout) if "--json" in arguments and result.stdout.strip() else None
    output = result.stderr if report is not None else result.stdout + result.stderr
    return Run(result.returncode, output, report, seconds)


def deploy(lab: str, inventory: str = INVENTORY) -> Run:
    """Deploys onto a lab.

    :raises AssertionError: the deploy failed, or took too long; its output is the message.
    """
    # Five hosts unpack two and a half times the packages of two, on the same machine.
    timeout = 1200 if inventory == INVENTORY_OF_EDGES else 600
    run = pyinfra("-y", "--json", inventory=inventory, lab=lab, timeout=timeout)
    assert run.status == 0, f"the deploy onto {lab} exits {run.status}:\n{run.output[-4000:]}"
    return run


@dataclass(frozen=True)
class Deployment:
    """Deployed hosts, and what the deploys said; the runs are None where they were deployed before."""

    inventory: str
    lab: state.Lab | None
    rehearsal: Run | None = None
    """`--dry` on the bare hosts, if a test asks for it by the fixture of that name."""
    first: Run | None = None
    """The deploy onto the bare hosts."""
    ports: dict[str, set[tuple[str, str, int]]] = field(default_factory=dict)
    """What listened on each host during the first deploy; see :func:`tests.kit.ports.listening`."""

    def lacks(self, what: str) -> NoReturn:
        """Ends a test of what these hosts don't have: skipped on somebody's, failed in a lab made for it."""
        if self.first is None:
            pytest.skip(f"these hosts have no {what}")
        pytest.fail(f"this lab was booted without {what}: is the test marked with `edges`?", pytrace=False)


def refusal(run: Run, *words: str) -> None:
    """Checks that a run failed, with one line that has all the words in it and no traceback."""
    assert run.status != 0, run.output
    assert "Traceback" not in run.output, run.output
    assert any(all(word in line for word in words) for line in run.output.splitlines()), run.output[-3000:]

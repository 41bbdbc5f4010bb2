"""Runs pyinfra as a process of its own, and gives what it says a type."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The repository, in which pyinfra runs: it reads `config.py` there."""


@dataclass(frozen=True)
class Failure:
    """An operation that failed, as a deploy told of it."""

    hosts: tuple[str, ...]
    operation: str
    said: tuple[str, ...]
    """What the hosts said meanwhile."""


@dataclass(frozen=True)
class Run:
    """How a run of pyinfra ended."""

    status: int
    printed: str
    """What it printed for programs."""
    said: str
    """What it printed for people, without colours."""

    @property
    def report(self) -> Any:
        """What it printed, where that is JSON; else None."""
        try:
            return json.loads(self.printed)
        except ValueError:
            return None

    @property
    def connected(self) -> set[str]:
        """The hosts that let it in. One that can't be reached is missing from a plan without a word."""
        return set(re.findall(r"^\s*\[([^\]]+)\] +Connected", self.said, re.MULTILINE))

    def why(self, hosts: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """Why it failed, in one line, and what else a host said of it."""
        if failed := failure(self.said, hosts):
            told = failed.said or ("it says nothing",)
            return f"{', '.join(failed.hosts)}: {failed.operation}: {told[0]}", told[1:]
        return complaint(self.said) or f"pyinfra says nothing and ends with {self.status}", ()


def run(
    *arguments: str,
    inventory: str,
    operations: str = "deploy.py",
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
    log: Path | None = None,
) -> Run:
    """Runs `pyinfra ARGUMENTS INVENTORY OPERATIONS` in the repository.

    :param descriptors: that it inherits.
    :param log: a file for what it says. With one, a run that has begun comes to its end, whatever becomes of
        this process.
    """
    command = [str(Path(sys.executable).parent / "pyinfra"), *arguments, named(inventory), operations]
    # PYINFRA_YES would have it find no changes at all.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYINFRA_")}
    given = {**kept, **(environment or {})}
    if log is None:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=given,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return Run(ended.returncode, ended.stdout, _plain(ended.stderr))
    printed = log.with_suffix(".json")
    with log.open("w") as errors, printed.open("w") as output:
        status = subprocess.run(
            command,
            cwd=ROOT,
            env=given,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            check=False,
        ).returncode
    found = Run(status, printed.read_text(), _plain(log.read_text(errors="replace")))
    printed.unlink()
    return found


def named(inventory: str) -> str:
    """An inventory as pyinfra finds it from the repository, and as it is named in what it says."""
    path = Path(inventory).resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def limits(hosts: Iterable[str]) -> list[str]:
    """Arguments that have a run concern these hosts only."""
    return [word for host in hosts for word in ("--limit", host)]


def by_host(
    hosts: Iterable[str], operations: Iterable[Mapping[str, Any]], which: str
) -> dict[str, tuple[str, ...]]:
    """Turns pyinfra's report round: for each host the names of its operations."""
    found: dict[str, list[str]] = {host: [] for host in hosts}
    for operation in operations:
        for host in operation[which]:
            found.setdefault(host, []).append(operation["name"])
    return {host: tuple(names) for host, names in found.items()}


def failure(said: str, hosts: Iterable[str]) -> Failure | None:
    """The operation that a deploy stopped at; None: it tells of none."""
    names = "|".join(map(re.escape, hosts))
    for section in re.split(r"^--> Starting operation: ", said, flags=re.MULTILINE)[1:]:
        operation, _, rest = section.partition("\n")
        lines = re.findall(rf"^ *\[({names})\] +(.*\S)", rest.partition("\n--> ")[0], re.MULTILINE)
        failed = tuple(dict.fromkeys(name for name, text in lines if text.startswith("Error: ")))
        if failed:
            told = (text for name, text in lines if name in failed and not text.startswith("Error: "))
            return Failure(failed, operation.strip(), tuple(told))
    return None


def said_of(host: str, errors: str) -> str:
    """Why pyinfra could do nothing with a host, of what it wrote for people; empty: it doesn't say."""
    said = [
        line.partition("]")[2].strip()
        for line in map(_plain, errors.splitlines())
        if line.strip().startswith(f"[{host}]")
    ]
    faults = [line for line in said if line and not re.match(r"(Connected|Ready:|noop)", line)]
    return faults[-1] if faults else ""


def complaint(errors: str) -> str:
    """What pyinfra says is wrong, without where in the code it noticed."""
    lines = [line.strip() for line in map(_plain, errors.splitlines()) if line.strip()]
    for line in reversed(lines):
        if found := re.search(r"pyinfra error(?: in \S+ line \d+)?: (.*)", line):
            return found[1]
    faults = [line for line in lines if not line.startswith(("-->", "["))]
    return faults[-1] if faults else ""


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)

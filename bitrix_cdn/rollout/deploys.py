"""pyinfra as a process of its own: rehearsed or in earnest, on some hosts of the inventory."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitrix_cdn.fleet import Inventory
from bitrix_cdn.fleet.inventory import complaint
from bitrix_cdn.fleet.lock import VARIABLE
from bitrix_cdn.rollout.errors import RolloutError

ROOT = Path(__file__).parents[2]

# What pyinfra reads by itself.
_BEGINNINGS = ("config.py", "deploy.py", "inventories/group_data")
_UNSENT = ("__pycache__", "tests")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def state(inventory: Inventory, root: Path = ROOT) -> str:
    """A hash of what a deploy would bring: this tree, and the inventory with its settings."""
    digest = hashlib.sha256(json.dumps(inventory.entries, sort_keys=True, default=str).encode())
    for file in sorted(sources(root)):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def sources(root: Path = ROOT) -> set[Path]:
    """All files that a deploy brings to a host, or that decide what it brings.

    Beginning with what pyinfra reads, these are the modules that are imported, and each directory at the
    root that one of them names in a string, as `roles/mounts.py` names "mount_guard".
    """
    directories = {path.name: path for path in root.iterdir() if path.is_dir() and path.name != "tests"}
    found: set[Path] = set()
    waiting = [root / name for name in _BEGINNINGS]
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            waiting += (one for one in path.iterdir() if one.name[0] != "." and one.name not in _UNSENT)
        elif path.is_file() and path not in found:
            found.add(path)
            if path.suffix == ".py" and path.parts[len(root.parts)] != "converter_app":
                waiting += _named_by(path, root, directories)
    return found


def _named_by(module: Path, root: Path, directories: Mapping[str, Path]) -> Iterable[Path]:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in directories:
            yield directories[node.value]
        names = [one.name for one in getattr(node, "names", ())] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for name in names:
            place = root.joinpath(*name.split("."))
            yield from (place.with_suffix(".py"), place / "__init__.py")


@dataclass(frozen=True)
class Deployed:
    """What a deploy did."""

    changed: Mapping[str, tuple[str, ...]]
    """By host, the operations that changed it."""


class Pyinfra:
    """Runs `deploy.py` with an inventory."""

    def __init__(self, inventory: str, token: str) -> None:
        self._inventory = inventory
        self._token = token

    def rehearse(
        self, hosts: Sequence[str], log: Path, work: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        """The operations that a deploy would change each host with; nothing is changed.

        An operation that a dry run can't foresee, as it follows from the change of another one, is not among
        them: where there is one, there is the other as well.

        :raises RolloutError: it can't be said for each of the hosts.
        """
        status, report, said = self._run(["--dry", "--json", *_limits(hosts)], log, work)
        # A host that can't be reached is missing from the plan without a word.
        missing = sorted(set(hosts) - _connected(said))
        if status or report is None or missing:
            why = (
                f"{', '.join(missing)}: can't be reached" if missing and not status else _why(said, hosts)[0]
            )
            raise RolloutError(f"what there is to change can't be said: {why} ({log})")
        return by_host(hosts, report["plan"], "hosts_with_change")

    def deploy(self, hosts: Sequence[str], log: Path, work: int | None = None) -> Deployed:
        """Deploys.

        :raises RolloutError: it fails; says with which operation on which host, and why.
        """
        status, report, said = self._run(["-y", "--json", *_limits(hosts)], log, work)
        if status or report is None or not set(hosts) <= _connected(said):
            why, more = _why(said, hosts)
            raise RolloutError(f"{why} (all of it: {log})", more)
        return Deployed(by_host(hosts, report["results"]["operations"], "success"))

    def _run(
        self, arguments: Sequence[str], log: Path, work: int | None
    ) -> tuple[int, dict[str, Any] | None, str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYINFRA_")}
        environment[VARIABLE] = self._token
        report = log.with_suffix(".json")
        with log.open("w") as errors, report.open("w") as output:
            # To files: whatever becomes of this process, a deploy that has begun comes to its end.
            status = subprocess.run(
                [str(Path(sys.executable).parent / "pyinfra"), *arguments, self._inventory, "deploy.py"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                pass_fds=() if work is None else (work,),
                check=False,
            ).returncode
        printed, said = report.read_text(), _COLOURS.sub("", log.read_text(errors="replace"))
        try:
            parsed = json.loads(printed) if printed.strip() else None
        except ValueError:
            parsed = None
        report.unlink()
        return status, parsed, said


def by_host(
    hosts: Iterable[str], operations: Iterable[Mapping[str, Any]], which: str
) -> dict[str, tuple[str, ...]]:
    """Turns pyinfra's report round: for each host the names of its operations."""
    found: dict[str, list[str]] = {host: [] for host in hosts}
    for operation in operations:
        for host in operation[which]:
            found.setdefault(host, []).append(operation["name"])
    return {host: tuple(names) for host, names in found.items()}


def _limits(hosts: Iterable[str]) -> list[str]:
    return [argument for host in hosts for argument in ("--limit", host)]


def _connected(said: str) -> set[str]:
    return set(re.findall(r"^\s*\[([^\]]+)\] +Connected", said, re.MULTILINE))


@dataclass(frozen=True)
class Failure:
    """An operation that failed, as a deploy told of it."""

    hosts: tuple[str, ...]
    operation: str
    said: tuple[str, ...]
    """What the hosts said meanwhile."""


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


def _why(said: str, hosts: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Why a run failed, in one line, and what else a host said of it."""
    if failed := failure(said, hosts):
        told = failed.said or ("it says nothing",)
        return f"{', '.join(failed.hosts)}: {failed.operation}: {told[0]}", told[1:]
    return complaint(said) or "it says nothing", ()

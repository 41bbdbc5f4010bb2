"""`python -m dev.bench.ansible`: this deploy against Ansible with the same state, on hosts that have it.

The state is exported from the deploy itself (tests/bench/export.py), and must be the same: the playbook has
to find nothing to change on hosts that were deployed. Then all four are timed in turn, so that what else the
machine does falls on all alike: the deploy again and `--dry`, the playbook again and `--check --diff`. What
counts is the ratio.

Ansible has what its manuals recommend for speed: pipelining, SSH connections that stay open between tasks and
between runs, both hosts at once, one task for all packages, a named interpreter, and no facts but the
distribution's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.lab import state
from dev.lab.errors import LabError

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests/bench"
VERSION = "2.19.14"
VENV = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitrix-cdn" / f"ansible-{VERSION}"
"""A separate one: nothing else of the project needs Ansible."""

PYINFRA = Path(sys.executable).parent / "pyinfra"
INVENTORY = "inventories/lab.py"
ROUNDS = 5

SETTINGS = """\
[defaults]
inventory = {place}/hosts.json
forks = 10
strategy = linear
gathering = explicit
host_key_checking = True
retry_files_enabled = False
[connection]
pipelining = True
[ssh_connection]
ssh_args = -o ControlMaster=auto -o ControlPersist=600s -o UserKnownHostsFile={known_hosts}
control_path_dir = {place}/cp
"""


def run(*command: str | Path, environment: dict[str, str] | None = None) -> tuple[float, str]:
    """Runs a command that must succeed; returns its duration in seconds, and its output.

    :raises SystemExit: it failed; the last of its output is the message.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYINFRA_", "ANSIBLE_"))}
    started = time.perf_counter()
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=clean | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if result.returncode:
        said = (result.stdout + result.stderr)[-3000:]
        raise SystemExit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{said}")
    return seconds, result.stdout


def install() -> None:
    """Installs Ansible into its own environment, once."""
    if not (VENV / "bin/ansible-playbook").exists():
        run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", f"ansible-core=={VERSION}")


def prepare(lab: state.Lab, place: Path) -> list[str]:
    """Writes inventory, settings, variables and files for the playbook; returns what it has no words for."""
    run(PYINFRA, "--dry", INVENTORY, "deploy.py", BENCH / "export.py", "--data", f"export={place}")
    exported = {path.stem: json.loads(path.read_text()) for path in (place / "host_vars").glob("*.json")}
    hosts = {
        name: {
            "ansible_host": lab.host(name).address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(lab.ssh_key),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        for name in exported
    }
    (place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (place / "ansible.cfg").write_text(SETTINGS.format(place=place, known_hosts=lab.known_hosts))
    # The playbook looks for variables and files beside itself.
    (place / "playbook.yml").write_text((BENCH / "playbook.yml").read_text())
    return sorted({name for variables in exported.values() for name in variables["left_out"]})


def changes(recap: str) -> int:
    """How many changes a playbook's run reports, over all hosts.

    :raises SystemExit: it reports none for any host, not even 0.
    """
    found = re.findall(r"ok=\d+ +changed=(\d+) +unreachable=0 +failed=0", recap)
    if not found:
        raise SystemExit(f"no recap in what Ansible says:\n{recap[-3000:]}")
    return sum(map(int, found))


def in_turn(rounds: int, measured: Sequence[Callable[[], float]]) -> list[list[float]]:
    """The durations of each, one after the other; the first one of a round is not always the same."""
    taken: list[list[float]] = [[] for _ in measured]
    for number in range(rounds):
        for offset in range(len(measured)):
            index = (number + offset) % len(measured)
            taken[index].append(measured[index]())
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.ansible")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each measurement (default: %(default)s)"
    )
    rounds: int = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        lab = state.load()
    except LabError as error:
        raise SystemExit(f"{error}\nmake demo starts one") from None
    install()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="bench-ansible-") as directory:
        place = Path(directory)
        left_out = prepare(lab, place)
        environment = {"ANSIBLE_CONFIG": str(place / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

        def ansible(*arguments: str) -> float:
            seconds, said = run(
                VENV / "bin/ansible-playbook", place / "playbook.yml", *arguments, environment=environment
            )
            if count := changes(said):
                raise SystemExit(f"{count} changes: not the state that the deploy left\n{said[-3000:]}")
            return seconds

        def deploy() -> float:
            seconds, said = run(PYINFRA, "-y", "--json", INVENTORY, "deploy.py")
            if count := json.loads(said)["results"]["totals"]["success"]:
                raise SystemExit(f"{count} changes: deploy first")
            return seconds

        def rehearse() -> float:
            return run(PYINFRA, "--dry", INVENTORY, "deploy.py")[0]

        # Once unmeasured: connections, caches, and that there is nothing to do.
        for once in (deploy, ansible):
            once()
        check = ["--check", "--diff"]
        taken = in_turn(rounds, [deploy, ansible, rehearse, lambda: ansible(*check)])

    table = Table(
        title=f"nothing to do on {len(lab.hosts)} hosts, median of {rounds} (least to most), seconds"
    )
    for column in ("", "this deploy", f"ansible-core {VERSION}", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, ours, theirs in (("again", 0, 1), ("rehearsal (--dry, --check --diff)", 2, 3)):
        cells = [
            f"{statistics.median(taken[i]):.2f} ({min(taken[i]):.2f} to {max(taken[i]):.2f})"
            for i in (ours, theirs)
        ]
        ratio = statistics.median(taken[theirs]) / statistics.median(taken[ours])
        table.add_row(name, *cells, f"{ratio:.1f}")
    console.print(table)
    if left_out:
        console.print(f"In this deploy only: {', '.join(left_out)}")


if __name__ == "__main__":
    main()

"""What a drift check of many hosts costs: seconds and memory, by their number, and against the dry run alone.

    python -m dev.bench.drift [--hosts 2 25 50 100 200]

Boots a lab of three hosts and deploys them. From the third on, each host is one more name of the lab's edge:
to pyinfra, a host with its own connection and facts. So that one edge, on this same machine, bears what
so many would bear together, and the time per host is an upper bound. Memory is that of the larger of the two
processes, pyinfra's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
INVENTORY = "dev/bench/drift_inventory.py"
HOSTS = ("bitrix", "cdn", "edge1")
DROP_IN = "/etc/ssh/sshd_config.d/00-bench.conf"


class Cost(NamedTuple):
    """Of one process and what it waited for."""

    seconds: float
    cpu: float
    """Seconds of this machine's processors."""
    mebibytes: float
    """Resident, at most, of the largest process."""
    output: str


@contextmanager
def many_logins(host: str) -> Iterator[None]:
    """Makes a host's SSH server accept any number of logins at once, as this many hosts together would."""
    _exec(host, "sh", "-c", f"echo MaxStartups 1000 > {DROP_IN}; systemctl reload ssh")
    try:
        yield
    finally:
        _exec(host, "sh", "-c", f"rm {DROP_IN}; systemctl reload ssh")


def _exec(host: str, *command: str) -> None:
    subprocess.run([sys.executable, "-m", "dev.lab", "exec", host, "--", *command], cwd=ROOT, check=True)


def cost(command: Sequence[str | Path], environment: dict[str, str], allowed: Sequence[int]) -> Cost:
    """Runs a command and says what it cost.

    :raises SystemExit: its exit status is none of those allowed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode not in allowed:
            sys.exit(f"{command} exits {process.returncode}: {errors.read().decode()[-2000:]}")
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(seconds, cpu, usage.ru_maxrss / 1024, output.read().decode())


def differences(output: str) -> list[str]:
    """What the check found that isn't due to the many names: Prometheus asks them all."""
    return [
        f"{host['name']}: {one['what']} {one['summary']}"
        for host in json.loads(output)["hosts"]
        for one in host["differences"]
        if "prometheus" not in one["what"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.drift", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 25, 50, 100, 200])
    numbers: list[int] = parser.parse_args().hosts
    pyinfra = Path(sys.executable).parent / "pyinfra"
    subprocess.run([sys.executable, "-m", "dev.lab", "up", "--host", *HOSTS[2:]], cwd=ROOT, check=True)
    three = {"BENCH_HOSTS": "3", "BENCH_ALLOWED": DROP_IN}
    cost([pyinfra, "-y", INVENTORY, "deploy.py"], three, [0])
    table = Table("hosts", "drift s", "dry run s", "ratio", "ms a host", "CPU s here", "ratio", "MiB")
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(many_logins(host))
        for number in numbers:
            environment = {**three, "BENCH_HOSTS": str(max(3, number))}
            limit = HOSTS[:2] if number == 2 else ("*",)
            limits = [part for one in limit for part in ("--limit", one)]
            dry = cost([pyinfra, "--dry", "--json", *limits, INVENTORY, "deploy.py"], environment, [0])
            check = [sys.executable, "-m", "bitrix_cdn", "drift", "check", "-i", INVENTORY, "--json", *limits]
            drift = cost(check, environment, [0, 3])
            if found := differences(drift.output):
                sys.exit(f"{number} hosts differ: {found[:5]}")
            table.add_row(
                str(number),
                f"{drift.seconds:.1f}",
                f"{dry.seconds:.1f}",
                f"{drift.seconds / dry.seconds:.2f}",
                f"{drift.seconds / number * 1000:.0f}",
                f"{drift.cpu:.1f}",
                f"{drift.cpu / dry.cpu:.2f}",
                f"{drift.mebibytes:.0f}",
            )
            Console(stderr=True).print(f"{number} hosts: {drift.seconds:.1f} s, {drift.mebibytes:.0f} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()

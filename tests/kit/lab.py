"""A lab, driven as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.lab import layout, machine, network, state
from dev.lab.layout import Layout

REPOSITORY = Path(__file__).parents[2]


class LabDriver:
    """A lab by its name, driven through the command line as a person would."""

    def __init__(self, name: str | None = None) -> None:
        """:param name: by default that of `LAB_NAME`."""
        self.name = layout.lab_name(name)
        self.files = Layout(self.name)

    def popen(self, *arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "dev.lab", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "LAB_NAME": self.name},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def run(
        self, *arguments: str, stdin: str | None = None, status: int = 0, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the lab and check its exit status."""
        process = self.popen(
            *arguments, prefix=prefix, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL
        )
        out, err = process.communicate(stdin, timeout=300)
        said = f"python -m dev.lab {' '.join(arguments)}: {process.returncode}\n{out}\n{err}"
        assert process.returncode == status, said
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def shell(self, host: str, script: str, *, status: int = 0) -> str:
        """Run a script on a host, without its network, and return what it prints."""
        return self.run("exec", host, "--", "bash", "-c", script, status=status).stdout

    def ssh(self, host: str, command: str) -> str:
        """Run a command on a host as any SSH client would, its key checked strictly."""
        lab = state.load(self.name)
        options = [f"UserKnownHostsFile={lab.known_hosts}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        options.append("ConnectTimeout=5")
        client = ["ssh", "-F", "none", "-i", str(lab.ssh_key), *(f"-o{option}" for option in options)]
        result = subprocess.run(
            [*client, f"root@{lab.host(host).address}", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def status(self) -> dict[str, dict[str, str]]:
        return {host["name"]: host for host in json.loads(self.run("status", "--json").stdout)["hosts"]}

    def boot_id(self, host: str) -> str:
        return self.shell(host, "cat /proc/sys/kernel/random/boot_id").strip()

    def remains(self) -> list[str]:
        """Return what there is of this lab on the machine."""
        # Its discarded files may take a busy disk some seconds more, `down` says so.
        found = [
            str(path)
            for pattern in (f"{self.name}*", f".{self.name}*")
            for path in layout.state_root().glob(pattern)
        ]
        for program in ("ip -d link show", "ip -4 address show", "nft list ruleset", "cat /proc/self/mounts"):
            lines = subprocess.run(
                program.split(), capture_output=True, text=True, check=True
            ).stdout.splitlines()
            found += [
                line.strip() for line in lines if network.table(self.name) in line or f"/{self.name}/" in line
            ]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"/{self.name}/" in command:
                found.append(command)
        for root in machine._cgroup_mounts("cgroup2", "cgroup"):
            found += [str(path) for path in machine.cgroups_below(root) if self.name in str(path)]
        return found


def lab_command(*arguments: str) -> str:
    """Runs a command of the lab that `LAB_NAME` names, and returns what it prints."""
    return LabDriver().run(*arguments).stdout


@contextmanager
def partitioned(host: str) -> Iterator[None]:
    """Cut off from the other hosts, without a word to them."""
    lab_command("partition", host)
    try:
        yield
    finally:
        lab_command("heal", host)

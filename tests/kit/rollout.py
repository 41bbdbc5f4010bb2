"""A rollout as an operator runs it, while visitors come through the balancer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from host_agent.journal import JOURNAL
from host_agent.lock import LOCK
from roles.nginx import DRAIN
from tests.kit.deployment import INVENTORY_OF_EDGES
from tests.kit.edges import Balancer, Expected, Load, visitors
from tests.kit.support import Remote
from tests.kit.tools import started

NGINX = "templates/nginx/etc/nginx/nginx.conf.j2"


SITE = "templates/nginx/etc/nginx/conf.d/server.conf"


DAEMON = "converter_app/src/webp_converter/daemon.py"
HEALTH = "converter_app/src/webp_converter/work/health.py"


# Asks for a picture about 200 times a second with each connection, rather than as fast as it can: the hosts
# share this machine's cores.
_WRK = "function delay() return 5 end\n"


@dataclass(frozen=True)
class Done:
    """A rollout that came to an end."""

    status: int
    output: str
    seconds: float

    def seconds_of(self, host: str) -> float:
        """What it said that the host took."""
        found = re.search(rf"^ +{host} +finished, in (\d+) s", self.output, re.MULTILINE)
        assert found, self.output
        return float(found[1])

    def became_of(self, host: str) -> str:
        """What the summary says of the host."""
        found = re.findall(rf"^ +{host} +(.*)", self.output, re.MULTILINE)
        assert found, self.output
        return str(found[-1])


@dataclass
class Tree:
    """A copy of the repository that a test may change, and an operator who rolls it out."""

    path: Path
    lab: str
    home: Path
    """What the operator's machine remembers is kept there."""
    originals: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def change(self, name: str, old: str, new: str) -> None:
        """Replaces a part of a file until the end of the test."""
        file = self.path / name
        text = file.read_text()
        assert old in text, f"{name}: has no {old!r}"
        self.originals.setdefault(name, text)
        file.write_text(text.replace(old, new, 1))

    def reset(self) -> None:
        """Takes the changes back, and ends what a failed test left running."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.started.clear()
        for name, text in self.originals.items():
            (self.path / name).write_text(text)
        self.originals.clear()

    def start(
        self, *arguments: str, code: str = "", command: str = "start", **environment: str
    ) -> subprocess.Popen[str]:
        """Starts a rollout, in its own process group.

        :param code: Python that goes before it.
        :param command: of `bitrix-cdn rollout`.
        """
        program = [
            "-c",
            f"{code}\nimport sys\nfrom bitrix_cdn.cli import main\nsys.exit(main())",
        ]
        process = started(
            sys.executable,
            *(program if code else ["-m", "bitrix_cdn"]),
            *("rollout", command, "-i", INVENTORY_OF_EDGES),
            *arguments,
            cwd=self.path,
            env={**os.environ, "LAB_NAME": self.lab, "XDG_STATE_HOME": str(self.home), **environment},
        )
        self.started.append(process)
        return process

    def run(
        self,
        *arguments: str,
        code: str = "",
        command: str = "start",
        timeout: float = 900,
        **environment: str,
    ) -> Done:
        """Runs a rollout to its end, with a short look at the errors."""
        started = time.monotonic()
        shortly = ("--watch", "10") if command == "start" else ()
        process = self.start(*shortly, *arguments, code=code, command=command, **environment)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"the rollout takes longer than {timeout:.0f} s:\n{process.communicate()[0]}")
        return Done(process.returncode, output, time.monotonic() - started)

    def progress(self) -> dict[str, Any]:
        """What the operator's machine remembers of the rollout; nothing before the first one."""
        progress: dict[str, Any] = {}
        for file in self.home.glob("bitrix-cdn/rollout/*.json"):
            progress = json.loads(file.read_text())
        return progress


@dataclass
class Traffic:
    """What visitors met: those that compare every byte, and those that only press."""

    load: Load
    pressed: int = 0
    """Requests of wrk."""
    refused: int = 0
    """Of these, those without an answer or with another one than 200."""
    said: str = ""

    @property
    def wrong(self) -> list[str]:
        return [failure for failure in self.load.failed if "other bytes" in failure]

    @property
    def failed(self) -> list[str]:
        return [failure for failure in self.load.failed if "other bytes" not in failure]

    def figures(self) -> str:
        return (
            f"{self.load.served:,} requests compared, {len(self.failed)} failed, {len(self.wrong)} wrong "
            f"(figure: 0); {self.pressed:,} by wrk, {self.refused} failed (figure: 0); "
            f"slowest {self.load.slowest:.2f} s"
        )

    def check(self) -> None:
        found = self.failed[:5], self.wrong[:5], self.refused
        assert found == ([], [], 0), f"{self.figures()}\n{self.said}"
        assert self.load.served > 100
        assert self.pressed > 100


WhileVisited = Callable[[], AbstractContextManager[Traffic]]
"""Sends visitors all the time while the body of `with` runs; afterwards tells what they got."""


@contextmanager
def _visited(balancer: Balancer, gallery: list[Expected], place: Path) -> Iterator[Traffic]:
    script = place / "delay.lua"
    script.write_text(_WRK)
    url = f"{balancer.client.base_url}".rstrip("/") + gallery[0].path
    pressing = subprocess.Popen(
        ["wrk", "-t1", "-c4", "-d1h", "--timeout", "20s", "-s", script, "-H", "Accept: image/webp", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with visitors(balancer, gallery, count=2) as load:
            seen = Traffic(load)
            yield seen
    finally:
        ended = pressing.poll()
        pressing.send_signal(signal.SIGINT)
        seen.said = pressing.communicate(timeout=30)[0]
    assert ended is None, f"wrk ended by itself with {ended}: {seen.said}"
    seen.pressed = int(_number(r"(\d+) requests in", seen.said))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", seen.said)
    seen.refused = int(_number(r"Non-2xx or 3xx responses: (\d+)", seen.said)) + sum(
        map(int, errors.groups() if errors else ())
    )


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "0"


def traces(remotes: dict[str, Remote], names: Sequence[str] = ()) -> dict[str, list[str]]:
    """By host, what a rollout has left there: its lock, its journal, its drain file."""
    found = {}
    for name, remote in remotes.items():
        if name in (names or remotes):
            left = remote.run("sh", "-c", f"ls -d {LOCK} {JOURNAL} {DRAIN} 2>/dev/null; true").split()
            if left:
                found[name] = left
    return found

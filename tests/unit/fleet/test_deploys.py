"""Runs of pyinfra on this machine, by the worker as it is: what they tell, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bitrix_cdn.engine.findings import Finding, SurplusFile
from bitrix_cdn.fleet import HostError, RefusedError, UsageError, deploys
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.results import Failure, Result, Step
from tests.kit.support import wait_until
from tests.kit.tools import started

HERE = "@local"
BEGINNING = "from pyinfra import host\nfrom pyinfra.operations import server\n"
CHANGES = 'server.shell(name="Change it", commands=["true"])\n'
CHANGES_NOTHING = 'server.shell(name="Leave it alone", commands=["true"], _if=lambda: False)\n'
FAILS = 'server.shell(name="Refuse", commands=["(echo no such thing; echo look there) >&2; exit 1"])\n'


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    file = tmp_path / "here.py"
    file.write_text('web = [("@local", {"settings": {}, "secret": None})]\n')
    return str(file)


Writer = Callable[..., str]


@pytest.fixture
def operations(tmp_path: Path) -> Writer:
    def write(*parts: str) -> str:
        file = tmp_path / "operations.py"
        file.write_text(BEGINNING + "".join(parts))
        return str(file)

    return write


def test_a_run_tells_its_steps_and_what_it_changed(
    inventory: str, operations: Writer, tmp_path: Path
) -> None:
    told: list[object] = []
    log = tmp_path / "log"
    file = operations('print(f"noise of {host.data.word}")\n', CHANGES, CHANGES_NOTHING)
    result = deploys.run(inventory, file, data={"word": "1"}, on_event=told.append, log=log)
    assert told == [
        Step(1, 2, "Change it"),
        Step(1, 2, "Change it", (HERE,)),
        Step(2, 2, "Leave it alone"),
        Step(2, 2, "Leave it alone", ()),
    ]
    assert result.failed([HERE]) is None
    assert result.changed([HERE]) == {HERE: ("Change it",)}
    assert result.connected == {HERE}
    [entry] = result.entries
    assert (entry.name, set(entry.groups)) == (HERE, {HERE, "web", "here"})
    assert "noise of 1" in log.read_text()


def test_a_dry_run_changes_nothing_and_says_what_it_would(
    inventory: str, operations: Writer, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    told: list[object] = []
    file = operations(
        "from bitrix_cdn.engine import differences\n",
        "from bitrix_cdn.engine.findings import SurplusFile\n",
        "differences.report(SurplusFile('/a'))\n",
        f'server.shell(name="Make it", commands=["touch {made}"])\n',
        CHANGES_NOTHING,
    )
    result = deploys.run(inventory, file, dry=True, on_event=told.append, findings=True)
    assert result.planned([HERE]) == {HERE: ("Make it",)}
    assert result.changed([HERE]) == {HERE: ()}
    assert told == [Finding(HERE, None, SurplusFile("/a"))]
    assert not made.exists()


def test_the_operation_that_failed_is_told_with_what_the_host_said(
    inventory: str, operations: Writer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ignored = FAILS.replace("Refuse", "Try").replace("])", "], _ignore_errors=True)")
    result = deploys.run(inventory, operations(CHANGES, ignored, FAILS, CHANGES_NOTHING), log=log)
    assert result.failure == Failure(f"{HERE}: Refuse: no such thing", ("look there",))
    assert str(result.failure.error(log)) == (
        f"{HERE}: Refuse: no such thing (all of it: {log})\n  look there"
    )
    assert result.changed([HERE]) == {HERE: ("Change it",)}


@pytest.mark.parametrize(
    ("code", "why", "kind"),
    [
        (
            "from bitrix_cdn.engine.errors import OneLineError\nraise OneLineError('here: is not right')\n",
            "here: is not right",
            HostError,
        ),
        (
            "from bitrix_cdn.fleet.hold import HeldError\nraise HeldError('here: held by ann')\n",
            "here: held by ann",
            RefusedError,
        ),
        (
            "import os, sys\nprint('gone')\nsys.stdout.flush()\nos._exit(9)\n",
            "pyinfra's process ended with 9: gone",
            HostError,
        ),
        (
            "from bitrix_cdn.fleet import lock\nraise ValueError(lock.own_token())\n",
            "{file}:4: ValueError: ours",
            HostError,
        ),
    ],
)
def test_what_ends_a_run_is_told_in_one_line(
    inventory: str, operations: Writer, code: str, why: str, kind: type[HostError]
) -> None:
    file = operations(code)
    failure = deploys.run(inventory, file, token="ours").failure
    assert failure is not None
    assert failure.kind is kind
    assert failure.why.removesuffix(": --> Preparing it...").startswith(
        why.format(file=file).partition(": it says")[0]
    )


def test_a_host_that_lets_nobody_in_is_told_and_left_out_where_that_is_allowed(
    tmp_path: Path, operations: Writer
) -> None:
    inventory = tmp_path / "two.py"
    inventory.write_text(
        'web = [("@local", {"settings": {}}), ("away", {"settings": {}, "ssh_hostname": "127.0.0.1",'
        ' "ssh_port": 1})]\n'
    )
    file = operations(CHANGES)
    failure = deploys.run(str(inventory), file).failure
    assert failure is not None
    assert failure.why.startswith("away: Could not connect")
    without = deploys.run(str(inventory), file, dry=True, tolerant=True)
    assert without.failure is None
    assert without.planned([HERE, "away"]) == {HERE: ("Change it",), "away": ()}
    assert without.faults.keys() == {"away"}
    assert without.failed([HERE]) is None
    assert without.failed([HERE, "away"]) == Failure("away: can't be reached")


@pytest.mark.parametrize(
    ("text", "limit", "why"),
    [
        ("web = ['@local']\n", (), ": has no settings; make it like inventories/production.py"),
        ("from bitrix_cdn.settings import groups\n\ngroups(hosts={})\n", (), ":3: "),
        ("web = [('@local', {'settings': {}})]\n", ("nosuch",), ": no host or group is named nosuch"),
    ],
)
def test_a_wrong_inventory_or_limit_is_a_usage_error(
    tmp_path: Path, operations: Writer, text: str, limit: tuple[str, ...], why: str
) -> None:
    inventory = tmp_path / "wrong.py"
    inventory.write_text(text)
    failure = deploys.run(str(inventory), operations(CHANGES), limit=limit).failure
    assert failure is not None
    assert failure.kind is UsageError
    assert failure.why.startswith(f"{inventory}{why}")


# A command that runs pyinfra, in a separate process.
COMMAND = """
import sys
from pathlib import Path
from bitrix_cdn.fleet import deploys
inventory, operations, log = sys.argv[1:]
try:
    print(deploys.run(inventory, operations, log=Path(log) if log else None))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(inventory: str, file: str, log: str = "") -> subprocess.Popen[str]:
    return started(sys.executable, "-c", COMMAND, inventory, file, log, cwd=ROOT)


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def waits(tmp_path: Path, worker: Path, end: Path) -> str:
    """A step that says who runs it, waits until it may go on, and then another one."""
    waiting = f"touch {tmp_path}/waits; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    return (
        f'import os\nfrom pathlib import Path\nPath("{worker}").write_text(str(os.getpid()))\n'
        f'server.shell(name="Wait", commands=["{waiting}"])\n'
        f'server.shell(name="End", commands=["touch {end}"])\n'
    )


@pytest.mark.parametrize("both", [False, True])
def test_an_interrupted_run_ends_with_its_command(
    inventory: str, operations: Writer, tmp_path: Path, both: bool
) -> None:
    """As on a terminal, where both get the signal, and by `kill`, where one does."""
    worker, end = tmp_path / "worker", tmp_path / "end"
    process = start(inventory, operations(waits(tmp_path, worker, end)), str(tmp_path / "log"))
    wait_until("the step", (tmp_path / "waits").exists, timeout=60)
    (os.killpg if both else os.kill)(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert not is_running(int(worker.read_text()))
    (tmp_path / "go").touch()
    assert not end.exists()
    assert (tmp_path / "log").read_text().splitlines()[-1] == "--> Interrupted"


@pytest.mark.parametrize(
    ("logged", "kill"),
    [
        (True, lambda pid: os.kill(pid, signal.SIGKILL)),
        (True, lambda pid: os.killpg(pid, signal.SIGHUP)),
        (False, lambda pid: os.kill(pid, signal.SIGKILL)),
    ],
    ids=["killed", "its terminal is closed", "killed, without a log"],
)
def test_a_run_with_a_log_outlives_whoever_began_it(
    inventory: str, operations: Writer, tmp_path: Path, logged: bool, kill: Callable[[int], None]
) -> None:
    worker, end = tmp_path / "worker", tmp_path / "end"
    log = str(tmp_path / "log") if logged else ""
    process = start(inventory, operations(waits(tmp_path, worker, end)), log)
    wait_until("the step", (tmp_path / "waits").exists, timeout=60)
    kill(process.pid)
    process.wait()
    (tmp_path / "go").touch()
    wait_until("its end", lambda: not is_running(int(worker.read_text())), timeout=60)
    assert end.exists() == logged


def test_a_locked_file_stays_locked_as_long_as_the_run_lasts(
    inventory: str, operations: Writer, tmp_path: Path
) -> None:
    held = (tmp_path / "held").open("w")
    file = operations("import os\nraise ValueError(os.readlink(f'/proc/self/fd/{host.data.descriptor}'))\n")
    result = deploys.run(inventory, file, data={"descriptor": held.fileno()}, holding=[held.fileno()])
    assert isinstance(result, Result)
    assert result.failure is not None
    assert result.failure.why.endswith(held.name)

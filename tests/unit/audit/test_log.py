"""The audit log on a host: whole lines, in a chain, whoever adds them and whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.engine import agent
from bitrix_cdn.fleet import audit
from host_agent.audit import log as module
from host_agent.audit.log import Log, listed
from tests.kit.agent import sent_with
from tests.kit.support import wait_until

RUN = {"run": "ab12", "what": "deploy", "operator": "ann"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log" / "bitrix-cdn"


@pytest.fixture
def log(directory: Path) -> Log:
    return Log(directory)


def written(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / module.NAME).read_bytes().splitlines()]


@pytest.fixture(autouse=True)
def _sent(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is sent has the log elsewhere."""
    monkeypatch.setattr(audit, "DIRECTORY", directory)
    with sent_with("audit.log", module.DIRECTORY, directory, tmp_path / "agent"):
        yield


def test_lines_are_chained_and_closed_to_others(log: Log, directory: Path) -> None:
    log.add({"what": "one"})
    log.add({"what": "two"}, {"what": "three"})
    assert [entry["what"] for entry in log.read()] == ["one", "two", "three"]
    assert written(directory)[0]["previous"] == ""
    assert log.verify() == []
    assert oct((directory / module.NAME).stat().st_mode & 0o777) == "0o640"
    assert oct(directory.stat().st_mode & 0o777) == "0o750"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda lines: [lines[0].replace(b"one", b"won"), *lines[1:]], "changed or removed"),
        (lambda lines: [lines[0], lines[2]], "changed or removed"),
        (lambda lines: lines[1:], "what came before it is gone"),
        (lambda lines: [lines[0], lines[2], lines[1]], "changed or removed"),
    ],
    ids=["changed", "removed", "beheaded", "exchanged"],
)
def test_a_line_that_was_touched_is_told(
    log: Log, directory: Path, damage: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    log.add(*({"what": what} for what in ("one", "two", "three")))
    file = directory / module.NAME
    file.write_bytes(b"".join(line + b"\n" for line in damage(file.read_bytes().splitlines())))
    assert told in log.verify()[0]
    assert listed(log)["broken"] == log.verify()


def test_a_line_that_a_power_cut_left_unfinished_stands_by_itself(log: Log, directory: Path) -> None:
    log.add({"what": "one"})
    with (directory / module.NAME).open("ab") as file:
        file.write(b'{"what": "tw')
    log.add({"what": "three"})
    assert [entry["what"] for entry in log.read()] == ["one", "three"]
    assert log.verify() == ["line 2 is cut short"]


def test_many_at_once_lose_nothing(log: Log, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: Log(directory).add({"what": str(number)}), range(100)))
    assert {entry["what"] for entry in log.read()} == set(map(str, range(100)))
    assert log.verify() == []


def test_the_oldest_lines_go_and_the_chain_goes_on(
    log: Log, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 2000)
    for number in range(100):
        log.add({"what": str(number), "why": "x" * 50})
    found = [int(entry["what"]) for entry in log.read()]
    assert found == list(range(found[0], 100))
    assert 0 < found[0] < 95
    assert log.verify() == []
    assert sorted(path.name for path in directory.iterdir()) == [module.NAME, f"{module.NAME}.1"]


def test_a_value_is_never_longer_than_a_line_should_be(log: Log) -> None:
    log.add({"why": "é" * 100_000})
    assert len(log.read()[0]["why"]) == module.LONGEST
    assert log.verify() == []


@pytest.mark.parametrize("python", [True, False], ids=["with Python", "bare"])
def test_a_run_leaves_its_beginning_and_its_end(directory: Path, python: bool) -> None:
    script = audit.add_script("ab12")
    if not python:
        # The deploy that is recorded installs it: it is there at the end, and not at the beginning.
        script = script.replace(f"{agent.PYTHON} -I -S -c 'import", "false 'import", 1)
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
    assert process.stdin
    for event in ("begin", "end"):
        process.stdin.write(json.dumps({**RUN, "event": event}).encode() + b"\n\n")
        process.stdin.flush()
        if event == "begin":
            deadline = time.monotonic() + 20
            while not list(directory.glob("*.*")) and time.monotonic() < deadline:
                time.sleep(0.02)
            [found] = directory.iterdir()
            assert found.name == (module.NAME if python else "audit.pending")
    process.stdin.close()
    assert process.wait(20) == 0
    assert [entry["event"] for entry in written(directory)] == ["begin", "end"]
    assert [path.name for path in directory.iterdir()] == [module.NAME]


def test_a_run_that_is_killed_is_told_as_interrupted(log: Log, directory: Path) -> None:
    # As sshd has it: the operator's machine goes away, and the input ends.
    process = subprocess.run(
        ["sh", "-c", audit.add_script("ab12")],
        input=json.dumps({**RUN, "event": "begin"}).encode() + b"\n",
        check=True,
    )
    assert process.returncode == 0
    _, end = written(directory)
    assert (end["result"], end["run"], end["what"]) == ("interrupted", "ab12", "deploy")
    assert log.verify() == []


def test_a_run_of_which_nothing_is_heard_is_told_as_interrupted(
    log: Log, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.2)
    reading, writing = os.pipe()
    os.write(writing, json.dumps({**RUN, "event": "begin"}).encode() + b"\n")
    module.follow(log, reading)
    assert [entry.get("result") for entry in written(directory)] == [None, "interrupted"]


def test_a_host_that_lost_power_has_a_run_that_did_not_end(log: Log, directory: Path) -> None:
    process = subprocess.Popen(
        ["sh", "-c", audit.add_script("ab12")], stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin
    process.stdin.write(json.dumps({**RUN, "event": "begin"}).encode() + b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not log.read() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert listed(log)["at_work"] == ["ab12"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # What it started holds the lock until it is dead as well.
    wait_until("no run", lambda: listed(log)["at_work"], lambda at_work: at_work == [])
    assert [entry["event"] for entry in log.read()] == ["begin"]


def test_a_host_set_up_anew_has_its_old_lines_before_the_new_ones(
    log: Log, directory: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    Log(saved).add({"what": "deploy"}, {"what": "adopt"})
    log.add({"what": "restore"})
    log.put_before(saved)
    log.put_before(saved)  # a restore that was cut short
    assert [entry["what"] for entry in log.read()] == ["deploy", "adopt", "restore"]
    assert log.verify() == []
    log.add({"what": "deploy again"})
    assert log.verify() == []
    # A live host has what is in the backup, and more.
    log.put_before(saved)
    assert len(log.read()) == 4


def test_the_command_of_the_host_says_what_is_broken(
    log: Log, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Log.__init__, "__defaults__", (directory,))
    log.add({"what": "one"}, {"what": "two"})
    assert module.main(["verify"]) == 0
    file = directory / module.NAME
    file.write_bytes(file.read_bytes().replace(b"one", b"won"))
    assert module.main(["verify"]) == 1
    assert "changed or removed" in capsys.readouterr().err


def test_the_log_of_a_host_without_python_is_one_plain_line_or_empty(
    log: Log, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.add({"what": "one"})
    listing = ["sh", "-c", audit.list_script()]
    done = subprocess.run(listing, capture_output=True, text=True, check=True)
    assert [entry["what"] for entry in json.loads(done.stdout)["entries"]] == ["one"]
    monkeypatch.setattr(agent, "PYTHON", "/nonexistent/python3")
    purged = ["sh", "-c", audit.list_script()]
    done = subprocess.run(purged, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "its audit log needs Python, which is gone there: install python3\n"
    shutil.rmtree(directory)  # nothing was ever deployed there
    assert json.loads(subprocess.check_output(purged)) == {"entries": [], "broken": []}

"""What the command line says when it can't do what it is asked."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bitrix_cdn.cli import main
from dev.lab import guest, lifecycle, machine, state
from dev.lab.layout import Layout
from dev.lab.state import HostRecord, Record


@pytest.fixture(autouse=True)
def _own_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_NAME", "unit")
    # Nothing here may reach the machine, whoever runs the tests.
    monkeypatch.setattr(
        machine, "PROGRAMS", {"mmdebstrap-of-the-unit-tests": "mmdebstrap", "no-nft": "nftables"}
    )


def as_root(monkeypatch: pytest.MonkeyPatch, uid: int = 0) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lab: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "command",
    [
        ["up"],
        ["down"],
        ["status"],
        ["status", "--json"],
        ["exec", "cdn", "--", "true"],
        ["partition", "cdn"],
        ["heal", "cdn"],
        ["kill", "cdn"],
        ["start", "cdn"],
        ["reset", "cdn"],
    ],
)
def test_without_root(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    as_root(monkeypatch, 1000)
    assert main(["lab", *command]) == 2
    assert "needs root" in one_line(capsys)
    assert not (tmp_path / "state").exists()


def test_without_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(machine, "KEYRING", Path("/nonexistent"))
    assert main(["lab", "up"]) == 2
    assert "apt-get install mmdebstrap nftables debian-archive-keyring" in one_line(capsys)


def test_without_fuse_or_overlayfs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(machine, "PROGRAMS", {})
    monkeypatch.setattr(machine, "KEYRING", Path("/"))
    monkeypatch.setattr(Path, "is_char_device", lambda self: False)
    assert main(["lab", "up"]) == 2
    assert "modprobe fuse" in one_line(capsys)
    monkeypatch.setattr(Path, "is_char_device", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: "nodev\tproc\n\text4\n")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert main(["lab", "up"]) == 2
    assert "needs overlayfs" in one_line(capsys)


@pytest.mark.parametrize(
    "command", [["status"], ["exec", "cdn", "--", "true"], ["kill", "cdn"], ["heal", "cdn"]]
)
def test_without_a_lab(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    assert main(["lab", *command]) == 1
    assert "there is no lab unit: start it with" in one_line(capsys)


@pytest.mark.parametrize(
    "command", [["exec", "edge", "--", "true"], ["partition", "edge"], ["reset", "edge"]]
)
def test_a_host_that_is_not_in_the_lab(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(machine, "require", lambda: None)
    state.write(Layout("unit"), Record("unit", 7, "trixie", (HostRecord("cdn", 3, "base"),)))
    assert main(["lab", *command]) == 1
    assert "no host 'edge'" in one_line(capsys)


def test_another_suite_than_the_labs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(machine, "require", lambda: None)
    state.write(Layout("unit"), Record("unit", 7, "bookworm", (HostRecord("cdn", 3, "base"),)))
    assert main(["lab", "up", "--suite", "trixie"]) == 1
    assert "is of bookworm: run `python -m dev.lab down` first" in one_line(capsys)


@pytest.mark.parametrize("name", ["Lab", "../etc", "x" * 40])
def test_a_name_that_cannot_be(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_NAME", name)
    assert main(["lab", "up"]) == 2
    assert "is no name for a lab" in one_line(capsys)


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise OSError(28, "No space left on device", "/var/cache")

    as_root(monkeypatch)
    monkeypatch.setattr(machine, "require", fails)
    assert main(["lab", "up"]) == 1
    assert "No space left on device: '/var/cache'" in one_line(capsys)


def test_a_host_name_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    assert main(["lab", "up", "--host", "edge1", "Edge_2"]) == 2
    assert "'Edge_2' is no name for a host" in one_line(capsys)


def test_exec_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "exec", "cdn", "--"]) == 2
    assert "exec needs a command" in one_line(capsys)


@pytest.mark.parametrize("command", [[], ["fly"], ["up", "--suite", "sid"], ["exec"], ["kill"]])
def test_a_wrong_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bitrix-cdn lab" if command else "Usage: bitrix-cdn lab")
    assert err.count("\n") == 1 or not command


@pytest.mark.parametrize(
    "hosts", [["--host", "edge1", "edge2"], ["--host", "edge1", "--host", "edge2"]], ids=" ".join
)
def test_further_hosts_after_one_option_or_several(hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(lifecycle, "up", lambda *given: asked.extend(given[1:3]))
    assert main(["lab", "up", *hosts, "--suite", "bookworm"]) == 0
    assert asked == ["bookworm", ["edge1", "edge2"]]


def test_a_command_that_ran_on_a_host_is_told_to_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root(monkeypatch)
    state.write(Layout("unit"), Record("unit", 7, "trixie", (HostRecord("cdn", 3, "base"),)))
    monkeypatch.setattr(guest, "command_line", lambda _, __, words: words)
    monkeypatch.setattr(guest, "enter_cgroup", lambda *_: None)
    assert main(["lab", "exec", "--json", "cdn", "--", "sh", "-c", "echo --json; echo b >&2; exit 7"]) == 7
    assert json.loads(capsys.readouterr().out) == {"status": 7, "out": "--json\n", "errors": "b\n"}


def test_packages_are_those_that_the_programs_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "packages"]) == 0
    assert capsys.readouterr().out.split() == ["debian-archive-keyring", "mmdebstrap", "nftables"]
    assert main(["lab", "packages", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["packages"]) == 3

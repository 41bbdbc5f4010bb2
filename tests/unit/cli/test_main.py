"""The command: what it takes, what it says when it can't, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pyinfra.api.exceptions import PyinfraError
from typer.main import get_command

from bitrix_cdn.cli import developers, exits, main
from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.cli.main import app
from bitrix_cdn.cli.pages import leaves
from bitrix_cdn.cli.session import Session
from bitrix_cdn.drift.report import DriftError
from bitrix_cdn.fleet import HostError, RefusedError, UsageError
from bitrix_cdn.fleet.progress import Display
from bitrix_cdn.rollout import errors as rollout
from host_agent.backup.errors import BackupError, Status
from tests.kit.deployment import ROOT
from tests.kit.examples import filled_in

WITHOUT = {"new", "lab", "demo", "docs", "completion"}
"""Commands that need no inventory."""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITRIX_CDN_INVENTORY", raising=False)


def commands() -> dict[tuple[str, ...], Any]:
    """All commands, by their words."""
    return {tuple(typed.split()): command for typed, command in leaves(get_command(app))}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["drift", "nosuch"], "No such command 'nosuch'"),
        (["drift", "--force"], "No such option: --force"),
        (["drift", "check", "--force"], "No such option: --force"),
        (["rollout", "--batch", "0"], "'--batch': Input should be greater than or equal to 1"),
        (["rollout", "start", "--batch", "two"], "'--batch': Input should be a valid integer"),
        (["rollout", "--watch", "-1"], "'--watch': Input should be greater than or equal to 0"),
        (["adopt", "--bandwidth", "fast"], "'fast'"),
        (["explain"], "Missing argument"),
        (["check", "one"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(arguments: list[str], said: str, capsys: Captured) -> None:
    assert main(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [one for one in commands() if one[0] not in WITHOUT],
    ids=" ".join,
)
def test_each_command_says_which_inventory_is_missing(command: tuple[str, ...], capsys: Captured) -> None:
    needs = {"explain": ["/upload/a.jpg"], "add": ["ann"]}
    assert main([*command, *needs.get(command[-1], [])]) == Exit.USAGE
    assert capsys.readouterr().err == (
        f"{command[0]}: name the inventory: -i inventories/shop.py, or BITRIX_CDN_INVENTORY\n"
    )
    # The timer needs systemd first; what is kept here of a rollout needs no inventory that can be read.
    if command not in {("drift", "schedule"), ("rollout", "status")}:
        assert main([*command, *needs.get(command[-1], []), "-i", "inventories/none.py"]) == Exit.USAGE
        assert capsys.readouterr().err == f"{command[0]}: inventories/none.py: no such inventory\n"


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"], ["lock"], ["plan"], ["drift"]])
def test_an_inventory_that_can_not_be_is_told_with_all_its_mistakes(
    arguments: list[str], tmp_path: Path, capsys: Captured
) -> None:
    inventory = tmp_path / "shop.py"
    inventory.write_text(
        "from bitrix_cdn.settings import groups\n\nbitrix, cdn, *others = groups(bitrix={})\n"
    )
    assert main([*arguments, "-i", str(inventory)]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert ['group "bitrix" is missing' in err, 'group "cdn" is missing' in err] == [True, True]
    assert len(err.splitlines()) == 2


def test_check_names_the_hosts_for_people_and_programs(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = str(filled_in(tmp_path))
    assert main(["check", "-i", inventory]) == 0
    assert "2 hosts: shop.shop.test (" in capsys.readouterr().out
    monkeypatch.setenv("BITRIX_CDN_INVENTORY", inventory)
    assert main(["check", "--json"]) == 0
    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert hosts["shop.shop.test"]["groups"] == ["bitrix"]
    # The nearest counts.
    assert main(["-i", "none.py", "check", "-i", inventory]) == 0


def test_the_inventory_may_be_named_before_the_command_and_from_elsewhere(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = filled_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["-i", inventory.name, "check"]) == 0
    assert "2 hosts" in capsys.readouterr().out
    assert main(["-i", "none.py", "check"]) == Exit.USAGE
    assert capsys.readouterr().err == "check: none.py: no such inventory\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--limit", "nosuch"], "no host or group is named nosuch; there are: "),
        (["lock", "--limit", "nosuch"], "no host or group is named nosuch; there are: "),
        (["rollout", "--canary", "edge9"], "edge9: no such host; there are shop.shop.test, cdn.shop.test"),
        (["drift", "--publish", "--limit", "cdn"], "not allowed with --limit"),
        (["backup"], "settings.backup.repository is not set"),
    ],
)
def test_what_the_inventory_has_not_is_refused_before_any_connection(
    arguments: list[str], said: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_cdn.fleet.remote.Remote.connect", None)
    assert main([*arguments, "-i", str(filled_in(tmp_path))]) == Exit.USAGE
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HostError("x"), Exit.FAILED),
        (UsageError("x"), Exit.USAGE),
        (RefusedError("x"), Exit.REFUSED),
        (rollout.RolloutError("x"), Exit.FAILED),
        (rollout.RefusedError("x"), Exit.REFUSED),
        (DriftError("x"), Exit.FAILED),
        (PyinfraError("x"), Exit.FAILED),
        (OSError("x"), Exit.FAILED),
        (BackupError("x", Status.USAGE), Exit.USAGE),
        (BackupError("x", Status.LIVE), Exit.REFUSED),
        (BackupError("x", Status.LOCKED), Exit.REFUSED),
        (BackupError("x", Status.DISK_FULL), Exit.FAILED),
    ],
)
def test_each_error_has_its_status(error: Exception, status: Exit) -> None:
    assert exits.of(error) == status
    assert exits.foreseen(error)


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


def test_an_interruption_is_130_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path
) -> None:
    monkeypatch.setattr("bitrix_cdn.adopt.moving.move", raising(KeyboardInterrupt()))
    assert main(["adopt", "-i", str(filled_in(tmp_path))]) == Exit.INTERRUPTED
    err = capsys.readouterr().err
    assert err == ("adopt: interrupted; the site goes on working; run the same command again to continue\n")


@pytest.mark.parametrize("words", [["bitrix-cdn"], ["python", "-m", "bitrix_cdn"]], ids=" ".join)
def test_it_is_installed_and_a_module(words: list[str]) -> None:
    bin_ = Path(sys.executable).parent
    command = [str(bin_ / words[0]), *words[1:]]
    said = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Usage: bitrix-cdn ")
    assert "Exit status: 0 fine" in said
    assert "\x1b" not in said
    version = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("bitrix-cdn 0.")


@pytest.mark.parametrize(
    ("shell", "answer"), [("bash", "rollout\n"), ("zsh", '(("rollout":"'), ("fish", "rollout\t")]
)
def test_completion_knows_the_commands(shell: str, answer: str) -> None:
    command = Path(sys.executable).parent / "bitrix-cdn"
    words = {"COMP_WORDS": "bitrix-cdn rol", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "bitrix-cdn rol"}
    own = {"_BITRIX_CDN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    said = subprocess.run([command], env=own | words, capture_output=True, text=True, check=False)
    assert answer in said.stdout, said.stderr


def test_completion_has_one_command_and_no_options() -> None:
    bin_ = Path(sys.executable).parent
    for program in ("bitrix-cdn", "webp-converter"):
        said = subprocess.run([bin_ / program, "--help"], capture_output=True, text=True, check=True)
        assert "-completion" not in said.stdout


def test_what_a_command_says_on_its_way_is_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path
) -> None:
    def move(_: str, __: object, display: Display, **___: object) -> int:
        with display.meter("copying", total_bytes=2):
            display.say("copied")
        return 1

    monkeypatch.setattr("bitrix_cdn.adopt.moving.move", move)
    assert main(["adopt", "--json", "-i", str(filled_in(tmp_path))]) == Exit.FAILED
    assert json.loads(capsys.readouterr().out) == {"status": "failed", "said": ["copied"]}
    assert main(["leave", "-i", str(filled_in(tmp_path))]) == Exit.FAILED
    assert capsys.readouterr().out == "copied\n"


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["completion", "bash"], ["docs", "--check", "--json"]],
    ids=" ".join,
)
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bitrix_cdn", *arguments],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_all_lines_of_a_wrong_inventory_begin_alike(tmp_path: Path, capsys: Captured) -> None:
    inventory = tmp_path / "shop.py"
    inventory.write_text((ROOT / "inventories/production.py").read_text())
    assert main(["check", "-i", str(inventory)]) == Exit.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all(line.startswith(f"check: {inventory}") for line in lines)


@pytest.mark.parametrize("command", commands().items(), ids=lambda command: " ".join(command[0]))
def test_each_command_has_json(command: tuple[tuple[str, ...], Any]) -> None:
    assert any("--json" in option.opts for option in command[1].params)


@pytest.mark.parametrize("arguments", [["lab", "up"], ["lab", "exec", "cdn", "--", "ls", "-l"], ["demo"]])
def test_without_dev_its_commands_say_so(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("dev.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "dev", None)
    without = typer.Typer()
    developers.add_to(without)
    with pytest.raises(UsageError, match=r"^dev/ isn't installed here; it is in a clone of the project"):
        without(args=arguments, standalone_mode=False, obj=Session())


def test_help_and_completion_do_not_wait_for_what_only_commands_need() -> None:
    script = "import sys, bitrix_cdn.cli; print([n for n in ('pyinfra', 'pydantic') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_have_its_completion(shell: str, capsys: Captured) -> None:
    assert main(["completion", shell]) == Exit.FINE
    assert f"_BITRIX_CDN_COMPLETE=complete_{shell}" in capsys.readouterr().out

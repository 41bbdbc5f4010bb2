"""The command of the host agent leads to its parts, each of which has a `main`."""

from __future__ import annotations

import importlib

import pytest

from host_agent.cli import PARTS, main


def test_each_part_is_told_of_and_can_tell_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for part, (module, text) in PARTS.items():
        assert f"{part:12}{text}" in told
        assert importlib.import_module(module).main
        with pytest.raises(SystemExit) as ended:
            main([part, "--help"])
        assert ended.value.code == 0


@pytest.mark.parametrize("wrong", [[], ["mounts"], [""]])
def test_a_wrong_command_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{', '.join(PARTS)} or --help" in line

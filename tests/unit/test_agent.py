"""The command of the host agent leads to its parts, each of which has a `main`."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import host_agent
from bitrix_cdn.engine import agent
from host_agent.cli import PARTS, main

SOURCES = Path(host_agent.__file__).parent
TRAVELLING = sorted(
    # Releases are the converter's, whose host is Debian.
    {agent.source(name) for part, names in agent.NEEDED.items() if part != "release" for name in names}
)
"""What the operator's machine brings along, to be run before the deploy has installed any Python."""


def test_each_part_is_told_of_and_can_tell_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for part, (module, text) in PARTS.items():
        assert f"{part:12}{text}" in told
        assert importlib.import_module(module).main
        try:
            status: object = main([part, "--help"])
        except SystemExit as ended:
            status = ended.code
        assert status == 0, part


@pytest.mark.parametrize("wrong", [[], ["mounts"], [""]])
def test_a_wrong_command_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{', '.join(PARTS)} or --help" in line


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: str(path.relative_to(SOURCES)))
def test_what_is_brought_along_runs_with_the_python_that_rpm_hosts_have(path: Path) -> None:
    parsed = ast.parse(path.read_text(), feature_version=(3, 9))
    names = {
        node.name if isinstance(node, ast.alias) else node.attr
        for node in ast.walk(parsed)
        if isinstance(node, ast.alias | ast.Attribute)
    }
    assert not names & {"tomllib", "StrEnum", "UTC", "ExceptionGroup", "TaskGroup", "pairwise"}

"""What an operator types on the own machine is there, with the options that the docs name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from typer.main import get_command

from bitrix_cdn.cli import app
from bitrix_cdn.cli.pages import manual
from tests.kit.deployment import ROOT
from tests.kit.documented import Command, commands

OPERATORS = [one for one in commands() if not one.host]
MAKEFILE = (ROOT / "Makefile").read_text()
PLACEHOLDER = re.compile(r"inventories/(?:shop|production)\.py|INVENTORY|FILE|HOST|\.\.\.|[A-Z]+")


def of(program: str) -> list[Command]:
    found = [one for one in OPERATORS if re.match(rf"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?{program} ", one.text)]
    assert found
    return found


def named(one: Command) -> str:
    return f"{one.page}: {one.text[:60]}"


@pytest.mark.parametrize("command", of("make"), ids=named)
def test_make_has_the_target_and_its_settings(command: Command) -> None:
    words = re.sub(r"[\[\]]", " ", command.text.split("&&")[0]).split()[1:]
    words = words[words.index("make") + 1 :] if "make" in words else words
    targets = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    assert targets
    for target in targets:
        assert re.search(rf"^(?:[\w -]+ )?{re.escape(target)}(?: [\w -]+)?:(?!=)", MAKEFILE, re.M), target
    for variable in re.findall(r"\b([A-Z]+)=", command.text):
        assert re.search(rf"\$[({{]{variable}\b|\$\${{?{variable}\b", MAKEFILE), variable


@cache
def help_of(*words: str) -> str:
    result = subprocess.run(
        [sys.executable, *words, "--help"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.lower().startswith("usage:"), result.stdout[:200]
    return result.stdout


@pytest.mark.parametrize("command", [one for one in of("python") if " -m " in one.text], ids=named)
def test_a_module_has_the_options(command: Command) -> None:
    text = command.text[command.text.index("python -m") :]
    module, *rest = re.sub(r"[\[\]]", " ", re.split(r"[>|]", text)[0]).split()[2:]
    said = help_of("-m", module)
    # Where the module has subcommands, the first word is one.
    if rest and "COMMAND" in said and rest[0].isalpha():
        said = help_of("-m", module, rest[0])
    for option in (word for word in rest if word.startswith("--") and word != "--"):
        assert option in said, option


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """A command of `bitrix-cdn` as it is typed, and what follows it."""
    root = command = cast(Any, get_command(app))
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if command is not root and (commands := getattr(command, "commands", {})):
        command = next(iter(commands.values()))  # the default
    return command, words


@pytest.mark.parametrize("command", of("bitrix-cdn"), ids=named)
def test_the_command_has_the_subcommand_and_its_options(command: Command) -> None:
    words = re.sub(r"[\[\]]", " ", re.split(r"[>|]|&&", command.text)[0]).split()
    found, rest = leaf(words[words.index("bitrix-cdn") + 1 :])
    known = {"--help", *(option for one in found.params for option in one.opts)}
    values = {option for one in found.params for option in one.opts if not getattr(one, "is_flag", False)}
    arguments = [one for one in found.params if one.param_type_name == "argument"]
    given = []
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            assert word in known, word
            if word in values:
                rest.pop(0)
        elif word != "...":
            given.append(word)
    assert len(given) <= len(arguments), given


def test_files_that_pyinfra_and_pytest_are_given_are_there() -> None:
    for one in (*of("pyinfra"), *of("pytest")):
        for word in re.split(r"[\s>]+", one.text)[1:]:
            if re.search(r"[/.]", word) and not word.startswith(("-", "/")) and not PLACEHOLDER.search(word):
                assert (ROOT / word).exists(), f"{one.page}: {word}"


@pytest.mark.parametrize("verb", ["begin", "undo", "commit"])
def test_the_agent_has_what_the_docs_call_on_a_host(verb: str) -> None:
    [command] = [one for one in commands() if one.text == f"cdn-host journal {verb}"]
    assert command.host == "cdn"
    assert verb in help_of("-c", "from host_agent.journal.cli import main; main()")


MODULES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.py")
    if not {".venv", "build", "dist"} & set(path.relative_to(ROOT).parts)
    # These are run by other programs, not by people.
    and not (path.relative_to(ROOT).parts[0] == "converter_app" and "tests" in path.parts)
    and path.name != "header.py"
    and (path.name == "__main__.py" or '\nif __name__ == "__main__":' in path.read_text())
)


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_help_is_help(file: Path, tmp_path: Path) -> None:
    """Nothing is done, and no traceback is shown, where somebody asks what a program is for."""
    before = set(ROOT.iterdir())
    if "tools" in file.parts:
        help_of(str(file))
    else:
        parts = [part for part in file.with_suffix("").parts if part != "__main__"]
        help_of("-m", ".".join(parts[2:] if parts[:2] == ["converter_app", "src"] else parts))
    assert set(ROOT.iterdir()) == before


def test_the_manual_is_roff_that_groff_takes_without_a_word() -> None:
    text = manual()
    assert all(line.startswith(".SS bitrix\\-cdn ") for line in text.splitlines() if line.startswith(".SS"))
    if groff := shutil.which("groff"):
        done = subprocess.run(
            [groff, "-man", "-ww", "-Tascii"], input=text, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""

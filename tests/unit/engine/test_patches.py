"""pyinfra still has what is replaced in it, is of a version that was tried, and is patched in one place."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from inspect import signature

import paramiko.client
import pyinfra.api.arguments
import pyinfra.api.facts
import pyinfra.connectors.util
import pytest
from packaging.requirements import Requirement
from pyinfra.api import Host
from pyinfra.connectors.ssh import SSHConnector

from bitrix_cdn.engine import patches
from tests.kit.deployment import ROOT

LIBRARIES = ("pyinfra", "pyinfra_cli", "paramiko")


def test_the_installed_version_is_one_that_was_tried_and_newer_ones_are_not_installed() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [required] = [one for one in map(Requirement, dependencies) if one.name == "pyinfra"]
    assert version("pyinfra") in required.specifier
    assert "3.999" not in required.specifier


def test_what_is_replaced_is_there_and_called_in_the_same_way() -> None:
    assert isinstance(paramiko.client.Transport, type)  # type: ignore[attr-defined]
    assert callable(pyinfra.connectors.util.getpass)
    for owner, names in (
        (SSHConnector, ("run_shell_command", "put_file", "get_file")),
        (Host, ("get_fact", "run_shell_command", "put_file", "rsync")),
    ):
        assert [name for name in names if not callable(getattr(owner, name, None))] == []
    assert list(signature(SSHConnector.run_shell_command).parameters)[:4] == [
        *("self", "command", "print_output", "print_input")
    ]
    assert list(signature(Host.get_fact).parameters) == ["self", "name_or_cls", "args", "kwargs"]


def test_pyinfra_finds_out_once_which_arguments_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def arguments() -> list[tuple[str, type]]:
        asked.append(1)
        return [("_sudo", bool)]

    for module in (pyinfra.api.arguments, pyinfra.api.facts):
        monkeypatch.setattr(module, "all_global_arguments", arguments)
    patches.global_arguments()
    patches.global_arguments()
    for module in (pyinfra.api.arguments, pyinfra.api.facts):
        assert module.all_global_arguments() == [("_sudo", bool)]
    assert asked == [1]


def test_pyinfras_command_reads_the_inventory_by_the_function_that_is_replaced() -> None:
    # Importing the command patches the standard library, so in a separate process.
    found = subprocess.run(
        [sys.executable, "-c", "import pyinfra_cli.cli as c; print(*c._main.__code__.co_names)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "make_inventory" in found.stdout.split()


def patched(text: str) -> Iterator[str]:
    """Where a module assigns to what it has imported of the libraries."""
    tree = ast.parse(text)
    imported = {
        (one.asname or one.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for one in node.names
        if (getattr(node, "module", None) or one.name).partition(".")[0] in LIBRARIES
    }
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = getattr(node, "targets", None) or [node.target]  # type: ignore[union-attr]
            targets = [one for one in targets if isinstance(one, ast.Attribute)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            targets = node.args[:1]
        for target in targets:
            root = target
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield ast.unparse(target)


@pytest.mark.parametrize(
    "text",
    [
        "import paramiko.client\nparamiko.client.Transport = object\n",
        "from pyinfra.connectors.ssh import SSHConnector\nsetattr(SSHConnector, 'connect', None)\n",
        "from pyinfra.api import Host as Other\nOther.get_fact = print\n",
    ],
)
def test_a_patch_is_found(text: str) -> None:
    assert list(patched(text))


def test_nothing_is_patched_elsewhere() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for directory in ("bitrix_cdn", "roles", "host_agent")
        for path in (ROOT / directory).rglob("*.py")
        # To keep a log quiet for a while is a way that logging has.
        if set(patched(path.read_text())) - {"logger.disabled"}
    }
    assert found == {"bitrix_cdn/engine/patches.py"}

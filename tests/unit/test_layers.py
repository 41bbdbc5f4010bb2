"""No import points upward: `[tool.importlinter]` in pyproject.toml says what stands above what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.kit.deployment import ROOT

LINTER = Path(sys.executable).parent / "lint-imports"


def said(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINTER, "--no-cache", "--no-logo"], cwd=directory, capture_output=True, text=True, check=False
    )


def test_no_package_knows_one_above_it() -> None:
    result = said(ROOT)
    assert result.returncode == 0, result.stdout


def test_what_runs_on_hosts_knows_nothing_but_itself_and_the_standard_library() -> None:
    # The picture that monitoring asks for is made by the converter's Python.
    allowed = {*sys.stdlib_module_names, "host_agent", "PIL"}
    found = {
        name.partition(".")[0] for path in (ROOT / "host_agent").rglob("*.py") for name in imported(path)
    }
    assert found <= allowed


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, and the names that it takes from them as if they were some."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


def of_tests(names: Iterable[str]) -> set[str]:
    """Those that are in a file of tests or of fixtures: what tests share has a separate module."""
    return {name for name in names if re.search(r"(^|\.)(test_\w+|conftest)(\.|$)", name)}


def test_no_test_knows_another_one() -> None:
    files = [
        path for place in ("tests", "converter_app/tests", "dev") for path in (ROOT / place).rglob("*.py")
    ]
    found = {str(path.relative_to(ROOT)): of_tests(imported(path)) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_test_that_knows_another_one_is_found(tmp_path: Path) -> None:
    file = tmp_path / "test_one.py"
    file.write_text(
        "from tests.e2e.test_two import X\nfrom tests.e2e import test_three\nimport tests.conftest\n"
    )
    assert of_tests(imported(file)) == {"tests.e2e.test_two.X", "tests.e2e.test_three", "tests.conftest"}
    file.write_text("from tests.kit.hosts import Cdn\nimport testinfra\nfrom test_kit import X\n")
    assert of_tests(imported(file)) == {"test_kit.X"}


def test_an_import_that_points_upward_is_found(tmp_path: Path) -> None:
    for name, text in (("above", "X = 1\n"), ("below", "from above import X\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["above", "below"]\n'
        '[[tool.importlinter.contracts]]\nname = "order"\ntype = "layers"\nlayers = ["above", "below"]\n'
    )
    result = said(tmp_path)
    assert result.returncode == 1
    assert "below is not allowed to import above" in result.stdout

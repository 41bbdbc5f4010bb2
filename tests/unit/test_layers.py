"""No import points upward: `[tool.importlinter]` in pyproject.toml says what stands above what."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "host_agent").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "host_agent"]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= allowed


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

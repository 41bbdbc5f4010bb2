"""Bundles are named by what they are made from, and a missing lock is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine.wheels import _identity, bundle


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src/app").mkdir(parents=True)
    (tmp_path / "src/app/main.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "requirements-3.13.lock").write_text("a==1\n")
    return tmp_path


def identity(project: Path, python: str = "3.13", machine: str = "x86_64") -> str:
    return _identity(project, project / "requirements-3.13.lock", python, machine)


def test_the_same_sources_have_the_same_id(project: Path) -> None:
    before = identity(project)
    (project / "src/app/__pycache__").mkdir()
    (project / "src/app/__pycache__/main.pyc").write_text("compiled")
    (project / "src/app/main.py").touch()
    assert identity(project) == before


@pytest.mark.parametrize("path", ["src/app/main.py", "pyproject.toml", "requirements-3.13.lock"])
def test_a_change_makes_another_id(project: Path, path: str) -> None:
    before = identity(project)
    (project / path).write_text("changed\n")
    assert identity(project) != before


def test_a_new_module_and_another_target_make_another_id(project: Path) -> None:
    before = identity(project)
    assert identity(project, machine="aarch64") != before
    assert identity(project, python="3.11") != before
    (project / "src/app/more.py").write_text("")
    assert identity(project) != before


def test_a_python_without_wheels_is_named(project: Path) -> None:
    with pytest.raises(PyinfraError, match=r"no wheels are locked for Python 3\.9 .*requirements-3\.13"):
        bundle(project, "3.9", "x86_64")

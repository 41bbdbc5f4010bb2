"""The labs' fixtures, as far as they need no host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit.deployment import ROOT

_WITHOUT_HOSTS = """
from functools import partial
from tests import conftest
conftest._lab = lambda *arguments: None
conftest.pyinfra = partial(conftest.pyinfra, timeout=0.01)
"""
_TESTS = "".join(f"def test_{name}(deployment, rehearsal):\n    pass\n" for name in ("one", "two", "three"))


def test_a_deploy_that_takes_too_long_is_told_once_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_WITHOUT_HOSTS)
    (tmp_path / "test_it.py").write_text(_TESTS)
    options = ("-p", "tests.conftest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "--suite", "trixie")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = run.stdout.splitlines()
    line = "the lab test-trixie: pyinfra inventories/lab.py deploy.py takes longer than 0.01 s:"
    assert lines.count(line) == 1, run.stdout
    assert sum(one.startswith("ERROR ") for one in lines) == 1, run.stdout
    assert "Error" not in run.stdout + run.stderr
    assert "3 errors" in lines[-1]

"""A file or a name that is no inventory ends pyinfra with one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.deployment import ROOT

# In a separate process, which pyinfra's command changes; in one for all, as its start takes long.
READ = """
import contextlib, io, json, sys
import pyinfra_cli.cli
from tests.unit.engine.machines import machines
import bitrix_cdn.fleet.reading

told = {}
for name in sys.argv[1:]:
    said = io.StringIO()
    with machines("here"), contextlib.redirect_stderr(said):
        try:
            pyinfra_cli.cli.make_inventory(name, cwd=".")
            status = 0
        except SystemExit as ended:
            status = ended.code
        except BaseException as error:
            status = repr(error)
    told[name] = status, said.getvalue().splitlines()
print(json.dumps(told))
"""

WRONG = {
    "empty.py": ("", ": has no hosts"),
    "private.py": ("_web = ['shop']\n", ": has no hosts"),
    "syntax.py": ("\ngroups(\n", ":2: SyntaxError: '(' was never closed"),
    "module.py": ("\nimport nosuchmodule\n", ":2: ModuleNotFoundError: No module named 'nosuchmodule'"),
    "name.py": ("from bitrix_cdn.settings import grups\n", ":1: ImportError: cannot import name 'grups'"),
    "deeper.py": ("import re\n\nre.compile('(')\n", ":3: "),
    "key.py": ("web = [{}['shop']]\n", ":1: KeyError: 'shop'"),
    "bytes.py": ("\udcff\n", ": UnicodeDecodeError: "),
    "directory": (None, ": IsADirectoryError: "),
}
NAMES = ["inventories/produktion", "inventories/produktion.py"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_no_inventory_is_told_in_one_line_with_its_place(tmp_path: Path) -> None:
    for name, (text, _) in WRONG.items():
        if text is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "good.py").write_text("web = ['shop']\n")
    result = run("-c", READ, *NAMES, *map(str, sorted(tmp_path.iterdir())))
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told.pop(f"{tmp_path}/good.py") == [0, []]
    for name in NAMES:
        status, [line] = told.pop(name)
        assert (status, line.partition(": no ")[0]) == (2, name)
        assert "inventories/production.py" in line
    for name, (_, said) in WRONG.items():
        status, [line] = told.pop(f"{tmp_path}/{name}")
        assert status == 2
        assert line.startswith(f"{tmp_path}/{name}{said}")
    assert told == {}


@pytest.mark.parametrize("command", [["bitrix_cdn", "check", "-i"], ["pyinfra", "--dry"]])
def test_commands_end_with_it(tmp_path: Path, command: list[str]) -> None:
    inventory = tmp_path / "shop.py"
    inventory.write_text("import nosuch\nb = = 2\n")
    operations = ["deploy.py"] if command[0] == "pyinfra" else []
    result = run("-m", *command, str(inventory), *operations)
    assert result.returncode == 2, result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith("-->")]
    prefix = "" if operations else "check: "
    assert said == [f"{prefix}{inventory}:2: SyntaxError: invalid syntax"]

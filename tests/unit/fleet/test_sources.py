"""What makes two states differ."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitrix_cdn.fleet import Inventory
from bitrix_cdn.fleet.results import Entry
from bitrix_cdn.fleet.sources import sources, state

ROOT = Path(__file__).parents[3]


def inventory(**settings: Any) -> Inventory:
    entry = Entry("cdn", ("cdn",), {"settings": settings})
    return cast(Inventory, SimpleNamespace(entries=(entry,)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("deploy.py", "config.py", "roles", "templates", "bitrix_cdn", "host_agent"):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path


def test_the_same_tree_with_the_same_settings_is_the_same_state(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns("elsewhere"))
    (copy / "README.md").write_text("is brought to no host")
    (copy / "roles" / "__pycache__").mkdir()
    (copy / "roles" / "__pycache__" / "nginx.pyc").write_text("neither is this")
    assert state(inventory(a=1), tree) == state(inventory(a=1), copy)


def test_all_that_roles_bring_to_hosts_belongs_to_the_state() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in sources()}
    assert names >= {
        "host_agent/backup/restic.py",
        "config.py",
        "converter_app/requirements-3.13.lock",
        "converter_app/src/webp_converter/daemon.py",
        "bitrix_cdn/dashboards/panels.py",
        "templates/grafana/etc/grafana/dashboards/bitrix-cdn-overview.yaml",
        "deploy.py",
        "host_agent/mount/guard.py",
        "host_agent/observe/picture.py",
        "roles/nginx.py",
        "bitrix_cdn/settings/model.py",
        "templates/nginx/etc/nginx/nginx.conf.j2",
    }
    assert not [
        name for name in names if name.startswith(("dev/", "docs/", "tests/", "bitrix_cdn/rollout/run"))
    ]


def test_a_template_a_role_or_a_setting_makes_another(tree: Path) -> None:
    seen = {state(inventory(a=1), tree), state(inventory(a=2), tree)}
    for name in ("templates/nginx/etc/nginx/nginx.conf.j2", "roles/nginx.py", "deploy.py"):
        with (tree / name).open("a") as file:
            file.write("# changed\n")
        seen.add(state(inventory(a=1), tree))
    (tree / "templates" / "nginx" / "new.j2").touch()
    seen.add(state(inventory(a=1), tree))
    assert len(seen) == 6


def test_another_copy_of_the_repository_is_run_by_its_own_modules(tree: Path, tmp_path: Path) -> None:
    """The command is installed in place, so that this copy's modules can be imported from everywhere."""
    (tree / "inventories").mkdir()
    (tree / "inventories" / "shop.py").write_text("from bitrix_cdn.settings import groups\n")
    with (tree / "bitrix_cdn" / "settings" / "__init__.py").open("a") as file:
        file.write("\nraise ValueError('the copy is asked')\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "pyinfra", "inventories/shop.py", "debug-inventory"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the copy is asked" in result.stderr

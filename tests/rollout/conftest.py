"""A rollout as an operator runs it, on five hosts, while visitors come through the balancer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dev.lab import state
from tests.kit.deployment import INVENTORY_OF_EDGES, ROOT, pyinfra
from tests.kit.edges import Balancer, Expected, _five_hosts, all_up, balancer, edges, gallery
from tests.kit.fixtures import bitrix, cdn, remotes, settings
from tests.kit.rollout import Tree, WhileVisited, _visited

__all__ = ["_five_hosts", "all_up", "balancer", "bitrix", "cdn", "edges", "gallery", "remotes", "settings"]


@pytest.fixture(scope="session")
def copy(_five_hosts: None, lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The repository, with a converter that doesn't improve its variants meanwhile: answers are compared."""
    path = tmp_path_factory.mktemp("rollout") / "tree"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, path, ignore=ignored)
    shared = path / "inventories" / "lab.py"
    text = shared.read_text()
    assert '"second_pass_idle_s": 120.0' in text
    shared.write_text(text.replace('"second_pass_idle_s": 120.0', '"second_pass_idle_s": 3600.0'))
    home = tmp_path_factory.mktemp("operator")
    deployed = pyinfra("-y", inventory=INVENTORY_OF_EDGES, lab=lab.name, root=path)
    assert deployed.status == 0, deployed.output
    return Tree(path, lab.name, home)


@pytest.fixture
def tree(copy: Tree, gallery: list[Expected]) -> Iterator[Tree]:
    """The copy as it is deployed, with the pictures that visitors ask for."""
    yield copy
    copy.reset()


@pytest.fixture(scope="session", autouse=True)
def _before_the_pictures(copy: Tree) -> None:
    """The pictures are made after the converter has its settings."""


@pytest.fixture
def visited(balancer: Balancer, gallery: list[Expected], tmp_path: Path) -> WhileVisited:
    return partial(_visited, balancer, gallery, tmp_path)

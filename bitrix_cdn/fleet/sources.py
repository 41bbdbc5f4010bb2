"""The sources of a deploy: the files of this tree, and their hash."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.fleet.inventory import Inventory

# What pyinfra reads by itself.
_BEGINNINGS = ("config.py", "deploy.py", "inventories/group_data")
_UNSENT = ("__pycache__", "tests")


def state(inventory: Inventory, root: Path = ROOT) -> str:
    """A hash of what a deploy would bring: this tree, and the inventory with its settings."""
    entries = list(map(asdict, inventory.entries))
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True, default=str).encode())
    for file in sorted(sources(root)):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def sources(root: Path = ROOT) -> set[Path]:
    """All files that a deploy brings to a host, or that decide what it brings.

    Beginning with what pyinfra reads, these are the modules that are imported, and each directory at the
    root that one of them names in a string, as `roles/mounts.py` names "mount_guard".
    """
    directories = {path.name: path for path in root.iterdir() if path.is_dir() and path.name != "tests"}
    found: set[Path] = set()
    waiting = [root / name for name in _BEGINNINGS]
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            waiting += (one for one in path.iterdir() if one.name[0] != "." and one.name not in _UNSENT)
        elif path.is_file() and path not in found:
            found.add(path)
            if path.suffix == ".py" and path.parts[len(root.parts)] != "converter_app":
                waiting += _named_by(path, root, directories)
    return found


def _named_by(module: Path, root: Path, directories: Mapping[str, Path]) -> Iterable[Path]:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in directories:
            yield directories[node.value]
        names = [one.name for one in getattr(node, "names", ())] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for name in names:
            place = root.joinpath(*name.split("."))
            yield from (place.with_suffix(".py"), place / "__init__.py")

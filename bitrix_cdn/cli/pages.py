"""The pages of docs/ that are made from the code."""

from __future__ import annotations

from pathlib import Path

from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.settings import reference


def made() -> dict[Path, str]:
    """Each page, with what it must hold."""
    return {ROOT / "docs" / "settings.md": reference.page()}


def old() -> dict[Path, str]:
    """Those that hold something else, or aren't there."""
    return {path: text for path, text in made().items() if not path.is_file() or path.read_text() != text}

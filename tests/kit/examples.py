"""The example's inventory, as somebody has filled it in."""

from __future__ import annotations

from pathlib import Path

from tests.kit.deployment import ROOT


def filled_in(directory: Path) -> Path:
    """Copies `inventories/production.py` with hosts that somebody could have."""
    text = (ROOT / "inventories/production.py").read_text()
    copy = directory / "shop.py"
    copy.write_text(text.replace("example.com", "shop.test").replace("192.0.2.", "10.0.0."))
    return copy

"""The limits of the figures, as `limits.toml` has them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("limits.toml")


@dataclass(frozen=True)
class Limits:
    """What is wanted of each figure."""

    lynis: Mapping[str, int]
    """The least index, by group."""
    cis: Mapping[str, int]
    """The least share of checks in per cent, by group."""
    highest: float
    """The exposure that a unit may have."""
    higher: Mapping[str, float]
    """The same of units for which that can't be held; instances go by their template's name."""
    findings: Mapping[str, int]
    """How many findings of a tool there may be."""

    def exposure(self, unit: str) -> float:
        """What a unit may have."""
        return self.higher.get(re.sub(r"@.*\.", "@.", unit), self.highest)


def limits() -> Limits:
    """Reads them."""
    read = tomllib.loads(FILE.read_text())
    return Limits(
        read["lynis"], read["cis"], read["units"]["highest"], read["units"]["higher"], read["findings"]
    )

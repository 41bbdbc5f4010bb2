"""The limits of the figures, as `limits.toml` has them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
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
    accepted: Mapping[str, Sequence[str]]
    """Parts of the texts of findings that don't count, by tool."""

    def exposure(self, unit: str) -> float:
        """What a unit may have."""
        return self.higher.get(re.sub(r"@.*\.", "@.", unit), self.highest)

    def counted(self, tool: str, told: Iterable[str]) -> list[str]:
        """Those of the findings of a tool that aren't accepted."""
        return [line for line in told if not any(part in line for part in self.accepted.get(tool, ()))]


def limits() -> Limits:
    """Reads them."""
    read = tomllib.loads(FILE.read_text())
    units = read["units"]
    return Limits(
        read["lynis"], read["cis"], units["highest"], units["higher"], read["findings"], read["accepted"]
    )

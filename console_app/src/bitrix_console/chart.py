"""A chart of one series as SVG draws it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitrix_console.prometheus import Point

WIDTH, HEIGHT = 300, 60


@dataclass(frozen=True)
class Chart:
    """What a template draws, in a box of `WIDTH` by `HEIGHT`."""

    lines: tuple[str, ...]
    """The points of each stretch without a gap."""
    last: float
    least: float
    most: float


def chart(points: Sequence[Point]) -> Chart | None:
    """Draws a series from 0, or from its least value if that is below; None: there is nothing to draw."""
    if not points:
        return None
    values = [one.value for one in points]
    least, most = min(values), max(values)
    low, high = min(0.0, least), max(most, min(0.0, least) + 1e-9)
    first, span = points[0].at, max(points[-1].at - points[0].at, 1.0)
    # Where a sample is missing, no line pretends to know.
    gap = 1.5 * min((b.at - a.at for a, b in pairwise(points)), default=span)
    lines: list[list[str]] = []
    before = float("-inf")
    for one in points:
        if one.at - before > gap:
            lines.append([])
        x = (one.at - first) / span * WIDTH
        y = HEIGHT - 2 - (one.value - low) / (high - low) * (HEIGHT - 4)
        lines[-1].append(f"{x:.1f},{y:.1f}")
        before = one.at
    # A point alone is a line of no length; its round ends show it.
    drawn = tuple(" ".join(line if len(line) > 1 else line * 2) for line in lines)
    return Chart(drawn, values[-1], least, most)

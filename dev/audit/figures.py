"""A figure, what is wanted of it, and how both are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What a tool measured."""

    what: str
    where: str
    """The host; empty: it is about none."""
    value: float | None
    """None: it couldn't be measured, and `details` says why."""
    limit: float
    at_least: bool = False
    """Whether more is better."""
    details: Sequence[str] = ()
    """What it is made of, such as the findings."""
    optional: bool = False
    """Whether it may be left unmeasured, as it needs what isn't to be had everywhere."""

    @property
    def held(self) -> bool:
        """Whether it is as wanted."""
        if self.value is None:
            return self.optional
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        """For people, on one line."""
        told = "not measured" if self.value is None else f"{self.value:g}"
        wanted = f"at {'least' if self.at_least else 'most'} {self.limit:g}"
        verdict = "" if self.held else "  MISSED"
        return f"{self.what:<26} {self.where:<10} {told:>12}  ({wanted}){verdict}"

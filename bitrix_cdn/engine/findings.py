"""Where a dry run tells whoever asks what it found, in full.

What is told holds secrets, and so never gets a name on a disk, a place in a log, or one in a list of
processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

_collect: Callable[[Record], object] | None = None


def collect(by: Callable[[Record], object] | None) -> None:
    """Has all that is found from now on told by this function; None: nobody asks any more."""
    global _collect
    _collect = by


def wanted() -> bool:
    """Whether somebody asks."""
    return _collect is not None


def write(record: Record) -> None:
    """Tells one thing."""
    assert _collect is not None
    _collect(record)

"""What a dry run finds on hosts, and where it tells that to whoever asks.

It is told in full and holds secrets, and so never gets a name on a disk, a place in a log, or one in a list
of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Access = tuple[str, ...]
"""Mode, owner and group."""


@dataclass(frozen=True)
class WrongFile:
    """A file that isn't as it must be."""

    path: str
    kind: str
    """What is there: `file`, `nothing`, or in words."""
    access: Access
    must_access: Access
    content: str | None = None
    """None: what is there is right, or too long to show."""
    must_content: str = ""
    same: bool = False
    """Whether its content is right."""


@dataclass(frozen=True)
class SurplusFile:
    """A file that must not be there."""

    path: str


@dataclass(frozen=True)
class RefusedFile:
    """Something that a service refuses."""

    path: str
    words: str
    """The service's own."""


@dataclass(frozen=True)
class WrongUnit:
    """A unit that doesn't run as it must."""

    unit: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """What an operation would run that says nothing else of what it would change."""

    commands: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something found on a host."""

    host: str
    operation: str | None
    """The hash of the operation that would put it right; None: none would."""
    what: object
    """One of the above, or what the file that was run tells besides."""


_collect: Callable[[Finding], object] | None = None


def collect(by: Callable[[Finding], object] | None) -> None:
    """Sends all findings to this function from now on; None stops that."""
    global _collect
    _collect = by


def wanted() -> bool:
    """Whether findings are collected."""
    return _collect is not None


def send(finding: Finding) -> None:
    """Sends a finding to the collector, if there is one."""
    if _collect is not None:
        _collect(finding)

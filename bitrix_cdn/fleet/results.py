"""The requests and results of a pyinfra run, which the command and its worker exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitrix_cdn.fleet.errors import HostError


@dataclass(frozen=True)
class Request:
    """One run."""

    inventory: str
    """Its file."""
    operations: str | None = None
    """The file that pyinfra runs, such as `deploy.py`; None: the inventory is only read."""
    limit: tuple[str, ...] = ()
    """Names or groups of hosts; `*` in them stands for anything. Empty: all."""
    dry: bool = False
    """Find out what would change; change nothing."""
    tolerant: bool = False
    """Go on without the hosts that fail."""
    findings: bool = False
    """Tell in full what differs: see :mod:`bitrix_cdn.engine.findings`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """For the operations, as `host.data`."""
    token: str = ""
    """Of the lock that whoever asks holds on the hosts already."""
    survives: bool = False
    """Whether a run that has begun continues to its end when its listener is gone."""


@dataclass(frozen=True)
class Step:
    """An operation that begins, or has ended."""

    number: int
    """From 1."""
    total: int
    name: str
    changed: tuple[str, ...] | None = None
    """The hosts that it changed; None: it begins."""


@dataclass(frozen=True)
class Entry:
    """A host of the inventory."""

    name: str
    groups: tuple[str, ...]
    data: Mapping[str, Any]
    """As JSON has it; may hold secrets."""


@dataclass(frozen=True)
class Operation:
    """An operation, and what it has to do with which hosts."""

    hash: str
    name: str
    would_change: tuple[str, ...] = ()
    """In a dry run; without those that depend on another operation's change."""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a run ended before its end."""

    why: str
    """One line; of a wrong inventory one for each mistake."""
    more: tuple[str, ...] = ()
    """What the hosts said further."""
    kind: type[BaseException] = HostError
    """What it is raised as: a HostError, one of its subclasses, or KeyboardInterrupt."""

    def error(self, log: Path | None = None) -> BaseException:
        """The error that tells it.

        :param log: where all of it is written.
        """
        if self.kind is not HostError or log is None:
            return self.kind(self.why)
        return HostError("\n".join([f"{self.why} (all of it: {log})", *(f"  {line}" for line in self.more)]))


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    entries: tuple[Entry, ...] = ()
    """All hosts of the inventory, in its order, limited or not."""
    connected: frozenset[str] = frozenset()
    faults: Mapping[str, str] = field(default_factory=dict)
    """Of the hosts that failed, what was last said of them; empty: nothing."""
    operations: tuple[Operation, ...] = ()
    """In their order."""
    failure: Failure | None = None

    def planned(self, hosts: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """For each host the operations that would change it."""
        return self._by_host(hosts, lambda operation: operation.would_change)

    def changed(self, hosts: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """For each host the operations that changed it."""
        return self._by_host(hosts, lambda operation: operation.changed)

    def _by_host(
        self, hosts: Iterable[str], of: Callable[[Operation], Sequence[str]]
    ) -> dict[str, tuple[str, ...]]:
        return {
            host: tuple(operation.name for operation in self.operations if host in of(operation))
            for host in hosts
        }

    def failed(self, hosts: Sequence[str]) -> Failure | None:
        """Why it isn't done on each of these hosts; None: it is."""
        if self.failure:
            return self.failure
        missing = sorted(set(hosts) - self.connected)
        return Failure(f"{', '.join(missing)}: can't be reached") if missing else None

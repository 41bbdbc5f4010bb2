"""What a dry run finds on a host, reported to a listener such as `bitrix-cdn drift`: see
:mod:`bitrix_cdn.engine.findings`. Without a listener the functions do nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from pyinfra import host

from bitrix_cdn.engine.findings import Finding, send, wanted

__all__ = ["Managed", "manage", "managed", "report", "reported", "wanted"]


@dataclass
class Managed:
    """What the operations of a run bring to one host."""

    files: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)


_managed: dict[str, Managed] = {}
_reported: dict[tuple[str, str | None], set[str]] = {}


def report(what: object, *, operation: str | None = None) -> None:
    """Reports a finding on this host, for the operation that it is called in; the same one only once, as
    the body of an operation may be run several times (:mod:`bitrix_cdn.engine.prefetch`).

    :param operation: the hash of the operation that it is about, where that is another one.
    """
    operation = operation or host.current_op_hash
    before = _reported.setdefault((host.name, operation), set())
    digest = hashlib.sha256(repr(what).encode()).hexdigest()
    if digest not in before:
        before.add(digest)
        send(Finding(host.name, operation, what))


def reported(operation: str) -> bool:
    """Whether an operation, by its hash, has reported a finding on this host."""
    return (host.name, operation) in _reported


def manage(*, files: Iterable[str] = (), units: Iterable[str] = ()) -> None:
    """Remembers what an operation brings to this host, changed or not."""
    if wanted():
        managed().files.update(files)
        managed().units.update(units)


def managed() -> Managed:
    """All that the operations so far bring to this host."""
    return _managed.setdefault(host.name, Managed())

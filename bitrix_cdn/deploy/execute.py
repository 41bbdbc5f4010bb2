"""Runs operations on the hosts, and tells how far it is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bitrix_cdn.fleet import HostError, RefusedError, deploys
from bitrix_cdn.fleet.deploys import by_host, limits
from bitrix_cdn.fleet.steps import ENVIRONMENT, Step, read

LOGS = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "bitrix-cdn" / "logs"
_KEPT = 50


@dataclass(frozen=True)
class Executed:
    """What a run has done."""

    changed: Mapping[str, tuple[str, ...]]
    """By host, the operations that changed it."""
    seconds: float
    log: Path
    """All that was said."""


def execute(
    inventory: str,
    operations: str,
    hosts: Sequence[str],
    step: Callable[[Step], object],
    *,
    data: Mapping[str, str] | None = None,
) -> Executed:
    """Runs operations on hosts of an inventory.

    :param operations: `deploy.py`, `rollback.py` or `rotate_keys.py`.
    :param step: called as each operation begins and ends.
    :param data: for the operations, as `host.data`.
    :raises RefusedError: somebody else is at work there; nothing was changed.
    :raises HostError: it fails; says which operation on which host, and where all of it is written.
    """
    started = time.monotonic()
    log = _log(Path(operations).stem)
    receiving, sending = os.pipe()

    def follow() -> None:
        with open(receiving) as lines:  # noqa: PTH123 -- a descriptor
            for one in read(lines):
                step(one)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        run = deploys.run(
            *("-y", "--json", *limits(hosts)),
            *(word for name, value in (data or {}).items() for word in ("--data", f"{name}={value}")),
            inventory=inventory,
            operations=operations,
            environment={ENVIRONMENT: str(sending)},
            descriptors=[sending],
            log=log,
        )
    finally:
        os.close(sending)
        follower.join(timeout=10)
    if run.status or run.report is None:
        why, more = run.why(hosts)
        if ": held by " in why:
            raise RefusedError(why)
        raise HostError("\n".join([f"{why} (all of it: {log})", *(f"  {line}" for line in more)]))
    missing = sorted(set(hosts) - run.connected)
    if missing:
        raise HostError(f"{', '.join(missing)}: can't be reached (all of it: {log})")
    changed = by_host(hosts, run.report["results"]["operations"], "success")
    return Executed(changed, time.monotonic() - started, log)


def _log(what: str) -> Path:
    """A new file that only its owner may read; the oldest go."""
    LOGS.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in sorted(LOGS.glob("*.log"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return LOGS / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{what}.log"

"""Runs operations on the hosts, and reports the progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bitrix_cdn.fleet import deploys
from bitrix_cdn.fleet.results import Step

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
    holding: Sequence[int] = (),
) -> Executed:
    """Runs operations on hosts of an inventory.

    :param operations: `deploy.py`, `rollback.py` or `rotate_keys.py`.
    :param step: called as each operation begins and ends.
    :param data: for the operations, as `host.data`.
    :param holding: descriptors of locked files, which stay locked as long as the run lasts.
    :raises RefusedError: somebody else is at work there; nothing was changed.
    :raises HostError: it fails; says which operation on which host, and where all of it is written.
    """
    started = time.monotonic()
    log = _log(Path(operations).stem)
    result = deploys.run(
        inventory,
        operations,
        limit=hosts,
        data=data,
        on_event=lambda one: step(one) if isinstance(one, Step) else None,
        holding=holding,
        log=log,
    )
    if failure := result.failed(hosts):
        raise failure.error(log)
    return Executed(result.changed(hosts), time.monotonic() - started, log)


def _log(what: str) -> Path:
    """A new file that only its owner may read; the oldest go."""
    LOGS.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in sorted(LOGS.glob("*.log"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return LOGS / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{what}.log"

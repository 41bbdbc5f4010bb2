"""pyinfra for a rollout: rehearsed or in earnest, on some hosts of the inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitrix_cdn.fleet import deploys
from bitrix_cdn.fleet.deploys import Run, by_host, limits
from bitrix_cdn.fleet.lock import VARIABLE
from bitrix_cdn.rollout.errors import RolloutError


@dataclass(frozen=True)
class Deployed:
    """What a deploy did."""

    changed: Mapping[str, tuple[str, ...]]
    """By host, the operations that changed it."""


class Pyinfra:
    """Runs `deploy.py` with an inventory."""

    def __init__(self, inventory: str, token: str) -> None:
        self._inventory = inventory
        self._token = token

    def rehearse(
        self, hosts: Sequence[str], log: Path, work: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        """The operations that a deploy would change each host with; nothing is changed.

        An operation that a dry run can't foresee, as it follows from the change of another one, is not among
        them: where there is one, there is the other as well.

        :raises RolloutError: it can't be said for each of the hosts.
        """
        run = self._run(["--dry", "--json", *limits(hosts)], log, work)
        missing = sorted(set(hosts) - run.connected)
        if run.status or run.report is None or missing:
            unreached = f"{', '.join(missing)}: can't be reached"
            why = unreached if missing and not run.status else run.why(hosts)[0]
            raise RolloutError(f"what there is to change can't be said: {why} ({log})")
        return by_host(hosts, run.report["plan"], "hosts_with_change")

    def deploy(self, hosts: Sequence[str], log: Path, work: int | None = None) -> Deployed:
        """Deploys.

        :raises RolloutError: it fails; says with which operation on which host, and why.
        """
        run = self._run(["-y", "--json", *limits(hosts)], log, work)
        if run.status or run.report is None or not set(hosts) <= run.connected:
            why, more = run.why(hosts)
            raise RolloutError(f"{why} (all of it: {log})", more)
        return Deployed(by_host(hosts, run.report["results"]["operations"], "success"))

    def _run(self, arguments: Sequence[str], log: Path, work: int | None) -> Run:
        return deploys.run(
            *arguments,
            inventory=self._inventory,
            environment={VARIABLE: self._token},
            descriptors=() if work is None else (work,),
            log=log,
        )

"""pyinfra for a rollout: rehearsed or in earnest, on some hosts of the inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitrix_cdn.fleet import deploys
from bitrix_cdn.fleet.results import Result
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
        result = self._run(hosts, log, work, dry=True)
        if failure := result.failed(hosts):
            raise RolloutError(f"what there is to change can't be said: {failure.why} ({log})")
        return result.planned(hosts)

    def deploy(self, hosts: Sequence[str], log: Path, work: int | None = None) -> Deployed:
        """Deploys.

        :raises RolloutError: it fails; says with which operation on which host, and why.
        """
        result = self._run(hosts, log, work)
        if failure := result.failed(hosts):
            raise RolloutError(f"{failure.why} (all of it: {log})", failure.more)
        return Deployed(result.changed(hosts))

    def _run(self, hosts: Sequence[str], log: Path, work: int | None, *, dry: bool = False) -> Result:
        result = deploys.run(
            self._inventory,
            limit=hosts,
            dry=dry,
            token=self._token,
            holding=() if work is None else (work,),
            log=log,
        )
        if result.failure and result.failure.kind is KeyboardInterrupt:
            raise KeyboardInterrupt
        return result

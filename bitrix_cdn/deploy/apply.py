"""Applies a plan: that and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitrix_cdn.deploy import plan as plans
from bitrix_cdn.deploy.execute import Executed, execute
from bitrix_cdn.fleet import Inventory, keep_others_away
from bitrix_cdn.fleet.results import Step


def apply(
    inventory: Inventory,
    wanted: plans.Plan,
    step: Callable[[Step], object],
    *,
    holding: Sequence[int] = (),
) -> Executed:
    """Deploys what was planned.

    :param step: called as each operation begins and ends.
    :param holding: descriptors of locked files, which stay locked as long as the deploy lasts.
    :raises RefusedError: somebody else is at work there, or the hosts, the sources or the inventory have
        moved on since; nothing was changed.
    :raises HostError: the deploy fails.
    """
    # From here to the end of the deploy no other run changes these hosts.
    hosts = inventory.chosen(wanted.limit)
    keep_others_away([inventory.hosts[name] for name in hosts], "apply")
    for name in sorted(hosts):
        inventory.hosts[name].connect()
    plans.refuse_if_moved_on(wanted, plans.make(inventory, wanted.limit, salt=wanted.salt))
    return execute(inventory.file, "deploy.py", hosts, step, data={"plan": wanted.hash}, holding=holding)

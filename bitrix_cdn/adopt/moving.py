"""One run of adopt or leave, with the access that it opens before and closes afterwards."""

from __future__ import annotations

import contextlib
from typing import Literal

from bitrix_cdn.adopt.adopt import adopt
from bitrix_cdn.adopt.leave import leave
from bitrix_cdn.adopt.transfer import Transfer
from bitrix_cdn.fleet import HostError, Inventory, keep_others_away
from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.fleet.progress import Display

INTERRUPTED = "the site goes on working; run the same command again to continue"


def move(
    direction: Literal["adopt", "leave"],
    inventory: Inventory,
    display: Display,
    *,
    bandwidth: str | None = None,
    dry_run: bool = False,
) -> int:
    """Moves a shop's pictures to the CDN host, or back.

    :param bandwidth: as :func:`bitrix_cdn.adopt.rsync.bandwidth` returns it.
    :param dry_run: check and count, change nothing.
    :returns: 0, or 1 when something is left to be done by an operator.
    :raises HostError: it can't be; the site goes on working as it did.
    """
    transfer = Transfer(inventory, display, bandwidth)
    run = adopt if direction == "adopt" else leave
    try:
        if dry_run:
            return run(transfer, dry_run=True)
        keep_others_away((transfer.bitrix, transfer.cdn), direction)
        with recorded((transfer.bitrix, transfer.cdn), direction, inventory.file) as outcome:
            status = run(transfer)
            if status:
                outcome.result, outcome.why = "failed", "something is left to be done by an operator"
            return status
    except (HostError, KeyboardInterrupt):
        # Takes back what moving needed, as far as the hosts can be reached.
        with contextlib.suppress(HostError, KeyboardInterrupt):
            transfer.close(done=False)
        raise

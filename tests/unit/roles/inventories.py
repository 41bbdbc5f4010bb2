"""Inventories, as a role sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyinfra.api import Config, Inventory, State
from pyinfra.context import ctx_host, ctx_inventory, ctx_state

SHOP, PICTURES, MORE = "10.0.0.1", "10.0.0.2", "fd00::3"


@contextmanager
def on(name: str, **groups: dict[str, str] | list[str]) -> Iterator[None]:
    """The host of that name in an inventory, as a role sees it."""
    addresses = {
        name: one for group in groups.values() if isinstance(group, dict) for name, one in group.items()
    }
    made = Inventory(  # type: ignore[no-untyped-call]
        ([(name, {"address": address}) for name, address in addresses.items()], {}),
        **{group: (list(members), {}) for group, members in groups.items()},
    )
    state = State(made, Config())  # type: ignore[no-untyped-call]
    with ctx_state.use(state), ctx_inventory.use(made), ctx_host.use(made.get_host(name)):
        yield


def usual(name: str, **groups: Any) -> Any:
    return on(name, **{"bitrix": {"shop": SHOP}, "cdn": {"pics": PICTURES}, "monitoring": ["pics"], **groups})

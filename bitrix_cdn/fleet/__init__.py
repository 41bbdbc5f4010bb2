"""The hosts of an inventory for commands beside the deploy: same inventory, same login, same sudo."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitrix_cdn.fleet.errors import HostError, RefusedError, UsageError
    from bitrix_cdn.fleet.inventory import Inventory, load
    from bitrix_cdn.fleet.remote import Output, Remote, keep_others_away

_MODULES = {
    "errors": ("HostError", "RefusedError", "UsageError"),
    "inventory": ("Inventory", "load"),
    "remote": ("Output", "Remote", "keep_others_away"),
}

__all__ = [
    "HostError",
    "Inventory",
    "Output",
    "RefusedError",
    "Remote",
    "UsageError",
    "keep_others_away",
    "load",
]


def __getattr__(name: str) -> Any:
    """Imports a module when it is needed: the errors, which are needed always, don't wait for pyinfra."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"{__name__} has no {name}")

"""The hosts of an inventory for commands beside the deploy: same inventory, same login, same sudo."""

from bitrix_cdn.fleet.errors import HostError, RefusedError, UsageError
from bitrix_cdn.fleet.inventory import Inventory, load
from bitrix_cdn.fleet.remote import Output, Remote, keep_others_away

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

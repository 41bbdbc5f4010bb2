"""The hosts of an inventory for commands beside the deploy: same inventory, same login, same sudo."""

from bitrix_cdn.fleet.inventory import Inventory, load
from bitrix_cdn.fleet.remote import HostError, Output, Remote, keep_others_away

__all__ = ["HostError", "Inventory", "Output", "Remote", "keep_others_away", "load"]

"""The one typed model of a deployment, checked before any connection is made.

An inventory calls :func:`groups` with its hosts and settings; everything that a role or a template
reads comes from the :class:`Settings` made there.
"""

from bitrix_cdn.settings.inventory import groups
from bitrix_cdn.settings.model import Settings, SettingsError
from bitrix_cdn.settings.types import InventoryError

__all__ = ["InventoryError", "Settings", "SettingsError", "groups"]

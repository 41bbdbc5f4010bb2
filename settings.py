"""Where inventories before version 0.2 import `groups` from."""

from bitrix_cdn.settings import groups

__all__ = ["groups"]

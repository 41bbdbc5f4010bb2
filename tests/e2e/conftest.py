"""The running, deployed lab, as the end-to-end tests see it."""

from tests.kit.fixtures import bitrix, cdn, remotes, settings, shop

__all__ = ["bitrix", "cdn", "remotes", "settings", "shop"]

"""Five hosts, as the tests of the edges see them: visitors come through the balancer."""

from tests.kit.edges import _five_hosts, all_up, balancer, edges, gallery
from tests.kit.fixtures import bitrix, cdn, remotes, settings, shop

__all__ = [
    "_five_hosts",
    "all_up",
    "balancer",
    "bitrix",
    "cdn",
    "edges",
    "gallery",
    "remotes",
    "settings",
    "shop",
]

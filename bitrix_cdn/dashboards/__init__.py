"""Grafana's dashboards, made by code: what an operator sees of the CDN.

    python -m bitrix_cdn.dashboards OUTPUT_DIR     writes one JSON file a dashboard
    python -m bitrix_cdn.dashboards queries        prints every query, for tests against a real Prometheus

One module a dashboard; what they have in common is in :mod:`bitrix_cdn.dashboards.panels`.
"""

from collections.abc import Callable

from bitrix_cdn.dashboards import conversion, delivery, hosts, mounts, overview
from bitrix_cdn.dashboards.panels import Board, Options

DASHBOARDS: tuple[Callable[[Options], Board], ...] = (
    overview.board,
    conversion.board,
    delivery.board,
    mounts.board,
    hosts.board,
)
"""All of them, in the order of the links between them."""


def files(options: Options) -> dict[str, str]:
    """The dashboards as Grafana reads them: name of the file, JSON."""
    return {f"{board.uid}.json": board.json() for board in (make(options) for make in DASHBOARDS)}


__all__ = ["DASHBOARDS", "Board", "Options", "files"]

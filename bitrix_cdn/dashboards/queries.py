"""Every query of the dashboards as Prometheus gets it, template variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What Grafana fills in by itself, for a look at the last hour; its rate interval is four scrapes at least.
_BUILT_IN = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    dashboard: str
    """Its uid."""
    panel: str
    """Its title."""
    expr: str


def queries(files: Mapping[str, str]) -> Iterator[Query]:
    """The queries of dashboards, each variable at its default: all hosts.

    :param files: the dashboards as :func:`bitrix_cdn.dashboards.files` makes them.
    :raises KeyError: a query has a variable that its dashboard doesn't.
    """
    for content in files.values():
        dashboard = json.loads(content)
        values = {**_BUILT_IN, **dict(map(_value, dashboard["templating"]["list"]))}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield Query(dashboard["uid"], panel["title"], _filled(target["expr"], values))


def _value(variable: Mapping[str, Any]) -> tuple[str, str]:
    """A variable's name, and what it stands for by default."""
    return variable["name"], variable.get("allValue") or str(variable["query"])


def _filled(expr: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)

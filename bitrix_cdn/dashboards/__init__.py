"""Grafana's dashboards: what an operator sees of the CDN.

    python -m bitrix_cdn.dashboards OUTPUT_DIR     writes one JSON file a dashboard
    python -m bitrix_cdn.dashboards queries        prints every query, for tests against a real Prometheus

Each is a table of panels in `templates/grafana/etc/grafana/dashboards/`, where values of the settings stand
in `[[ ]]`; :mod:`bitrix_cdn.dashboards.panels` says what a panel may have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bitrix_cdn.dashboards.panels import COLUMNS, SOURCE, Options, Panel, link
from bitrix_cdn.engine.files import TEMPLATES, brackets

DIRECTORY: Final = TEMPLATES / "grafana/etc/grafana/dashboards"

TAG: Final = "bitrix-cdn"
"""What the dashboards find each other by."""


class Row(BaseModel):
    """A family of panels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: str
    """Its title."""
    runbook: str = ""
    """File in `docs/runbooks` that helps with it; by default their folder is linked to."""
    panels: tuple[Panel, ...]
    """They stand in this order, 24 columns a line."""


class Dashboard(BaseModel):
    """A dashboard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    description: str
    hosts: str
    """A series that every host has which it is about."""
    values: dict[str, tuple[str, str]] = {}
    """Variables that the reader may write another value into: their labels and defaults."""
    rows: tuple[Row, ...]


def files(options: Options, directory: Path = DIRECTORY) -> dict[str, str]:
    """The dashboards as Grafana reads them: name of the file, JSON.

    :raises ValueError: what a file says is no dashboard.
    """
    made = {}
    environment = brackets(directory)
    environment.filters["percent"] = lambda share, decimals=0: f"{share:.{decimals}%}"
    for path in sorted(directory.glob("*.yaml")):
        text = environment.get_template(path.name).render(levels=options.levels, price=options.price)
        try:
            dashboard = Dashboard.model_validate(yaml.safe_load(text))
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise ValueError(f"{path.name}: {said}") from None
        content = {"uid": path.stem, **_json(dashboard, options.runbooks.rstrip("/"))}
        made[f"{path.stem}.json"] = json.dumps(content, indent=2, sort_keys=True) + "\n"
    return made


def _json(dashboard: Dashboard, runbooks: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it, but for its uid."""
    return {
        "annotations": {},
        "description": dashboard.description,
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "links": [link("Bitrix CDN", type="dashboards", tags=[TAG], keepTime=True)],
        "panels": _placed(dashboard.rows, runbooks),
        "refresh": "1m",
        "schemaVersion": 41,
        "tags": [TAG],
        "templating": {
            "list": [
                _variable(
                    "host",
                    "Host",
                    type="query",
                    allValue=".+",
                    current={"selected": True, "text": "All", "value": "$__all"},
                    datasource=SOURCE,
                    includeAll=True,
                    multi=True,
                    query=f"label_values({dashboard.hosts}, host)",
                    refresh=2,
                    sort=1,
                ),
                *(
                    _variable(
                        name,
                        label,
                        type="textbox",
                        current={"selected": True, "text": default, "value": default},
                        query=default,
                    )
                    for name, (label, default) in dashboard.values.items()
                ),
            ]
        },
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "title": dashboard.title,
    }


def _placed(rows: tuple[Row, ...], runbooks: str) -> list[dict[str, Any]]:
    """The panels and the titles of their rows, left to right and top to bottom."""
    made: list[dict[str, Any]] = []
    x, y, height = 0, 0, 0
    for row in rows:
        y += height
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        title = {"collapsed": False, "gridPos": place, "id": len(made) + 1, "panels": [], "title": row.row}
        made.append({**title, "type": "row"})
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            runbook = f"{runbooks}/{row.runbook}" if runbooks else ""
            made.append(panel.made(len(made) + 1, x, y, runbook))
            x, height = x + panel.width, max(height, made[-1]["gridPos"]["h"])
    return made


def _variable(name: str, label: str, **more: Any) -> dict[str, Any]:
    bare = {"allowCustomValue": True, "auto": False, "auto_count": 30, "auto_min": "10s", "includeAll": False}
    return {**bare, "label": label, "multi": False, "name": name, "skipUrlSync": False, **more}


__all__ = ["DIRECTORY", "Dashboard", "Options", "files"]

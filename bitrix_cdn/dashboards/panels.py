"""The panels of a dashboard: their description in YAML, and the JSON for Grafana."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from bitrix_cdn.dashboards.targets import Levels

DATASOURCE: Final = "bitrix-cdn-prometheus"
"""Uid of the data source that the deploy provisions."""

SOURCE: Final = {"type": "prometheus", "uid": DATASOURCE}

COLUMNS: Final = 24
"""Width of a dashboard."""

QUANTILES: Final = {"P50": 0.5, "P95": 0.95, "P99": 0.99}

MAPPINGS: Final = {
    "up": {0: ("down", "red"), 1: ("up", "green")},
    "fault": {0: ("no", "green"), 1: ("yes", "red")},
}
"""What 0 and 1 mean: of something that should be up, and of something that should not be."""


@dataclass(frozen=True)
class Options:
    """What the settings say of the dashboards."""

    runbooks: str = ""
    """Address of the folder of the runbooks; empty: no links."""

    price: float = 0.05
    """What a gigabyte of traffic costs, in the operator's currency."""

    levels: Levels = field(default_factory=Levels)
    """What is promised."""


class Display(BaseModel):
    """How a panel shows its values, in Grafana's words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["bytes", "Bps", "short", "none", "cps", "reqps", "s", "percentunit", "bool_on_off"]
    """Grafana's name of the format of its values."""
    width: int | None = None
    """Columns of 24; by default as its kind."""
    at_least: int | float | None = None
    """Green is what reaches it, red what doesn't."""
    at_most: int | float | None = None
    """Green is what stays below it, red what doesn't."""
    warning: int | float | None = None
    """Where yellow begins, on the good side of the limit."""
    mapping: Literal["up", "fault"] | None = None
    """What 0 and 1 are called: :data:`MAPPINGS`."""
    decimals: int | None = None
    no_value: str = "no data yet"
    """What a `stat` writes where there is no series."""
    stacked: bool = False
    max: int | float | None = None
    """The largest value that there can be."""
    labels: tuple[str, ...] = ()
    """Which labels a `table` shows, in this order."""

    @property
    def limited(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    def steps(self) -> Iterator[tuple[float | None, str]]:
        """From which value which colour begins."""
        warned = [] if self.warning is None else [self.warning]
        if self.at_least is not None:
            yield from ((None, "red"), (self.at_least, "yellow" if warned else "green"))
            yield from ((value, "green") for value in warned)
        elif self.at_most is not None:
            yield from ((None, "green"), *((value, "yellow") for value in warned), (self.at_most, "red"))
        else:
            yield None, "text"


_NAMES: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True}
_LINE: Final = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
_LINES: Final = {
    "type": "timeseries",
    "fieldConfig": {"defaults": {"custom": _LINE, "min": 0}},
    "options": {
        "legend": {**_NAMES, "calcs": ["lastNotNull", "max"], "displayMode": "table"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of panels: what Grafana needs to know of each of them."""

    json: Mapping[str, Any]
    width: int = COLUMNS // 2
    height: int = 8
    instant: bool = False
    """Whether it shows what is now, and not what was in the dashboard's time."""
    form: str = "time_series"


KINDS: Final = {
    "stat": Kind(
        {
            "type": "stat",
            "options": {
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "percentChangeColorMode": "standard",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "showPercentChange": False,
                "textMode": "auto",
                "wideLayout": True,
            },
        },
        width=4,
        height=4,
        instant=True,
    ),
    "lines": Kind(_LINES),
    "days": Kind({**_LINES, "interval": "1d", "timeFrom": "30d"}),
    "heatmap": Kind(
        {
            "type": "heatmap",
            "options": {
                "calculate": False,
                "cellGap": 1,
                "cellValues": {"unit": "short"},
                "color": {
                    "exponent": 0.5,
                    "fill": "",
                    "mode": "scheme",
                    "reverse": False,
                    "scale": "exponential",
                    "scheme": "Oranges",
                    "steps": 64,
                },
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "selectionMode": "x",
                "showValue": "auto",
                "tooltip": {"mode": "single", "yHistogram": True},
            },
        },
        form="heatmap",
    ),
    "timeline": Kind(
        {
            "type": "state-timeline",
            "options": {
                "alignValue": "left",
                "legend": {**_NAMES, "calcs": []},
                "mergeValues": True,
                "perPage": 20,
                "rowHeight": 0.8,
                "showValue": "auto",
                "tooltip": {"mode": "single", "sort": "asc"},
            },
        },
        width=COLUMNS,
        height=6,
    ),
    "table": Kind({"type": "table"}, instant=True, form="table"),
}
"""`stat` is one number a series; `lines` are values over time, `days` one bar for each of the last 30 days;
`heatmap` shows how often which values came, `timeline` since when a series is in its state, `table` one line
a series."""


class Panel(BaseModel):
    """A panel: what its reader is told, and what is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    title: str
    description: str
    display: Display
    queries: dict[str, str]
    """Expressions, by what their series are called: text with labels like `{{host}}` in it."""

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, said: dict[str, Any]) -> dict[str, Any]:
        """Takes `lines: Title`, and the short forms of queries.

        :raises ValueError: it is of no kind.
        """
        [kind] = KINDS.keys() & said.keys() or [""]
        if not kind:
            raise ValueError(f"a panel begins with its kind, one of {', '.join(KINDS)}: {said}")
        full = {"kind": kind, "title": said[kind], **said}
        del full[kind]
        if quantiles := full.pop("quantiles", ""):
            full["queries"] = {
                name: f"histogram_quantile({share}, {quantiles})" for name, share in QUANTILES.items()
            }
        if query := full.pop("query", ""):
            full["queries"] = {"{{le}}" if kind == "heatmap" else "": query}
        return full

    @property
    def width(self) -> int:
        return self.display.width or KINDS[self.kind].width

    def made(self, number: int, x: int, y: int, runbook: str) -> dict[str, Any]:
        """The panel as Grafana reads it.

        :param x: its first column.
        :param runbook: address of what helps with it; empty: none.
        """
        kind, display = KINDS[self.kind], self.display
        panel = {
            "datasource": SOURCE,
            "description": self.description,
            "gridPos": {"h": kind.height, "w": self.width, "x": x, "y": y},
            "id": number,
            "repeatDirection": "h",
            "targets": [
                {
                    "datasource": SOURCE,
                    "expr": expr,
                    "format": kind.form,
                    "instant": kind.instant,
                    "legendFormat": legend,
                    "range": not kind.instant,
                    "refId": chr(ord("A") + position),
                }
                for position, (legend, expr) in enumerate(self.queries.items())
            ],
            "title": self.title,
            "transparent": False,
            **deepcopy(kind.json),
        }
        defaults = panel.setdefault("fieldConfig", {}).setdefault("defaults", {})
        panel["fieldConfig"]["overrides"] = []
        steps = [{"color": colour, "value": value} for value, colour in display.steps()]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "unit": display.unit}
        if runbook:
            panel["links"] = [link("What to do", type="link", url=runbook, targetBlank=True)]
        if display.mapping:
            options = {
                str(value): {"color": colour, "index": index, "text": text}
                for index, (value, (text, colour)) in enumerate(MAPPINGS[display.mapping].items())
            }
            defaults["mappings"] = [{"options": options, "type": "value"}]
        if display.decimals is not None:
            defaults["decimals"] = display.decimals
        if display.max is not None:
            defaults["max"] = display.max
        match self.kind:
            case "stat":
                defaults["noValue"] = display.no_value
                panel["options"]["colorMode"] = (
                    "background" if display.limited or display.mapping else "value"
                )
            case "lines":
                if display.stacked:
                    defaults["custom"] |= {"fillOpacity": 40, "stacking": {"group": "A", "mode": "normal"}}
                if display.limited:
                    defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
            case "days":
                defaults["custom"] |= {"drawStyle": "bars", "fillOpacity": 80}
            case "heatmap":
                panel["options"]["yAxis"] = {"unit": display.unit}
            case "table":
                order = {name: position for position, name in enumerate([*display.labels, "Value"])}
                shown = {
                    "includeByName": dict.fromkeys(order, True),
                    "indexByName": order,
                    "renameByName": {"Value": self.title},
                }
                panel["transformations"] = [{"id": "organize", "options": shown}]
        return panel


def link(title: str, **more: Any) -> dict[str, Any]:
    """A link of a panel or a dashboard."""
    bare = {"asDropdown": False, "icon": "", "includeVars": False, "keepTime": False, "tags": []}
    return {**bare, "targetBlank": False, "title": title, "tooltip": "", **more}

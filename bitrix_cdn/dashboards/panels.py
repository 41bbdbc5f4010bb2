"""A dashboard as its module describes it: rows of panels, each with its queries, laid out left to right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from bitrix_cdn.dashboards.targets import Levels

_Panel = heatmap.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel

DATASOURCE: Final = "bitrix-cdn-prometheus"
"""Uid of the data source that the deploy provisions."""

TAG: Final = "bitrix-cdn"
"""What the dashboards find each other by."""


@dataclass(frozen=True)
class Options:
    """What the settings say of the dashboards."""

    runbooks: str = ""
    """Address of the folder of the runbooks; empty: no links."""

    price: float = 0.05
    """What a gigabyte of traffic costs, in the operator's currency."""

    levels: Levels = field(default_factory=Levels)
    """What is promised."""


@dataclass(frozen=True)
class Query:
    """A query and what its series are called: text with labels like `{{host}}` in it."""

    expr: str
    legend: str


class Unit(Enum):
    """How Grafana writes values; its own names of its formats."""

    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    COUNT = "short"
    PLAIN = "none"
    PER_SECOND = "cps"
    REQUESTS = "reqps"
    SECONDS = "s"
    SHARE = "percentunit"
    STATE = "bool_on_off"


class Order(Enum):
    """From which side a limit is crossed, and so which side of it is red."""

    AT_LEAST = "at least"
    """Good is what reaches the limit."""
    AT_MOST = "at most"
    """Good is what stays below it."""


@dataclass(frozen=True)
class Limit:
    """A limit that colours a panel: green on its good side, red on the other, yellow in between."""

    order: Order
    value: float
    warning: float | None = None
    """Where yellow begins, on the good side; None: no yellow."""

    def thresholds(self) -> dashboard.ThresholdsConfig:
        steps: list[tuple[float | None, str]]
        if self.order is Order.AT_LEAST:
            steps = [(None, "red"), (self.value, "green" if self.warning is None else "yellow")]
            steps += [] if self.warning is None else [(self.warning, "green")]
        else:
            steps = [(None, "green")]
            steps += [] if self.warning is None else [(self.warning, "yellow")]
            steps += [(self.value, "red")]
        return (
            dashboard.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps([model.Threshold(value=value, color=colour) for value, colour in steps])
        )


def at_least(value: float, warning: float | None = None) -> Limit:
    return Limit(Order.AT_LEAST, value, warning)


def at_most(value: float, warning: float | None = None) -> Limit:
    return Limit(Order.AT_MOST, value, warning)


UP: Final = {0: ("down", "red"), 1: ("up", "green")}
"""What 0 and 1 mean of something that should be up."""

FAULT: Final = {0: ("no", "green"), 1: ("yes", "red")}
"""What they mean of something that should not be."""


class Board:
    """A dashboard. Panels stand in the order in which they are added, 24 columns a line."""

    def __init__(self, uid: str, title: str, description: str, *, options: Options, hosts: str) -> None:
        """
        :param uid: its address below `/d/` and the name of its file.
        :param hosts: a series that every host has which this dashboard is about.
        """
        self.uid = uid
        self.levels = options.levels
        self._runbooks = options.runbooks.rstrip("/")
        self._runbook = ""
        self._count = 0
        self._source = model.DataSourceRef(type_val="prometheus", uid=DATASOURCE)
        self._dashboard = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([TAG])
            .readonly()
            .timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .time("now-6h", "now")
            .refresh("1m")
            .link(
                dashboard.DashboardLink("Bitrix CDN")
                .type(model.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .keep_time(True)
            )
            .with_variable(
                dashboard.QueryVariable("host")
                .label("Host")
                .datasource(self._source)
                .query(f"label_values({hosts}, host)")
                .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
                .sort(model.VariableSort.ALPHABETICAL_ASC)
                .multi(True)
                .include_all(True)
                .all_value(".+")
                .current(model.VariableOption(selected=True, text="All", value="$__all"))
            )
        )

    def value(self, name: str, label: str, default: str) -> None:
        """Adds a variable that the reader may write another value into."""
        self._dashboard.with_variable(
            dashboard.TextBoxVariable(name)
            .label(label)
            .default_value(default)
            .current(model.VariableOption(selected=True, text=default, value=default))
        )

    def row(self, title: str, runbook: str = "") -> None:
        """Begins a family of panels.

        :param runbook: file in `docs/runbooks` that helps with it; by default their folder is linked to.
        """
        self._runbook = runbook
        self._count += 1
        self._dashboard.with_row(dashboard.Row(title).id(self._count))

    def stat(
        self,
        title: str,
        description: str,
        *queries: Query,
        unit: Unit,
        limit: Limit | None = None,
        words: Mapping[int, tuple[str, str]] | None = None,
        decimals: int | None = None,
        width: int = 4,
        none: str = "no data yet",
    ) -> None:
        """One number a series, as it is now.

        :param words: what to write for a value, and in which colour.
        :param none: what to write where there is no series.
        """
        panel = (
            stat.Panel()
            .graph_mode(look.BigValueGraphMode.NONE)
            .color_mode(
                look.BigValueColorMode.VALUE
                if limit is None and not words
                else look.BigValueColorMode.BACKGROUND
            )
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
            .no_value(none)
        )
        if decimals is not None:
            panel.decimals(decimals)
        self._add(panel, title, description, queries, unit, limit, words, width, 4, instant=True)

    def lines(
        self,
        title: str,
        description: str,
        *queries: Query,
        unit: Unit,
        limit: Limit | None = None,
        stacked: bool = False,
        width: int = 12,
        most: float | None = None,
    ) -> None:
        """Values over time.

        :param limit: drawn as a line.
        :param most: the largest value there can be.
        """
        panel = self._lines()
        if stacked:
            panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A")).fill_opacity(40)
        if limit is not None:
            style = common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED)
            panel.thresholds_style(style)
        if most is not None:
            panel.max(most)
        self._add(panel, title, description, queries, unit, limit, None, width, 8)

    def days(self, title: str, description: str, *queries: Query, unit: Unit, width: int = 12) -> None:
        """One bar a day, of the last 30 days whatever the dashboard shows."""
        panel = self._lines().draw_style(look.GraphDrawStyle.BARS).fill_opacity(80).interval("1d")
        panel.time_from("30d")
        self._add(panel, title, description, queries, unit, None, None, width, 8)

    @staticmethod
    def _lines() -> timeseries.Panel:
        return (
            timeseries.Panel()
            .line_width(1)
            .fill_opacity(10)
            .show_points(look.VisibilityMode.NEVER)
            .min(0)
            .legend(
                common.VizLegendOptions()
                .display_mode(look.LegendDisplayMode.TABLE)
                .placement(look.LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs(["lastNotNull", "max"])
            )
            .tooltip(
                common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING)
            )
        )

    def heatmap(self, title: str, description: str, buckets: str, *, unit: Unit, width: int = 12) -> None:
        """How often which values came, over time.

        :param buckets: a query of a histogram's buckets by `le`.
        """
        panel = (
            heatmap.Panel()
            .calculate(False)
            .color(
                heatmap.HeatmapColorOptions()
                .mode(heat.HeatmapColorMode.SCHEME)
                .scheme("Oranges")
                .scale(heat.HeatmapColorScale.EXPONENTIAL)
                .exponent(0.5)
                .steps(64)
            )
            .y_axis(heatmap.YAxisConfig().unit(unit.value))
            .cell_values(heatmap.CellValues().unit(Unit.COUNT.value))
            .mode(look.TooltipDisplayMode.SINGLE)
            .show_y_histogram()
        )
        queries = [Query(buckets, "{{le}}")]
        form = PromQueryFormat.HEATMAP
        self._add(panel, title, description, queries, unit, None, None, width, 8, form=form)

    def timeline(
        self,
        title: str,
        description: str,
        *queries: Query,
        words: Mapping[int, tuple[str, str]],
        width: int = 24,
    ) -> None:
        """Since when each series is in its state."""
        panel = (
            statetimeline.Panel()
            .show_value(look.VisibilityMode.AUTO)
            .row_height(0.8)
            .merge_values(True)
            .legend(
                common.VizLegendOptions()
                .display_mode(look.LegendDisplayMode.LIST)
                .placement(look.LegendPlacement.BOTTOM)
                .show_legend(True)
            )
        )
        self._add(panel, title, description, queries, Unit.STATE, None, words, width, 6)

    def table(
        self, title: str, description: str, query: str, *, unit: Unit, labels: Sequence[str], width: int = 12
    ) -> None:
        """One line a series, as it is now.

        :param labels: which labels to show, in this order.
        """
        order = {name: position for position, name in enumerate([*labels, "Value"])}
        panel = table.Panel().with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": order,
                    "includeByName": dict.fromkeys(order, True),
                    "renameByName": {"Value": title},
                },
            )
        )
        queries = [Query(query, "")]
        form = PromQueryFormat.TABLE
        self._add(panel, title, description, queries, unit, None, None, width, 8, instant=True, form=form)

    def json(self) -> str:
        """The dashboard as Grafana reads it. The same description gives the same text."""
        return json.dumps(self._dashboard.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"

    def _add(
        self,
        panel: _Panel,
        title: str,
        description: str,
        queries: Sequence[Query],
        unit: Unit,
        limit: Limit | None,
        words: Mapping[int, tuple[str, str]] | None,
        width: int,
        height: int,
        *,
        instant: bool = False,
        form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
    ) -> None:
        self._count += 1
        panel.id(self._count).title(title).description(description).unit(unit.value)
        panel.datasource(self._source).span(width).height(height)
        neutral = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE)
        neutral.steps([model.Threshold(value=None, color="text")])
        panel.thresholds(neutral if limit is None else limit.thresholds())
        if words:
            options = {
                str(value): model.ValueMappingResult(text=text, color=colour, index=position)
                for position, (value, (text, colour)) in enumerate(words.items())
            }
            panel.mappings([model.ValueMap(options=options)])
        if self._runbooks:
            address = f"{self._runbooks}/{self._runbook}"
            panel.links([dashboard.DashboardLink("What to do").url(address).target_blank(True)])
        for number, query in enumerate(queries):
            target = (
                prometheus.Dataquery()
                .ref_id(chr(ord("A") + number))
                .datasource(self._source)
                .expr(query.expr)
                .legend_format(query.legend)
                .format(form)
            )
            panel.with_target(target.instant() if instant else target.range())
        self._dashboard.with_panel(panel)

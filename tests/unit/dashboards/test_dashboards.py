"""The dashboards: what Grafana gets is whole, and asks only for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webp_converter.metrics import Metrics

from bitrix_cdn.dashboards import Options, files
from bitrix_cdn.dashboards.panels import DATASOURCE
from bitrix_cdn.dashboards.queries import Query, queries
from bitrix_cdn.dashboards.targets import Levels
from host_agent.mount.report import _METRICS
from tests.kit.deployment import ROOT

MADE = files(Options(runbooks="https://example.com/runbooks/", price=0.1))
QUERIES = list(queries(MADE))

RECORDED = {
    *(
        f"cdn:{level}:ratio_rate{window}"
        for level in ("availability", "latency_ok")
        for window in ("5m", "30m", "1h", "6h", "3d")
    ),
    "cdn:request_seconds:p95_5m",
    "cdn:cache_hit:ratio_rate5m",
    "cdn:conversion_success:ratio_rate1h",
    "cdn:saving:ratio",
    "cdn:publish_seconds:p99_5m",
    "cdn:ssim:ratio_rate1d",
    *(f"cdn:{what}:rate5m" for what in ("requests", "errors", "pictures", "fast_pictures")),
}
"""The recording rules that dashboards may use."""

EDGE = {"edge_requests_total", "edge_response_bytes_total"} | {
    f"edge_request_seconds{part}" for part in ("_bucket", "_sum", "_count")
}
"""What mtail counts."""

OTHERS = ("node_", "nginx_", "varnish_", "redis_", "probe_", "prometheus_", "alertmanager_", "drift_")
"""How the metrics of exporters that aren't ours begin."""

PROMETHEUS = {"up", "scrape_duration_seconds", "ALERTS"}
"""What Prometheus makes itself."""


def dashboards() -> Iterator[dict[str, Any]]:
    yield from map(json.loads, MADE.values())


def panels() -> Iterator[dict[str, Any]]:
    for dashboard in dashboards():
        yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def exported() -> set[str]:
    """The daemon's metrics, with the suffixes that each kind gets."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        metric.name + suffix for metric in Metrics().registry.collect() for suffix in suffixes[metric.type]
    }


def metrics_of(expr: str) -> set[str]:
    """The names of metrics in an expression: what is neither in a selector nor a word of the language."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", bare)
    return set(words) - {"or", "and", "unless", "bool", "sum", "min", "max", "avg", "count", "by", "on"}


def test_there_are_five() -> None:
    assert len(MADE) == 5
    for name, dashboard in zip(MADE, dashboards(), strict=True):
        assert name == f"{dashboard['uid']}.json"


def test_uids_and_titles_are_unique() -> None:
    for key in ("uid", "title"):
        values = [dashboard[key] for dashboard in dashboards()]
        assert len(set(values)) == len(values)
        assert all(values)
    for dashboard in dashboards():
        assert len(dashboard["uid"]) <= 40  # Grafana's own limit
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panel_says_all_that_its_reader_needs(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith("."), panel["title"]
    assert panel["datasource"] == {"type": "prometheus", "uid": DATASOURCE}
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert panel["type"] == "table" or target["legendFormat"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_leave_each_other_room() -> None:
    for dashboard in dashboards():
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            assert place["w"] > 0
            assert place["x"] + place["w"] <= 24, panel["title"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    other = taken.setdefault((x, y), panel["title"])
                    assert other == panel["title"], f"{panel['title']} lies over {other}"


def test_lines_of_panels_are_full() -> None:
    for dashboard in dashboards():
        widths: dict[int, int] = {}
        for panel in dashboard["panels"]:
            widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
        assert set(widths.values()) == {24}, (dashboard["uid"], widths)


def test_panels_lead_to_the_runbooks_if_their_address_is_known() -> None:
    for panel in panels():
        [link] = panel["links"]
        folder, _, file = link["url"].rpartition("/")
        assert folder == "https://example.com/runbooks"
        assert not file or (ROOT / "docs/runbooks" / file).is_file()
    without = files(Options())
    assert all(not panel.get("links") for text in without.values() for panel in json.loads(text)["panels"])


def test_the_price_of_traffic_is_the_operators() -> None:
    overview = json.loads(MADE["bitrix-cdn-overview.json"])
    [price] = [variable for variable in overview["templating"]["list"] if variable["name"] == "price"]
    assert price["query"] == "0.1"
    assert any(query.expr.endswith("* 0.1") for query in QUERIES)


def test_targets_are_the_settings() -> None:
    strict = files(Options(levels=Levels(availability=0.9999)))["bitrix-cdn-overview.json"]
    [stat] = [panel for panel in json.loads(strict)["panels"] if panel["title"] == "Availability"]
    steps = stat["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, 0.9999]
    assert any("/ (1 - 0.9999)" in query.expr for query in queries({"overview": strict}))


PANEL = """
title: T
description: A.
hosts: up
rows:
  - row: R
    panels:
      - lines: L
        description: B.
        display: {unit: s}
        queries: {a: up}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("unit: s", "unit: s, with: 8", "rows.0.panels.0.display.with: Extra inputs are not permitted"),
        ("unit: s", "unit: hours", "rows.0.panels.0.display.unit: Input should be 'bytes'"),
        ("queries:", "query_s:", "rows.0.panels.0.queries: Field required"),
        ("lines: L", "pie: P", "a panel begins with its kind, one of stat, lines,"),
        ("hosts: up", "host: up", "hosts: Field required"),
    ],
)
def test_a_misspelt_panel_is_told_by_its_place(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(PANEL)
    assert json.loads(files(Options(), tmp_path)["mine.json"])["panels"][1]["title"] == "L"
    (tmp_path / "mine.yaml").write_text(PANEL.replace(right, wrong))
    with pytest.raises(ValueError, match=r"^mine\.yaml: ") as raised:
        files(Options(), tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_same_code_gives_the_same_files(tmp_path: Path) -> None:
    for run in ("first", "second"):
        command = [sys.executable, "-m", "bitrix_cdn.dashboards", str(tmp_path / run)]
        subprocess.run(command, cwd=ROOT, check=True)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / run).iterdir()} for run in ("first", "second")
    )
    assert first == second
    assert {name: text.encode() for name, text in files(Options()).items()} == first


def test_the_command_prints_each_query() -> None:
    command = [sys.executable, "-m", "bitrix_cdn.dashboards", "queries"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    printed = [Query(**json.loads(line)) for line in output.splitlines()]
    assert printed == list(queries(files(Options())))


def test_no_variable_is_left_in_a_query() -> None:
    assert QUERIES
    assert not [query for query in QUERIES if "$" in query.expr]


def test_metrics_are_found_in_an_expression() -> None:
    expr = 'sum by (le) (rate(a_total{b="c d"}[5m])) / on(host) (x:y:z > 0) or vector(0) unless on() up == 1'
    assert metrics_of(expr) == {"a_total", "x:y:z", "up"}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_a_query_asks_for_what_there_is(query: Query) -> None:
    ours = exported() | {name for name, _, _ in _METRICS} | RECORDED | EDGE | PROMETHEUS
    found = metrics_of(query.expr)
    assert found
    assert not {name for name in found if name not in ours and not name.startswith(OTHERS)}


def test_prometheus_understands_each_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    # One rule a query, in one file: JSON is YAML.
    rules = [{"record": f"query:{number}", "expr": query.expr} for number, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yaml"

    def check(rules: list[dict[str, str]]) -> subprocess.CompletedProcess[str]:
        file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        return subprocess.run(
            [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
        )

    assert check([*rules, {"record": "query:bad", "expr": "sum(up"}]).returncode != 0
    result = check(rules)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(QUERIES)} rules found" in result.stdout

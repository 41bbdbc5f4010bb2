"""Compressed rules differ from the real ones in their durations, and in nothing else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.kit.alerting import rules
from tests.kit.compression import compressed, compressed_query, milliseconds
from tests.kit.support import wait_until
from tests.kit.tools import needs, said

INTERVAL_S = 15
FACTOR = 12


def groups_of(place: Path, files: dict[str, str]) -> list[dict[str, Any]]:
    """The groups of rules as a separate Prometheus reads them, without what it found by them."""
    place.mkdir()
    for name, content in files.items():
        (place / name).write_text(content)
    (place / "prometheus.yml").write_text(
        f"global: {{evaluation_interval: {INTERVAL_S}s}}\n"
        f"rule_files: [{json.dumps(str(place / '*.rules'))}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={place / 'prometheus.yml'}", f"--web.listen-address={address}"]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={place / 'data'}"], stdout=log, stderr=log
        )
    try:

        def groups() -> list[dict[str, Any]]:
            try:
                with urllib.request.urlopen(f"http://{address}/api/v1/rules", timeout=5) as answer:
                    return list(json.load(answer)["data"]["groups"])
            except OSError:
                return []

        found = wait_until("Prometheus to tell its rules", groups, timeout=60)
    finally:
        process.terminate()
        process.wait(30)
    for group in found:
        group["rules"] = [
            {key: rule.get(key) for key in ("name", "type", "query", "duration", "labels", "annotations")}
            for rule in group["rules"]
        ]
    keys = ("name", "interval", "rules")
    return sorted(({key: group[key] for key in keys} for group in found), key=lambda group: group["name"])


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    needs("prometheus", "prometheus")
    files = {f"{name}.rules": content for name, content in rules().items()}
    return groups_of(tmp_path_factory.mktemp("rules") / "real", files)


def test_factor_1_is_the_identity(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    assert len(groups) > 8
    again = groups_of(tmp_path / "again", {"all.rules": compressed(groups, 1, INTERVAL_S)})
    assert again == groups


def test_only_durations_change(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    least_ms = 4 * INTERVAL_S * 1000
    (tmp_path / "all.yml").write_text(compressed(groups, FACTOR, INTERVAL_S))
    assert "SUCCESS" in said("promtool", "check", "rules", tmp_path / "all.yml")
    now = groups_of(tmp_path / "now", {"all.rules": compressed(groups, FACTOR, INTERVAL_S)})
    changed = 0
    for group, then in zip(now, groups, strict=True):
        assert group["name"] == then["name"]
        assert group["interval"] == max(INTERVAL_S, then["interval"] / FACTOR)
        for rule, real in zip(group["rules"], then["rules"], strict=True):
            for key in ("name", "type", "labels", "annotations"):
                assert rule[key] == real[key]
            if real["duration"] is not None:
                assert rule["duration"] == pytest.approx(real["duration"] / FACTOR)
            (shown, ranges), (real_shown, real_ranges) = (
                taken_apart(rule["query"]),
                taken_apart(real["query"]),
            )
            assert shown == real_shown
            assert ranges == [max(ms / FACTOR, min(ms, least_ms)) for ms in real_ranges]
            changed += ranges != real_ranges
    assert changed > 30


def taken_apart(query: str) -> tuple[str, list[int]]:
    """A query without its ranges and without what it looks ahead, and the ranges in milliseconds."""
    ranges = [milliseconds(part) for part in re.findall(r"\[(\w+)\]", query)]
    without = re.sub(r"\[\w+\]", "[]", query)
    return re.sub(r"(predict_linear\([^,]*, )\d+\)", r"\1)", without), ranges


@pytest.mark.parametrize(
    ("query", "minutes"),
    [
        ("rate(x[1h])", "rate(x[300s])"),
        ("rate(x[1h30m])", "rate(x[450s])"),
        ("rate(x[5m])", "rate(x[60s])"),
        ("rate(x[30s])", "rate(x[30s])"),
        ("x offset 1d", "x offset 7200s"),
        ("max_over_time(x[1d:1h])", "max_over_time(x[7200s:300s])"),
        ("predict_linear(x[6h], 86400) < 60", "predict_linear(x[1800s], 7200) < 60"),
        *(
            (same, same)
            for same in (
                'cdn:publish_seconds:p99_5m{le="0.25",a="5m",b=~"1h|2d"} > 20 * 2 ^ 30',
                "sum by (host) (ratio_rate1h) unless 1.5 * a1d >= 0 * b or on () absent(c)",
                "time() - d > 26 * 3600",
            )
        ),
    ],
)
def test_a_query_becomes(query: str, minutes: str) -> None:
    assert compressed_query(query, FACTOR, INTERVAL_S) == minutes
    assert compressed_query(query, 1, INTERVAL_S) == query


def test_what_is_no_duration_is_refused() -> None:
    with pytest.raises(AssertionError, match="no duration"):
        milliseconds("5 minutes")

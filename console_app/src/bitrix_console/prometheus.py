"""What Prometheus and Alertmanager are asked over SSH, in one round trip, and their answers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from bitrix_cdn.settings import Settings
from bitrix_cdn.status.facts import ALWAYS, get

_MARK = "== "

WINDOWS: Final[Mapping[str, int]] = {
    "1h": 3600,
    "1d": 86_400,
    "7d": 7 * 86_400,
    "30d": 30 * 86_400,
    "1y": 365 * 86_400,
}
"""What charts can show, in seconds."""

_POINTS = 120

CHARTS: Final[Mapping[str, str]] = {
    "requests": "sum(cdn:requests:rate5m)",
    "hits": "avg(cdn:cache_hit:ratio_rate5m)",
    "availability": "min(cdn:availability:ratio_rate1h)",
    "saving": "avg(cdn:saving:ratio)",
    "queue": "sum(webp_converter_queue_length)",
    "free": "min(host:filesystem_free:ratio)",
}
"""The queries of the charts, by their names."""

VALUES: Final[Mapping[str, str]] = {
    "saved_day": (
        "sum(increase(webp_converter_original_bytes_total[1d]))"
        " - sum(increase(webp_converter_variant_bytes_total[1d]))"
    ),
    "drift": "sum(drift_differences)",
    "drift_at": "max(drift_check_timestamp_seconds)",
}
"""The queries of single values."""


@dataclass(frozen=True)
class Point:
    """A value at a time."""

    at: float
    value: float


@dataclass(frozen=True)
class Alert:
    """An alert that fires."""

    fingerprint: str
    name: str
    severity: str
    host: str
    summary: str
    description: str
    since: float
    runbook: str
    """Such as `mounts.md#mountdown`; empty: none."""
    silenced: tuple[str, ...]
    """The silences that keep it quiet."""
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Silence:
    """What keeps alerts quiet for a while."""

    id: str
    matches: str
    by: str
    reason: str
    ends: float


@dataclass(frozen=True)
class Monitored:
    """What the monitoring host tells."""

    charts: Mapping[str, Sequence[Point]]
    values: Mapping[str, float]
    alerts: tuple[Alert, ...] | None
    """The gravest first; None: Alertmanager does not answer."""
    silences: tuple[Silence, ...] = ()


def script(settings: Settings, window: str, now: float) -> str:
    """A shell script that asks all of it; each answer stands below a line with its name.

    :param window: one of `WINDOWS`.
    """
    port, seconds = settings.monitoring.prometheus.port, WINDOWS[window]
    step = max(15, seconds // _POINTS)
    # At round times the points stay where they are while time goes on.
    end = int(now) // step * step
    span = {"start": end - seconds, "end": end, "step": step}
    asked = {
        f"chart {name}": get(port, f"/api/v1/query_range?{urlencode({'query': query, **span})}")
        for name, query in CHARTS.items()
    }
    asked |= {
        f"value {name}": get(port, f"/api/v1/query?{urlencode({'query': query})}")
        for name, query in VALUES.items()
    }
    alertmanager = settings.monitoring.alertmanager.port
    asked["alerts"] = get(alertmanager, "/api/v2/alerts?active=true&silenced=true&inhibited=true")
    asked["silences"] = get(alertmanager, "/api/v2/silences")
    return "\n".join(f"echo; echo '{_MARK}{name}'; {{ {line}; }} 2>/dev/null" for name, line in asked.items())


def read(printed: str) -> Monitored:
    """What the script printed, understood."""
    answers = {}
    for section in re.split(rf"^{_MARK}", printed, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        answers[name] = _json(text)
    charts = {name: _points(answers.get(f"chart {name}")) for name in CHARTS}
    values = {name: _value(answers.get(f"value {name}")) for name in VALUES}
    alerts = answers.get("alerts")
    return Monitored(
        charts,
        {name: value for name, value in values.items() if value is not None},
        _alerts(alerts) if isinstance(alerts, list) else None,
        _silences(answers.get("silences")),
    )


def _points(answer: Any) -> tuple[Point, ...]:
    try:
        [series] = answer["data"]["result"]
        points = [Point(float(at), float(value)) for at, value in series["values"]]
    except (TypeError, KeyError, ValueError):
        return ()
    return tuple(one for one in points if abs(one.value) < float("inf"))  # neither NaN nor infinite


def _value(answer: Any) -> float | None:
    try:
        [series] = answer["data"]["result"]
        found = float(series["value"][1])
    except (TypeError, KeyError, ValueError):
        return None
    return found if abs(found) < float("inf") else None


_GRAVE = ("critical", "warning", "info")


def _alerts(answer: Sequence[Any]) -> tuple[Alert, ...]:
    found = []
    for one in answer:
        labels, told = one.get("labels", {}), one.get("annotations", {})
        if labels.get("alertname") == ALWAYS:
            continue
        page = re.search(r"([\w-]+\.md(?:#[\w-]+)?)$", told.get("runbook_url", ""))
        found.append(
            Alert(
                str(one.get("fingerprint", "")),
                str(labels.get("alertname", "?")),
                str(labels.get("severity", "")),
                str(labels.get("host", "")),
                str(told.get("summary", "")),
                str(told.get("description", "")),
                moment(one.get("startsAt")),
                page[1] if page else "",
                tuple(one.get("status", {}).get("silencedBy") or ()),
                {str(name): str(value) for name, value in labels.items()},
            )
        )
    rank = {name: place for place, name in enumerate(_GRAVE)}
    return tuple(sorted(found, key=lambda one: (bool(one.silenced), rank.get(one.severity, 9), one.since)))


def _silences(answer: Any) -> tuple[Silence, ...]:
    if not isinstance(answer, list):
        return ()
    found = [
        Silence(
            str(one.get("id", "")),
            ", ".join(f"{m.get('name')}={m.get('value')}" for m in one.get("matchers", ())),
            str(one.get("createdBy", "")),
            str(one.get("comment", "")),
            moment(one.get("endsAt")),
        )
        for one in answer
        if one.get("status", {}).get("state") in {"active", "pending"}
    ]
    return tuple(sorted(found, key=lambda one: one.ends))


def moment(text: object) -> float:
    """A time of Alertmanager's API in seconds; 0: it is none."""
    try:
        return datetime.fromisoformat(
            re.sub(r"(\.\d{6})\d+", r"\1", str(text)).replace("Z", "+00:00")
        ).timestamp()
    except ValueError:
        return 0.0


def silence(labels: Mapping[str, str], by: str, reason: str, now: float, hours: float) -> bytes:
    """The body of a request that silences one alert."""
    matchers = [
        {"name": name, "value": value, "isRegex": False, "isEqual": True}
        for name, value in sorted(labels.items())
    ]

    def at(seconds: float) -> str:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"

    return json.dumps(
        {
            "matchers": matchers,
            "startsAt": at(now),
            "endsAt": at(now + hours * 3600),
            "createdBy": by,
            "comment": reason,
        }
    ).encode()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None

"""Prometheus' rules with their time compressed: what takes a day or an hour takes minutes or seconds.

The fault stays what it is, and so does each threshold that is a share, a rate, a size or a number of events.
What is divided: every `for`, every duration in a query, the seconds that `predict_linear` looks ahead, and
the intervals of the groups. Rules are read from Prometheus' own API: no parser of ours decides what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from pygments.lexers.promql import PromQLLexer
from pygments.token import Keyword, Number, String

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION = re.compile(r"[1-9][0-9]*[smhdwy]")

SAMPLES = 4
"""A range holds the samples of so many intervals, however much time is compressed: a rate needs two."""


def compressed(groups: Iterable[dict[str, Any]], factor: float, interval_s: float) -> str:
    """A file of rules, as JSON, which is YAML.

    :param groups: as `/api/v1/rules` gives them.
    :param factor: 1 or more; 1 leaves all as it is.
    :param interval_s: seconds between two samples: no group is evaluated more often, and no range is made
        shorter than `SAMPLES` of them.
    """
    return json.dumps({"groups": [_group(group, factor, interval_s) for group in groups]}, indent=1)


def compressed_query(query: str, factor: float, interval_s: float) -> str:
    """A query with its durations divided; all else is left as it is, to the letter."""
    least_ms = SAMPLES * interval_s * 1000

    def shorter(text: str) -> str:
        now_ms = milliseconds(text)
        return _written(min(now_ms, max(now_ms / factor, least_ms)))

    changed = []
    looks_ahead = False
    for is_duration, parts in groupby(_tokens(query), key=lambda token: token[0] == "duration"):
        tokens = list(parts)
        if is_duration:
            changed.append(shorter("".join(text for _, text in tokens)) if factor != 1 else _joined(tokens))
            continue
        for kind, text in tokens:
            looks_ahead = (looks_ahead or text == "predict_linear") and text != ")"
            ahead = looks_ahead and kind == "number" and factor != 1
            changed.append(f"{float(text) / factor:g}" if ahead else text)
    return "".join(changed)


def milliseconds(text: str) -> int:
    """A duration as Prometheus writes it, such as `1h30m`."""
    parts = _DURATION.findall(text)
    assert "".join(parts) == text, f"{text!r} is no duration"
    return sum(int(part[:-1]) * _UNITS_MS[part[-1]] for part in parts)


def _group(group: dict[str, Any], factor: float, interval_s: float) -> dict[str, Any]:
    every_s = min(group["interval"], max(group["interval"] / factor, interval_s))
    return {
        "name": group["name"],
        "interval": _written(every_s * 1000),
        "rules": [_rule(rule, factor, interval_s) for rule in group["rules"]],
    }


def _rule(rule: dict[str, Any], factor: float, interval_s: float) -> dict[str, Any]:
    same = {key: rule[key] for key in ("labels", "annotations") if rule.get(key)}
    expr = compressed_query(rule["query"], factor, interval_s)
    if rule["type"] == "recording":
        return {"record": rule["name"], "expr": expr, **same}
    return {"alert": rule["name"], "expr": expr, "for": _written(rule["duration"] * 1000 / factor), **same}


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    """What a query is made of: durations, numbers, and the rest."""
    quoted = False
    for _, token, text in PromQLLexer().get_tokens_unprocessed(query):
        if token in String and not quoted and _DURATION.fullmatch(text):
            yield "duration", text
        elif token in Number:
            yield "number", text
        else:
            yield ("keyword" if token in Keyword else "text"), text
        # The text of a label's value is a String too, after its quote.
        quoted = text in {'"', "'"}


def _joined(tokens: Iterable[tuple[str, str]]) -> str:
    return "".join(text for _, text in tokens)


def _written(ms: float) -> str:
    whole = round(ms)
    return f"{whole // 1000}s" if whole % 1000 == 0 else f"{whole}ms"

"""Compares a host's error rate before and after its change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

SIGNIFICANCE = 0.01
"""The change is at fault when an unchanged host would err as often by chance with less probability."""

LEAST = 3
"""Fewer errors than that are never held against a change: a single one happens on the quietest host."""


@dataclass(frozen=True)
class Count:
    """What a host did since its counters began, of one kind."""

    tried: float
    failed: float


NOTHING = Count(0, 0)

Counters = Mapping[str, Count]
"""By kind, such as `requests`; a kind that a host doesn't have is left out."""


def since(earlier: Count, later: Count) -> Count:
    """What came between two looks; a counter that fell started over meanwhile."""
    if later.tried < earlier.tried or later.failed < earlier.failed:
        return later
    return Count(later.tried - earlier.tried, later.failed - earlier.failed)


def chance(before: Count, after: Count) -> float:
    """The probability that at least as many of all failures fall into the time after, if nothing changed.

    Under that hypothesis each failure falls there with the share of the requests that do, so their number is
    binomial (the conditional test of two Poisson rates, Przyborowski and Wilenski 1940).
    """
    failures = round(before.failed + after.failed)
    tried = before.tried + after.tried
    if not failures or not tried:
        return 1.0
    share = after.tried / tried
    if share in (0.0, 1.0):
        # Nothing was tried before, or nothing after: there is nothing to compare with.
        return 1.0
    logs = (
        math.lgamma(failures + 1)
        - math.lgamma(k + 1)
        - math.lgamma(failures - k + 1)
        + k * math.log(share)
        + (failures - k) * math.log1p(-share)
        for k in range(round(after.failed), failures + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def worse(before: Count, after: Count) -> bool:
    """Whether a change made failures more frequent.

    Where nothing was tried before there is nothing to compare with: then half of the tries are too many.
    """
    if after.failed < LEAST:
        return False
    if not before.tried:
        return after.failed * 2 > after.tried
    return chance(before, after) < SIGNIFICANCE


def described(count: Count) -> str:
    """A count as people read it."""
    if not count.tried:
        return "none of 0"
    return f"{count.failed:,.0f} of {count.tried:,.0f} ({count.failed / count.tried:.2%})"


def counters(expositions: Mapping[str, str]) -> dict[str, Count]:
    """What a host's exporters say, as counts.

    :param expositions: in Prometheus' text format, by kind: `requests` of visitors, of which those failed
        that got a status from 500 on, and `conversions`, of which those tries failed that a worker failed.
    :raises ValueError: it isn't in that format.
    """
    found = dict.fromkeys(expositions, NOTHING)
    for kind, text in expositions.items():
        tried = failed = 0.0
        for sample in (
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ):
            if sample.name == "edge_requests_total":
                tried += sample.value
                failed += sample.value if sample.labels["status"] >= "500" else 0
            elif sample.name == "webp_converter_pictures_total":
                tried += sample.value
            elif sample.name == "webp_converter_worker_failures_total":
                tried += sample.value
                failed += sample.value
        found[kind] = Count(tried, failed)
    return found

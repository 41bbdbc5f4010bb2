"""Pieces of PromQL that every dashboard needs."""

from __future__ import annotations

from bitrix_cdn.dashboards.panels import Query

ALERTS = 'ALERTS{alertstate="firing"}'


def of(metric: str, *matchers: str, during: str = "") -> str:
    """A metric of the hosts that are chosen at the top of the dashboard.

    :param matchers: further ones, such as `status=~"5.."`.
    :param during: a range such as `1d`; empty: an instant.
    """
    selector = ",".join(('host=~"$host"', *matchers))
    return f"{metric}{{{selector}}}" + (f"[{during}]" if during else "")


def rate(metric: str, *matchers: str) -> str:
    """How much a counter grows a second."""
    return f"rate({of(metric, *matchers, during='$__rate_interval')})"


def grown(metric: str, *matchers: str, during: str = "1d") -> str:
    """How much a counter has grown, of all hosts together; 0 where there is none yet."""
    return f"(sum(increase({of(metric, *matchers, during=during)})) or vector(0))"


def total(expr: str) -> str:
    """The sum of all series."""
    return f"sum({expr})"


def by(labels: str, expr: str) -> str:
    """The sum of what has the same labels."""
    return f"sum by ({labels}) ({expr})"


def buckets(metric: str, *matchers: str) -> str:
    """The observations of a histogram in each of its buckets, as a heatmap wants them."""
    series = of(f"{metric}_bucket", *matchers, during="$__rate_interval")
    return by("le", f"increase({series})")


def quantiles(metric: str, *matchers: str) -> list[Query]:
    """P50, P95 and P99 of a histogram."""
    series = by("le", rate(f"{metric}_bucket", *matchers))
    return [
        Query(f"histogram_quantile({share}, {series})", name)
        for share, name in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
    ]

"""No panel is empty: every query of every dashboard, against the lab's Prometheus after some traffic."""

from __future__ import annotations

import time

import pytest

from bitrix_cdn.dashboards import Options, files
from bitrix_cdn.dashboards.queries import Query, queries
from bitrix_cdn.settings import Settings
from dev.lab.site import Picture
from tests.kit.hosts import BROWSER, OLD_BROWSER, Cdn, Shop
from tests.kit.support import Remote, wait_until

QUERIES = list(queries(files(Options())))

EXCEPTIONS = {
    ("bitrix-cdn-hosts", "Drift"): "only the operator's own timer tells of it, and the lab has none"
}
"""Panels that say in words that there is no data: dashboard and title, and why."""

# As a panel asks, over the time since `start`. What is no number, such as the percentile of nothing, is no
# data.
_ASK = """
import json, math, time, urllib.error, urllib.parse, urllib.request
port, start, expressions = arguments
result = []
for expr in expressions:
    asked = {"query": expr, "start": start, "end": time.time(), "step": 15}
    url, body = f"http://127.0.0.1:{port}/api/v1/query_range", urllib.parse.urlencode(asked).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            series = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        result.append(error.read().decode())
        continue
    values = [float(value) for one in series for _, value in one["values"]]
    result.append("" if any(map(math.isfinite, values)) else f"no data in {len(series)} series")
"""


class Prometheus:
    """The lab's Prometheus, asked on its own host."""

    def __init__(self, remote: Remote, settings: Settings) -> None:
        self._remote = remote
        self._port: int = settings.monitoring.prometheus.port

    def empty(self, asked: list[Query], since: float) -> dict[Query, str]:
        """Those of the queries that give nothing, and why.

        :param since: seconds since 1970 on that host.
        """
        said = self._remote.python(_ASK, self._port, since, [query.expr for query in asked], timeout=300)
        return {query: why for query, why in zip(asked, said, strict=True) if why}

    def now(self) -> float:
        seconds: float = self._remote.python("import time\nresult = time.time()")
        return seconds


def visit(cdn: Cdn, pictures: list[Picture]) -> None:
    """What a page of pictures asks for: browsers old and new, twice, and one picture that isn't there."""
    for accept in (BROWSER, OLD_BROWSER, BROWSER):
        for picture in pictures:
            cdn.get(picture, accept)
    cdn.client.get("/upload/iblock/e2e/there-is-none.jpg")


@pytest.mark.timeout(600)
def test_no_panel_is_empty(cdn: Cdn, shop: Shop, settings: Settings) -> None:
    prometheus = Prometheus(cdn.remote, settings)
    start = prometheus.now() - 60
    resized = [shop.resized() for _ in range(6)]
    for picture in resized:
        cdn.as_webp(picture)
    pictures: list[Picture] = [*resized, *shop.originals]
    wanted = [query for query in QUERIES if (query.dashboard, query.panel) not in EXCEPTIONS]
    assert len(wanted) > 100

    def look() -> list[str]:
        # Again and again: a counter that has just appeared grows only with the next visit.
        visit(cdn, pictures)
        empty = prometheus.empty(wanted, start)
        return [f"{query.dashboard}, {query.panel}: {query.expr}: {why}" for query, why in empty.items()]

    # Some scrapes, and the rules that are evaluated from them.
    wait_until("data in every panel", look, lambda empty: not empty, timeout=300, interval=10)


def test_an_exception_has_a_reason(cdn: Cdn, settings: Settings) -> None:
    excepted = [query for query in QUERIES if (query.dashboard, query.panel) in EXCEPTIONS]
    assert len({(query.dashboard, query.panel) for query in excepted}) == len(EXCEPTIONS)
    prometheus = Prometheus(cdn.remote, settings)
    # Not what another test's fault has left in the last hour.
    filled = set(excepted) - set(prometheus.empty(excepted, prometheus.now() - 30))
    assert not filled, "there is data now: take it from the exceptions"


def test_a_query_that_gives_nothing_is_noticed(cdn: Cdn, settings: Settings) -> None:
    prometheus = Prometheus(cdn.remote, settings)
    missing = Query("none", "none", "there_is_no_such_metric")
    broken = Query("none", "none", "sum(")
    nothing = Query("none", "none", "vector(NaN)")
    there = Query("none", "none", "vector(1)")
    found = prometheus.empty([missing, broken, nothing, there], time.time() - 60)
    assert set(found) == {missing, broken, nothing}
    assert "parse error" in found[broken]

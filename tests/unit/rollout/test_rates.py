"""Whether a change made errors more frequent."""

import pytest
from scipy.stats import binomtest

from bitrix_cdn.rollout.rates import NOTHING, Count, chance, counters, described, since, worse


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Count(1000, 0), Count(1000, 0)),
        (Count(1000, 0), Count(1000, 2)),  # a single one happens
        (Count(10_000, 100), Count(10_000, 120)),  # as bad as before
        (Count(100_000, 40), Count(1000, 2)),
        (Count(1000, 900), Count(1000, 950)),  # broken before and after
        (NOTHING, Count(1000, 10)),  # nothing to compare with
        (Count(1000, 0), NOTHING),  # no visitor came
        (NOTHING, NOTHING),
    ],
)
def test_no_worse(before: Count, after: Count) -> None:
    assert not worse(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Count(1000, 0), Count(1000, 8)),
        (Count(10_000, 0), Count(1000, 3)),
        (Count(10_000, 100), Count(10_000, 150)),
        (Count(1_000_000, 100), Count(10_000, 10)),
        (Count(1000, 0), Count(10, 10)),
        (NOTHING, Count(10, 6)),
    ],
)
def test_worse(before: Count, after: Count) -> None:
    assert worse(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Count(1000, 3), Count(500, 9)),
        (Count(70_000, 900), Count(30_000, 420)),
        (Count(5_000_000, 60_000), Count(1000, 13)),
        (Count(100, 0), Count(100, 5)),
    ],
)
def test_the_chance_is_that_of_the_exact_binomial_test(before: Count, after: Count) -> None:
    share = after.tried / (before.tried + after.tried)
    expected = binomtest(int(after.failed), int(before.failed + after.failed), share, "greater").pvalue
    assert chance(before, after) == pytest.approx(expected, rel=1e-6)


def test_counters_that_began_anew_count_from_nothing() -> None:
    assert since(Count(100, 5), Count(130, 6)) == Count(30, 1)
    assert since(Count(100, 5), Count(30, 1)) == Count(30, 1)
    assert since(Count(100, 5), Count(130, 1)) == Count(130, 1)


def test_what_exporters_say_is_counted() -> None:
    edge = (
        "# TYPE edge_requests_total counter\n"
        'edge_requests_total{cache="hit",kind="original",prog="edge.mtail",status="200",variant="webp"} 90\n'
        'edge_requests_total{cache="none",kind="original",prog="edge.mtail",status="404",variant="none"} 4\n'
        'edge_requests_total{cache="none",kind="original",prog="edge.mtail",status="503",variant="none"} 6\n'
        'edge_response_bytes_total{kind="original",variant="webp"} 1e+06\n'
    )
    converter = (
        "# TYPE webp_converter_pictures_total counter\n"
        'webp_converter_pictures_total{outcome="webp"} 40.0\n'
        'webp_converter_pictures_total{outcome="keep"} 7.0\n'
        "# TYPE webp_converter_worker_failures_total counter\n"
        "webp_converter_worker_failures_total 3.0\n"
    )
    assert counters({"requests": edge, "conversions": converter}) == {
        "requests": Count(100, 6),
        "conversions": Count(50, 3),
    }


def test_an_exporter_that_has_seen_nothing_yet_is_no_missing_one() -> None:
    assert counters({"requests": ""}) == {"requests": NOTHING}
    assert counters({}) == {}


def test_counts_are_said_with_their_share() -> None:
    assert described(Count(4000, 10)) == "10 of 4,000 (0.25%)"
    assert described(NOTHING) == "none of 0"

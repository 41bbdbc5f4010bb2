"""Statistics on a real Redis."""

from __future__ import annotations

import math
import time

import pytest
import redis
from converter_app.tests.harness import RedisServer, wait_until
from hypothesis import given
from hypothesis import strategies as st

from webp_converter.config import Cache
from webp_converter.picture.images import Reason
from webp_converter.variants.eviction import Count, Eviction, Why
from webp_converter.variants.statistics import Day, Known, Picture, Statistics, Sums, Totals
from webp_converter.variants.store import FAILED, Mark

PATH = b"/a/\xff\n photo.jpg"


@pytest.fixture
def statistics(server: RedisServer, raw: redis.Redis) -> Statistics:
    return Statistics(Cache(**server.settings("cache"), days=3))


def converted(path: bytes = PATH, size: int = 1000, variant_bytes: int = 400) -> Picture:
    return Picture(path, Mark(size, 5, "q75", 0.9512, 12, 34), "jpeg", variant_bytes, time.time_ns())


def kept(path: bytes = PATH) -> Picture:
    return Picture(path, Mark(500, 5, "no-saving"), "png", 0, time.time_ns())


def failed(path: bytes = PATH) -> Picture:
    return Picture(path, Mark(700, 5, FAILED), "", 0, time.time_ns())


def sums(totals: Totals) -> Sums:
    """Those of all formats."""
    return Sums(**totals.model_dump(include=set(Sums.model_fields)))


def test_nothing_yet(statistics: Statistics) -> None:
    totals = statistics.totals(30)
    assert totals == Totals()
    assert totals.success_rate is None


def test_what_is_known_of_a_picture(statistics: Statistics) -> None:
    statistics.remember([converted(), kept(b"/b")])
    known = statistics.picture(PATH)
    sizes = {"original_bytes": 1000, "variant_bytes": 400}
    assert known == Known(verdict="q75", format="jpeg", **sizes, ssim=0.9512, latency_ms=12, encode_ms=34)
    other = statistics.picture(b"/b")
    assert other is not None
    assert (other.verdict, other.ssim) == ("no-saving", None)
    assert statistics.picture(b"/c") is None


def test_totals_by_format_and_day(statistics: Statistics) -> None:
    statistics.remember([converted(b"/1"), converted(b"/2", 2000, 600), kept(b"/3")])
    statistics.remember([failed(b"/4")])
    totals = statistics.totals(1)
    assert sums(totals) == Sums(converted=2, kept=1, failed=1, original_bytes=3000, variant_bytes=1000)
    assert totals.formats == {
        "-": Sums(failed=1),
        "jpeg": Sums(converted=2, original_bytes=3000, variant_bytes=1000),
        "png": Sums(kept=1),
    }
    assert totals.saved_bytes == 2000
    assert totals.success_rate == 0.75
    [day] = totals.days.values()
    assert day == Day(converted=2, kept=1, failed=1, original_bytes=3000, variant_bytes=1000, decisions=4)
    assert abs(totals.since - time.time()) < 60


def test_a_picture_counts_once_as_what_it_is_now(statistics: Statistics) -> None:
    statistics.remember([converted()])
    statistics.remember([converted(size=3000, variant_bytes=900)])
    assert sums(statistics.totals()) == Sums(converted=1, original_bytes=3000, variant_bytes=900)
    statistics.remember([kept()])
    assert sums(statistics.totals()) == Sums(kept=1)
    assert statistics.totals().formats == {"png": Sums(kept=1)}
    [day] = statistics.totals(1).days.values()
    assert (day.decisions, day.again, day.converted, day.kept) == (3, 2, 2, 1)


def test_twice_in_one_batch(statistics: Statistics) -> None:
    statistics.remember([converted(), converted()])
    assert sums(statistics.totals()) == Sums(converted=1, original_bytes=1000, variant_bytes=400)


def test_what_is_gone_no_longer_counts(statistics: Statistics) -> None:
    statistics.remember([converted(), kept(b"/b")])
    statistics.forget([PATH, b"/never-seen"])
    statistics.forget([PATH])
    assert sums(statistics.totals()) == Sums(kept=1)
    assert statistics.picture(PATH) is None


def test_evictions_count_for_themselves(statistics: Statistics) -> None:
    statistics.remember([converted()])
    eviction = Eviction()
    eviction.evicted[Why.AGE] = Count(files=1, bytes=4096)
    eviction.evicted[Why.SPACE] = Count(files=2, bytes=8192)
    statistics.evicted(eviction)
    statistics.remember([converted()])
    totals = statistics.totals(1)
    assert sums(totals) == Sums(converted=1, original_bytes=1000, variant_bytes=400)
    assert (totals.evicted, totals.evicted_bytes) == (3, 12288)
    [day] = totals.days.values()
    assert (day.evicted, day.evicted_bytes, day.again) == (3, 12288, 1)


def test_days_are_kept_as_long_as_the_setting_says(statistics: Statistics, raw: redis.Redis) -> None:
    raw.hset("webp:days", mapping={"2020-01-01:converted": 1, "2020-01-01:decisions": 1})
    statistics.remember([converted()])
    days = statistics.totals(10).days
    assert len(days) == 1
    assert "2020-01-01" not in days


def test_after_the_sums_were_lost_nothing_is_taken_from_them(
    statistics: Statistics, raw: redis.Redis
) -> None:
    earlier = converted()._replace(published_ns=time.time_ns() - 10**12)
    statistics.remember([earlier])
    raw.delete("webp:totals", "webp:totals:spare")
    statistics.remember([kept()])
    assert sums(statistics.totals()) == Sums(kept=1)


@pytest.mark.parametrize("form", ["jpeg", "animation"])
@pytest.mark.parametrize("verdict", [*(reason.value for reason in Reason), "q100"])
def test_the_largest_entry_is_small_enough_to_be_packed(form: str, verdict: str) -> None:
    """Redis packs a hash while no value has more than 64 bytes."""
    is_variant = verdict.startswith("q")
    mark = Mark(67_108_864, 2**62, verdict, 0.9999 if is_variant else math.nan, 10**12, 3_600_000)
    picture = Picture(PATH, mark, "jpeg" if is_variant else form, 60_397_977 if is_variant else 0, 2**61)
    assert len(picture.pack()) <= 64


@given(
    st.sampled_from(["q0", "q75", "no-saving", FAILED]),
    st.sampled_from(["", "jpeg", "png"]),
    st.integers(0, 2**30),
    st.integers(0, 2**30),
    st.one_of(st.just(math.nan), st.integers(-9999, 9999).map(lambda n: n / 10_000)),
    st.integers(0, 10**8),
)
def test_an_entry_says_what_was_put_in(
    verdict: str, form: str, size: int, variant_bytes: int, ssim: float, ms: int
) -> None:
    mark = Mark(size, 0, verdict, ssim, ms, ms)
    known = Known.parse(Picture(PATH, mark, form, variant_bytes, 10**18).pack())
    assert known == Known(
        verdict=verdict,
        format=form or None,
        original_bytes=size,
        variant_bytes=variant_bytes or None,
        ssim=None if math.isnan(ssim) else ssim,
        latency_ms=ms,
        encode_ms=ms,
    )


@given(st.binary(max_size=70))
def test_what_others_wrote_is_nothing(text: bytes) -> None:
    assert Known.parse(text) is None


@pytest.mark.parametrize(
    "lost", [("totals", "days"), ("totals:spare", "days:spare"), ("totals", "days:spare")]
)
def test_one_copy_of_the_sums_may_be_lost(
    statistics: Statistics, raw: redis.Redis, lost: tuple[str, ...]
) -> None:
    statistics.remember([converted(b"/1")])
    raw.delete(*(f"webp:{name}" for name in lost))
    assert statistics.totals().converted == 1
    statistics.remember([converted(b"/2")])
    raw.delete("webp:totals", "webp:days")
    totals = statistics.totals(1)
    assert totals.converted == 2
    assert [day.converted for day in totals.days.values()] == [2]


def test_redis_away_and_back(redis_server: RedisServer) -> None:
    statistics = Statistics(Cache(url=redis_server.url))
    statistics.remember([converted(b"/1")])
    redis_server.kill()
    statistics.remember([converted(b"/2")])
    assert not statistics.available
    redis_server.start()
    wait_until(statistics.check)
    statistics.remember([converted(b"/3")])
    assert statistics.totals().converted == 2


def test_a_picture_is_removed_for_the_first_time_once(redis_server: RedisServer) -> None:
    statistics = Statistics(Cache(url=redis_server.url))
    assert [statistics.is_first_removal(path) for path in (PATH, PATH, b"/other")] == [True, False, True]
    redis_server.kill()
    assert not statistics.is_first_removal(b"/third")


def test_what_redis_forgets_first_is_not_the_sums(redis_server: RedisServer) -> None:
    """200,000 pictures where there is room for some of them: the sums know them all."""
    raw = redis.Redis(unix_socket_path=str(redis_server.socket))
    raw.config_set("appendonly", "no")
    raw.config_set("maxmemory-policy", "allkeys-lru")
    raw.config_set("maxmemory", 6 << 20)
    statistics = Statistics(Cache(url=redis_server.url))
    for first in range(0, 200_000, 500):
        statistics.remember([converted(b"/%d.jpg" % k) for k in range(first, first + 500)])
        assert statistics.available
    assert raw.info("stats")["evicted_keys"] > 1000
    assert sums(statistics.totals()) == Sums(
        converted=200_000, original_bytes=200_000_000, variant_bytes=80_000_000
    )


def test_a_million_pictures_fit(redis_server: RedisServer) -> None:
    """Measured on a tenth of them: what a picture takes only falls with their number."""
    raw = redis.Redis(unix_socket_path=str(redis_server.socket))
    raw.config_set("appendonly", "no")
    before = raw.info("memory")["used_memory_dataset"]
    statistics = Statistics(Cache(url=redis_server.url))
    name = b"/var/www/cdn/upload/resize_cache/iblock/1a2/450_450_1/%d.jpg"
    for first in range(0, 100_000, 2000):
        statistics.remember([converted(name % k, 123_456, 45_678) for k in range(first, first + 2000)])
    each = (raw.info("memory")["used_memory_dataset"] - before) / 100_000
    assert 20 < each < 200

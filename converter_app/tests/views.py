"""Views of the status page, made of values: where all is well, where nothing is, and at a daemon's start."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from webp_converter.api.background_query import QueryResult
from webp_converter.api.models import Disk, Status
from webp_converter.api.page import Queue, View
from webp_converter.events.scanner import LastScan
from webp_converter.queue.jobs import Letter, Overview, PutOff, Running, Waiting
from webp_converter.queue.latest_jobs import Conversion
from webp_converter.variants.originals import OriginStatus
from webp_converter.variants.statistics import Day, Totals
from webp_converter.work.health import Health, Part
from webp_converter.work.housekeeper import LastEviction

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC).timestamp()
TREE = "/var/www/cdn/upload/resize_cache"
PARTS = ("queue", "cache", "watch", "pool", "disk")
HOSTILE = b"\"'><script>alert(1)<img src=x onerror=alert(2)> & &amp; \xff\xfe\n\xe2\x80\xae.jpg"
SHOWN = "\"'><script>alert(1)<img src=x onerror=alert(2)> & &amp; \\xff\\xfe\\n\\u202e.jpg"

REFUSED = "Error 111 connecting to 127.0.0.1:6380. Connection refused."
PROBLEMS = {
    "queue": f"Redis is away: {REFUSED}",
    "cache": "Redis is away",
    "watch": "no inotify watches left: raise fs.inotify.max_user_watches",
    "pool": "workers don't start: [Errno 11] Resource temporarily unavailable",
    "disk": "12 MiB free, 512 MiB wanted",
}


def works() -> View:
    """A daemon that has worked for a day, and gave up two pictures."""
    directory = f"{TREE}/iblock/1a2/450_450_1"
    letters = [
        Letter(
            id=f"{int(NOW - age_s) * 1000}-0",
            path=f"{directory}/{os.fsdecode(name)}",
            reason=reason,
            tries=tries,
            given_up_at=int(NOW - age_s),
            consumer="cdn",
            traceback="",
            asked_at=0,
        )
        for name, reason, tries, age_s in (
            (b"photo.jpg", "worker crashed (SIGKILL)", 3, 70),
            (HOSTILE, "not done after 30 s", 1, 400_000),
        )
    ]
    overview = Overview(
        streams={
            "high": Waiting(length=3, under_way=1, oldest_s=2.5),
            "normal": Waiting(length=1234, under_way=2, oldest_s=150.0),
            "low": Waiting(length=0, under_way=0, oldest_s=None),
        },
        consumers=[],
        running=[Running(path=f"{directory}/now.png", priority="high", consumer="cdn", idle_s=0.4)],
        later=7,
        next=[PutOff(path="/later.jpg", due_s=9.5, tries=1)],
        dead=25,
    )
    day = Day(
        converted=1200, kept=30, failed=2, original_bytes=80 << 20, variant_bytes=35 << 20, decisions=1232
    )
    conversions = [
        _conversion("a", f"{directory}/{os.fsdecode(HOSTILE)}", "q75", 0.9612, "jpeg", 41_000, None, NOW - 9),
        _conversion("b", f"{TREE}/logo.png", "q0", None, "png", 70_000, 12_000, NOW - 700),
        _conversion("c", "/var/cache/webp/upload/x.bmp", "q90", 0.99, "bmp", 90_000, None, NOW - 90_000),
    ]
    return _view(
        _status(
            {},
            last_scan=LastScan(
                finished_at=NOW - 4000, originals=104_000, queued=12, removed=3, complete=True, seconds=4.2
            ),
            last_eviction=LastEviction(
                finished_at=NOW - 300_000,
                pictures=9000,
                age_files=1200,
                age_bytes=5 << 20,
                space_files=3,
                space_bytes=1 << 20,
                refused=0,
                missing_bytes=0,
                seconds=1.0,
            ),
            originals=OriginStatus(tried_at=NOW - 30, problem=""),
        ),
        queue=QueryResult(Queue(overview, letters)),
        totals=QueryResult(
            Totals(
                converted=52_000,
                kept=3100,
                failed=25,
                original_bytes=3 << 30,
                variant_bytes=1 << 30,
                since=1,
                days={"2026-11-28": day, "2026-11-20": day},
            )
        ),
        rates=(12, 3456),
        conversions=conversions,
    )


def fails() -> View:
    """A daemon none of whose parts works, and whose Redis is away."""
    before = works()
    assert before.queue.value
    return _view(
        _status(
            PROBLEMS,
            last_scan=LastScan(
                finished_at=NOW - 4000, originals=104_000, queued=12, removed=3, complete=False, seconds=400
            ),
            last_eviction=LastEviction(
                finished_at=NOW - 7000,
                pictures=9000,
                age_files=12,
                age_bytes=512,
                space_files=0,
                space_bytes=0,
                refused=0,
                missing_bytes=7 << 20,
                seconds=1.0,
            ),
            originals=OriginStatus(tried_at=NOW - 3, problem="away a moment ago"),
        ),
        queue=QueryResult(before.queue.value, "Redis is away", 90.0),
        totals=QueryResult(before.totals.value, "no answer after 0.5 s", 8000.0),
        rates=(0, 0),
        conversions=before.conversions,
        signed_in=True,
        refresh_s=30,
    )


def starts() -> View:
    """A daemon that has just started, and knows nothing yet."""
    return _view(
        _status(
            dict.fromkeys(("queue", "watch"), "starting"),
            last_scan=None,
            last_eviction=None,
            originals=OriginStatus(tried_at=None, problem=""),
            scanning=True,
        ),
        queue=QueryResult(None, "Redis is away"),
        totals=QueryResult(None, "Redis is away"),
        rates=(0, 0),
        conversions=[],
    )


def idle() -> View:
    """A daemon that has had nothing to do."""
    streams = dict.fromkeys(("high", "normal", "low"), Waiting(length=0, under_way=0, oldest_s=None))
    return _view(
        _status(
            {},
            last_scan=None,
            last_eviction=None,
            originals=OriginStatus(tried_at=None, problem=""),
            status="failed",
        ),
        queue=QueryResult(
            Queue(Overview(streams=streams, consumers=[], running=[], later=0, next=[], dead=0), [])
        ),
        totals=QueryResult(Totals()),
        rates=(0, 0),
        conversions=[],
        signed_in=True,
    )


def _conversion(
    id: str,
    path: str,
    verdict: str,
    ssim: float | None,
    form: str,
    variant_bytes: int,
    avif_bytes: int | None,
    at: float,
) -> Conversion:
    return Conversion(
        id=id,
        path=path,
        format=form,
        original_bytes=120_000,
        variant_bytes=variant_bytes,
        avif_bytes=avif_bytes,
        verdict=verdict,
        ssim=ssim,
        encode_ms=1250,
        latency_ms=900,
        published_at=at,
    )


def _status(
    problems: dict[str, str],
    *,
    last_scan: LastScan | None,
    last_eviction: LastEviction | None,
    originals: OriginStatus,
    scanning: bool = False,
    status: str = "",
) -> Status:
    parts = {
        name: Part(status="degraded" if name in problems else "ok", reason=problems.get(name, ""))
        for name in PARTS
    }
    return Status(
        health=Health(
            status=status or ("degraded" if problems else "ok"),
            parts=parts,
            scanning=scanning,
            directories=12_345,
            running=3,
            queue={},
        ),
        consumer="cdn",
        version="0.1.0",
        release="20261128-1",
        uptime_s=90_061.0,
        disks=[Disk(tree=TREE, used_bytes=10 << 30, available_bytes=25 << 30, share=2 / 7)],
        originals=originals,
        last_scan=last_scan,
        last_eviction=last_eviction,
    )


def _view(
    status: Status,
    *,
    queue: QueryResult[Queue],
    totals: QueryResult[Totals],
    rates: tuple[int, int],
    conversions: list[Conversion],
    signed_in: bool = False,
    refresh_s: int = 0,
) -> View:
    return View(
        now=NOW,
        status=status,
        queue=queue,
        totals=totals,
        rates=rates,
        conversions=conversions,
        trees=(os.fsencode(TREE), b"/var/cache/webp"),
        signed_in=signed_in,
        refresh_s=refresh_s,
    )

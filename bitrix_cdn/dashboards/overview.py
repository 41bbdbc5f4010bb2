"""Is it well, does it keep its promises, and what does it save?"""

from __future__ import annotations

from bitrix_cdn.dashboards.panels import FAULT, UP, Board, Options, Query, Unit, at_least, at_most
from bitrix_cdn.dashboards.promql import ALERTS, by, grown, of, quantiles, rate
from bitrix_cdn.dashboards.targets import BUDGET, FAST_S, SIMILAR

PICTURES = 'kind=~"resized|original"'


def board(options: Options) -> Board:
    board = Board(
        "bitrix-cdn-overview",
        "CDN: overview and service levels",
        "Is the CDN well, does it keep its promises, and what does it save?",
        options=options,
        hosts='up{job="edge"}',
    )
    board.value("price", "Price of a GB", f"{options.price:g}")
    _now(board)
    _promises(board)
    _budgets(board)
    _savings(board)
    _traffic(board)
    return board


def _now(board: Board) -> None:
    board.row("Now")
    board.stat(
        "Alerts",
        "Alerts that fire now, of all severities. Which: the table below.",
        Query(f"count({ALERTS}) or vector(0)", "firing"),
        unit=Unit.PLAIN,
        limit=at_most(1),
    )
    board.stat(
        "Silent targets",
        "Targets that Prometheus asks and gets no answer from. What they tell is missing below.",
        Query("count(up == 0) or vector(0)", "silent"),
        unit=Unit.PLAIN,
        limit=at_most(1),
    )
    board.stat(
        "Converter",
        "Parts of the converter that don't work: its queue, cache, watch, pool of workers or disk.",
        Query(f"count({of('webp_converter_part_up')} == 0) or vector(0)", "broken parts"),
        unit=Unit.PLAIN,
        limit=at_most(1),
    )
    board.stat(
        "Mounts",
        "Whether both sshfs mounts are over their real paths.",
        Query("min(mount_guard_up)", "both"),
        unit=Unit.PLAIN,
        words=UP,
    )
    board.stat(
        "A visitor's picture",
        "Whether a picture that is asked for from outside comes as WebP.",
        Query('min(probe_success{probe="webp"})', "as WebP"),
        unit=Unit.PLAIN,
        words=UP,
    )
    board.stat(
        "Certificate",
        "How long the certificate that visitors meet still holds.",
        Query("min(probe_ssl_earliest_cert_expiry) - time()", "holds for"),
        unit=Unit.SECONDS,
        limit=at_least(7 * 86_400, warning=21 * 86_400),
        none="no TLS",
    )
    board.table(
        "Firing",
        "Each alert that fires, and for how many targets.",
        f"count by (alertname, severity, host) ({ALERTS})"
        ' or on() label_replace(vector(0), "alertname", "none", "", "")',
        unit=Unit.PLAIN,
        labels=["alertname", "severity", "host"],
        width=24,
    )


def _promises(board: Board) -> None:
    board.row("Service levels")
    board.stat(
        "Availability",
        f"Requests not answered with 5xx, in the last hour. Promised: {board.levels.availability:.1%} over "
        f"{BUDGET}.",
        Query(of("cdn:availability:ratio_rate1h"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.availability),
        decimals=3,
    )
    board.stat(
        "Fast pictures",
        f"Pictures sent within {FAST_S * 1000:.0f} ms, in the last hour. "
        f"Promised: {board.levels.fast:.0%}, so that their P95 is no more than that.",
        Query(of("cdn:latency_ok:ratio_rate1h"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.fast),
        decimals=2,
    )
    board.stat(
        "Cache hits",
        "Of what goes through Varnish, what it answered by itself, in the last hour. "
        f"Promised: {board.levels.cache_hit:.0%}.",
        Query(f"avg_over_time({of('cdn:cache_hit:ratio_rate5m', during='1h')})", "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.cache_hit),
        decimals=1,
    )
    board.stat(
        "Conversions",
        "Pictures decided about, of these and those given up, in the last hour. "
        f"Promised: {board.levels.conversion_success:.0%}.",
        Query(of("cdn:conversion_success:ratio_rate1h"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.conversion_success),
        decimals=1,
    )
    board.stat(
        "Saving",
        f"What variants save of the bytes of their originals. Promised: {board.levels.saving:.0%}.",
        Query(of("cdn:saving:ratio"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.saving),
        decimals=1,
    )
    board.stat(
        "Likeness",
        f"Variants published in the last day whose structural similarity is above {board.levels.ssim}. "
        f"Promised: {SIMILAR:.0%} of them, with the encoding policy `ssim`.",
        Query(of("cdn:ssim:ratio_rate1d"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(SIMILAR),
        decimals=1,
    )


def _sums(metric: str) -> str:
    """What a recorded rate added up to while a budget was spent."""
    return f"sum_over_time({of(metric, during=BUDGET)})"


def _budgets(board: Board) -> None:
    board.row("Error budgets")
    failed, asked = (_sums(f"cdn:{what}:rate5m") for what in ("errors", "requests"))
    fast, pictures = (_sums(f"cdn:{what}:rate5m") for what in ("fast_pictures", "pictures"))
    for title, bad, target, what in (
        ("Availability left", f"{failed} / ({asked} > 0)", board.levels.availability, "requests may fail"),
        ("Fast pictures left", f"(1 - {fast} / ({pictures} > 0))", board.levels.fast, "pictures may be slow"),
    ):
        board.stat(
            title,
            f"What is left of the error budget of {BUDGET}: {1 - target:.1%} of {what}. "
            "Below 0 the promise is broken.",
            Query(f"1 - {bad} / (1 - {target})", "{{host}}"),
            unit=Unit.SHARE,
            limit=at_least(0, warning=0.25),
            decimals=1,
            width=6,
        )
    board.stat(
        "P95 of pictures",
        f"Of requests in the last five minutes; resized pictures and originals. At most {FAST_S} s.",
        Query(f"max by (kind) ({of('cdn:request_seconds:p95_5m', PICTURES)} >= 0)", "{{kind}}"),
        unit=Unit.SECONDS,
        limit=at_most(FAST_S),
        width=6,
        none="no visitors",
    )
    board.stat(
        "P99 of publishing",
        "From close-write to published, pictures of the last five minutes. "
        f"Promised: within {board.levels.publish_s:g} s.",
        Query(f"max by (host) ({of('cdn:publish_seconds:p99_5m')} >= 0)", "{{host}}"),
        unit=Unit.SECONDS,
        limit=at_most(board.levels.publish_s),
        width=6,
        none="no pictures",
    )
    for title, metric, target in (
        ("Burn rate of availability", "cdn:availability", board.levels.availability),
        ("Burn rate of fast pictures", "cdn:latency_ok", board.levels.fast),
    ):
        board.lines(
            title,
            f"How fast the budget is spent: at 1 it lasts exactly {BUDGET}, at 14.4 for two days. "
            "The dashed lines are at 1 and 14.4.",
            *(
                Query(
                    f"(1 - {of(f'{metric}:ratio_rate{window}')}) / (1 - {target})", f"{{{{host}}}} {window}"
                )
                for window in ("5m", "1h", "6h", "3d")
            ),
            unit=Unit.PLAIN,
            limit=at_most(14.4, warning=1),
        )


def _savings(board: Board) -> None:
    board.row("Saved")
    saved = f"{grown('webp_converter_original_bytes_total')} - {grown('webp_converter_variant_bytes_total')}"
    modern = grown("edge_response_bytes_total", 'variant=~"webp|avif"')
    # Of what was sent as a variant, the original would have been 1 / (1 - saving) as much.
    spared = f"{modern} * on() (avg({of('cdn:saving:ratio')}) / (1 - avg({of('cdn:saving:ratio')})))"
    board.stat(
        "Traffic spared a day",
        "What visitors did not have to load in the last 24 hours: what they loaded as WebP or AVIF, against "
        "the same pictures as originals. An estimate from the average saving.",
        Query(spared, "spared"),
        unit=Unit.BYTES,
        width=6,
    )
    board.stat(
        "Money spared a day",
        "The same at the price of a GB (at the top), in your currency.",
        Query(f"{spared} / 1e9 * $price", "spared"),
        unit=Unit.PLAIN,
        decimals=2,
        width=6,
    )
    board.stat(
        "Disk spared a day",
        "Bytes by which the variants of the last 24 hours are smaller than their originals.",
        Query(saved, "smaller"),
        unit=Unit.BYTES,
        width=6,
    )
    board.stat(
        "Pictures a day",
        "Pictures that got a variant in the last 24 hours, and those whose original is best.",
        Query(grown("webp_converter_pictures_total", 'outcome="webp"'), "WebP"),
        Query(grown("webp_converter_pictures_total", 'outcome="keep"'), "original is best"),
        unit=Unit.COUNT,
        decimals=0,
        width=6,
    )
    board.days(
        "Bytes of pictures, by day",
        "Originals that got a variant, and their variants, as they were converted.",
        Query(grown("webp_converter_original_bytes_total"), "originals"),
        Query(grown("webp_converter_variant_bytes_total"), "variants"),
        unit=Unit.BYTES,
    )
    board.days(
        "Sent to visitors, by day",
        "Bytes of answers, by the variant that was sent.",
        Query(by("variant", f"increase({of('edge_response_bytes_total', during='1d')})"), "{{variant}}"),
        unit=Unit.BYTES,
    )


def _traffic(board: Board) -> None:
    board.row("Traffic")
    board.lines(
        "Requests by variant",
        "What was sent: `pending` is an original whose variant is still to come.",
        Query(by("variant", rate("edge_requests_total")), "{{variant}}"),
        unit=Unit.REQUESTS,
        stacked=True,
        width=8,
    )
    board.lines(
        "Time of pictures",
        "From the first byte of the request to the last of the answer, so slow clients count.",
        *quantiles("edge_request_seconds", PICTURES),
        unit=Unit.SECONDS,
        limit=at_most(FAST_S),
        width=8,
    )
    board.lines(
        "Waiting and given up",
        "Jobs that wait or are under way, by stream; `dead` is what was given up.",
        Query(by("stream", of("webp_converter_queue_length")), "{{stream}}"),
        unit=Unit.COUNT,
        width=8,
    )
    board.timeline(
        "Probes from outside",
        "What a visitor would have got: a picture as WebP, as original, the certificate, the site.",
        Query("min by (probe) (probe_success)", "{{probe}}"),
        words=UP,
    )
    board.timeline(
        "Pauses of the converter",
        "What keeps it from taking jobs: no room on the disk, or its queue away.",
        Query(f"max by (why) ({of('webp_converter_paused')})", "{{why}}"),
        words=FAULT,
    )

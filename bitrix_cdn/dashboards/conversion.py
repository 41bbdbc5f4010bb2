"""Does the converter keep up, what comes out, and how good is it?"""

from __future__ import annotations

from bitrix_cdn.dashboards.panels import UP, Board, Options, Query, Unit, at_least, at_most
from bitrix_cdn.dashboards.promql import buckets, by, grown, of, quantiles, rate, total


def board(options: Options) -> Board:
    board = Board(
        "bitrix-cdn-conversion",
        "CDN: conversion",
        "Does the converter keep up, what comes out, and how good is it?",
        options=options,
        hosts='up{job="converter"}',
    )
    _queue(board)
    _outcomes(board)
    _time(board)
    _results(board)
    _housekeeping(board)
    return board


def _queue(board: Board) -> None:
    board.row("Queue and workers")
    board.lines(
        "Queue by stream",
        "Jobs that wait or are under way. `later` waits for its next try.",
        Query(by("stream", of("webp_converter_queue_length", 'stream!="dead"')), "{{stream}}"),
        unit=Unit.COUNT,
        stacked=True,
    )
    board.lines(
        "Oldest job by stream",
        "How long the oldest job has been waiting. It grows without end when the workers don't keep up.",
        Query(f"max by (stream) ({of('webp_converter_queue_oldest_seconds')})", "{{stream}}"),
        unit=Unit.SECONDS,
    )
    board.lines(
        "Workers",
        "Worker processes, and how many have a job. All of them for long: the queue grows.",
        Query(total(of("webp_converter_workers")), "there"),
        Query(total(of("webp_converter_jobs_running")), "at work"),
        unit=Unit.COUNT,
    )
    board.lines(
        "Asked for by visitors",
        "Pictures queued because a visitor got less than the best of them.",
        Query(total(rate("webp_converter_asked_total")), "asked"),
        unit=Unit.PER_SECOND,
    )


def _outcomes(board: Board) -> None:
    board.row("Outcomes")
    board.stat(
        "Success in the last hour",
        "Pictures decided about, of these and those given up. "
        f"Promised: {board.levels.conversion_success:.0%}.",
        Query(of("cdn:conversion_success:ratio_rate1h"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.conversion_success),
        decimals=1,
    )
    board.stat(
        "Dead letters",
        "Pictures given up that nobody has looked at yet. The status page tries them again.",
        Query(total(of("webp_converter_queue_length", 'stream="dead"')), "dead"),
        unit=Unit.COUNT,
        limit=at_most(1),
    )
    board.stat(
        "Given up in a day",
        "Pictures given up after their last try, in the last 24 hours.",
        Query(grown("webp_converter_dead_letters_total"), "given up"),
        unit=Unit.COUNT,
        limit=at_most(100, warning=1),
        decimals=0,
    )
    board.stat(
        "Damaged in a day",
        "Resized pictures that could not be decoded whole, removed for Bitrix to make again.",
        Query(grown("webp_converter_damaged_removed_total"), "removed"),
        unit=Unit.COUNT,
        limit=at_most(100, warning=1),
        decimals=0,
    )
    board.stat(
        "Workers replaced in a day",
        "Workers that died or took too long. A few are hostile pictures; many are too little memory.",
        Query(grown("webp_converter_workers_replaced_total"), "replaced"),
        unit=Unit.COUNT,
        limit=at_most(100, warning=1),
        decimals=0,
    )
    board.stat(
        "Events lost in a day",
        "Times that the kernel lost events of the tree and a scan made up for them.",
        Query(grown("webp_converter_watch_lost_total"), "lost"),
        unit=Unit.COUNT,
        limit=at_most(10, warning=1),
        decimals=0,
    )
    board.lines(
        "Decisions by outcome",
        "What came out of each picture: `webp` has a variant, `keep` is best as it is; the others say why "
        "there is neither.",
        Query(by("outcome", rate("webp_converter_pictures_total")), "{{outcome}}"),
        unit=Unit.PER_SECOND,
        stacked=True,
    )
    board.lines(
        "Failures",
        "Tries that failed, pictures given up after the last, workers replaced.",
        Query(total(rate("webp_converter_worker_failures_total")), "failed tries"),
        Query(total(rate("webp_converter_dead_letters_total")), "given up"),
        Query(total(rate("webp_converter_workers_replaced_total")), "workers replaced"),
        unit=Unit.PER_SECOND,
    )


def _time(board: Board) -> None:
    board.row("Time")
    board.heatmap(
        "Encoding",
        "What one picture took a worker: reading, decoding, judging, encoding.",
        buckets("webp_converter_encode_seconds"),
        unit=Unit.SECONDS,
    )
    board.lines(
        "Encoding, percentiles",
        "The same as percentiles.",
        *quantiles("webp_converter_encode_seconds"),
        unit=Unit.SECONDS,
    )
    board.heatmap(
        "Publishing",
        "From close-write to published, for conversions at once.",
        buckets("webp_converter_latency_seconds"),
        unit=Unit.SECONDS,
    )
    board.lines(
        "Publishing, percentiles",
        f"The same as percentiles. Promised: P99 within {board.levels.publish_s:g} s; a burst queues up.",
        *quantiles("webp_converter_latency_seconds"),
        unit=Unit.SECONDS,
        limit=at_most(board.levels.publish_s),
    )


def _results(board: Board) -> None:
    board.row("Results")
    board.lines(
        "Bytes in and out",
        "Of originals that got a variant, and of their variants.",
        Query(total(rate("webp_converter_original_bytes_total")), "originals"),
        Query(total(rate("webp_converter_variant_bytes_total")), "variants"),
        unit=Unit.BYTES_PER_SECOND,
    )
    board.lines(
        "Saving",
        f"Share of the originals' bytes that their variants save. Promised: {board.levels.saving:.0%}.",
        Query(of("cdn:saving:ratio"), "{{host}}"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.saving),
        most=1,
    )
    board.heatmap(
        "Similarity",
        "Structural similarity of variants to their originals as they are published; 1 is lossless. None "
        "where the encoding policy doesn't measure it.",
        buckets("webp_converter_ssim"),
        unit=Unit.PLAIN,
    )
    board.lines(
        "AVIF and second passes",
        "AVIF variants beside WebP, and variants that were encoded again while idle, by what came out.",
        Query(total(rate("webp_converter_avif_total")), "AVIF"),
        Query(by("outcome", rate("webp_converter_second_pass_total")), "second pass: {{outcome}}"),
        unit=Unit.PER_SECOND,
    )


def _housekeeping(board: Board) -> None:
    board.row("Housekeeping")
    board.lines(
        "Removed variants",
        "`stale`: the original changed or went. The others: nobody read them, by the rule that took them.",
        Query(total(rate("webp_converter_stale_removed_total")), "stale"),
        Query(by("why", rate("webp_converter_evicted_total")), "{{why}}"),
        unit=Unit.PER_SECOND,
    )
    board.lines(
        "Evicted bytes",
        "What evictions freed, by rule; and what the last one could not free down to the low-water mark.",
        Query(
            by("why", f"increase({of('webp_converter_evicted_bytes_total', during='1h')})"),
            "{{why}}, an hour",
        ),
        Query(total(of("webp_converter_eviction_missing_bytes")), "missing"),
        unit=Unit.BYTES,
    )
    board.lines(
        "Scans and evictions",
        "How long the last scan of the tree and the last eviction took.",
        Query(of("webp_converter_scan_seconds"), "{{host}} scan"),
        Query(of("webp_converter_eviction_seconds"), "{{host}} eviction"),
        unit=Unit.SECONDS,
        width=8,
    )
    board.lines(
        "The tree",
        "Originals that the last scan saw, and directories that are watched.",
        Query(of("webp_converter_scan_originals"), "{{host}} originals"),
        Query(of("webp_converter_watched_directories"), "{{host}} directories"),
        unit=Unit.COUNT,
        width=8,
    )
    board.stat(
        "Scans in a day",
        "Reconcile scans completed in the last 24 hours.",
        Query(grown("webp_converter_scans_total"), "scans"),
        unit=Unit.COUNT,
        decimals=0,
        width=8,
    )
    board.timeline(
        "Parts",
        "Whether each part of the converter works.",
        Query(f"min by (part) ({of('webp_converter_part_up')})", "{{part}}"),
        words=UP,
    )

"""What do visitors get, how fast, and out of which cache?"""

from __future__ import annotations

from bitrix_cdn.dashboards.overview import PICTURES
from bitrix_cdn.dashboards.panels import UP, Board, Options, Query, Unit, at_least, at_most
from bitrix_cdn.dashboards.promql import buckets, by, of, quantiles, rate, total
from bitrix_cdn.dashboards.targets import FAST_S


def board(options: Options) -> Board:
    board = Board(
        "bitrix-cdn-delivery",
        "CDN: delivery and caches",
        "What do visitors get, how fast, and out of which cache?",
        options=options,
        hosts='up{job="edge"}',
    )
    _answers(board)
    _time(board)
    _caches(board)
    _varnish(board)
    _probes(board)
    return board


def _answers(board: Board) -> None:
    board.row("Answers")
    board.lines(
        "Requests by variant",
        "What was sent: `pending` is an original whose variant is still to come, `none` no picture.",
        Query(by("variant", rate("edge_requests_total")), "{{variant}}"),
        unit=Unit.REQUESTS,
        stacked=True,
        width=8,
    )
    board.lines(
        "Requests by status",
        "404 is a picture that isn't there; 429 somebody who asks for too many.",
        Query(by("status", rate("edge_requests_total")), "{{status}}"),
        unit=Unit.REQUESTS,
        stacked=True,
        width=8,
    )
    board.lines(
        "Requests by kind",
        "`resized` comes from local disk, `original` through Varnish from the site's host.",
        Query(by("kind", rate("edge_requests_total")), "{{kind}}"),
        unit=Unit.REQUESTS,
        stacked=True,
        width=8,
    )
    modern = total(rate("edge_requests_total", PICTURES, 'variant=~"webp|avif"'))
    pictures = total(rate("edge_requests_total", PICTURES, 'status=~"200|206|304"'))
    board.lines(
        "Share of pictures sent as a variant",
        "Of all pictures that were sent. The rest are browsers without WebP, originals that are best, and "
        "what is still to come.",
        Query(f"({modern} or vector(0)) / ({pictures} > 0)", "WebP or AVIF"),
        unit=Unit.SHARE,
        width=8,
        most=1,
    )
    errors = total(rate("edge_requests_total", 'status=~"5.."'))
    limited = total(rate("edge_requests_total", 'status="429"'))
    board.lines(
        "Errors and refusals",
        "5xx spend the error budget; 429 are clients beyond their limit.",
        Query(f"{errors} or vector(0)", "5xx"),
        Query(f"{limited} or vector(0)", "429"),
        unit=Unit.REQUESTS,
        width=8,
    )
    board.lines(
        "Bytes by variant",
        "Bodies of answers.",
        Query(by("variant", rate("edge_response_bytes_total")), "{{variant}}"),
        unit=Unit.BYTES_PER_SECOND,
        stacked=True,
        width=8,
    )


def _time(board: Board) -> None:
    board.row("Time")
    for kind, where in (("resized", "from local disk"), ("original", "through Varnish")):
        board.lines(
            f"Time of {kind} pictures",
            f"P50, P95 and P99 of pictures {where}. Slow clients count, as the time ends with the last byte.",
            *quantiles("edge_request_seconds", f'kind="{kind}"'),
            unit=Unit.SECONDS,
            limit=at_most(FAST_S),
            width=8,
        )
    board.lines(
        "Fast pictures",
        f"Share sent within {FAST_S * 1000:.0f} ms. Promised: {board.levels.fast:.0%}.",
        Query(of("cdn:latency_ok:ratio_rate5m"), "{{host}} 5m"),
        Query(of("cdn:latency_ok:ratio_rate1h"), "{{host}} 1h"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.fast),
        width=8,
        most=1,
    )
    board.heatmap(
        "Time of all pictures",
        "How many requests took how long.",
        buckets("edge_request_seconds", PICTURES),
        unit=Unit.SECONDS,
        width=24,
    )


def _caches(board: Board) -> None:
    board.row("Caches")
    board.lines(
        "Answers of Varnish",
        "What the edge got: `hit` from memory, `stale` an old copy while the site's host is away, `miss` "
        "read from the site's host.",
        Query(by("cache", rate("edge_requests_total", 'cache!="none"')), "{{cache}}"),
        unit=Unit.REQUESTS,
        stacked=True,
        width=8,
    )
    hits, misses = (total(rate(f"varnish_main_cache_{what}")) for what in ("hit", "miss"))
    board.lines(
        "Cache hits",
        f"As the edge saw it, promised {board.levels.cache_hit:.0%}; and as Varnish counts, what it fetches "
        "anew behind a visitor's back included.",
        Query(of("cdn:cache_hit:ratio_rate5m"), "{{host}}"),
        Query(f"{hits} / ({hits} + {misses} > 0)", "by Varnish's own count"),
        unit=Unit.SHARE,
        limit=at_least(board.levels.cache_hit),
        width=8,
        most=1,
    )
    board.lines(
        "nginx's connections",
        "Of the edge: at work on requests, and kept open.",
        Query(by("host", of("nginx_connections_active")), "{{host}} open"),
        Query(by("host", of("nginx_connections_waiting")), "{{host}} idle"),
        Query(by("host", of("nginx_connections_writing")), "{{host}} sending"),
        unit=Unit.COUNT,
        width=8,
    )


def _varnish(board: Board) -> None:
    board.row("Varnish")
    board.lines(
        "Memory of Varnish",
        "`s0` holds the pictures, `transient` what is only passed on.",
        Query(by("type", of("varnish_sma_g_bytes")), "{{type}} used"),
        Query(by("type", of("varnish_sma_g_space")), "{{type}} free"),
        unit=Unit.BYTES,
        width=8,
    )
    board.lines(
        "Objects of Varnish",
        "Pictures that it holds, by host.",
        Query(by("host", of("varnish_main_n_object")), "{{host}}"),
        unit=Unit.COUNT,
        width=8,
    )
    board.lines(
        "Thrown out of Varnish",
        "Pictures that had to go for others: its memory is too small (varnish.memory).",
        Query(by("host", rate("varnish_main_n_lru_nuked")), "{{host}}"),
        unit=Unit.PER_SECOND,
        width=8,
    )
    board.timeline(
        "Way to the originals",
        "Whether Varnish finds the originals readable, as its probe sees it.",
        Query(f"min by (host, backend) ({of('varnish_backend_up')})", "{{host}} {{backend}}"),
        words=UP,
    )


def _probes(board: Board) -> None:
    board.row("From outside")
    board.timeline(
        "Probes",
        "What a visitor would have got: a picture as WebP, as original, the certificate, the site.",
        Query("min by (probe) (probe_success)", "{{probe}}"),
        words=UP,
    )
    board.lines(
        "Time of probes",
        "The whole request, name and TLS included.",
        Query("max by (probe) (probe_duration_seconds)", "{{probe}}"),
        unit=Unit.SECONDS,
    )
    board.lines(
        "Certificate",
        "How long it still holds.",
        Query("min by (probe) (probe_ssl_earliest_cert_expiry) - time()", "{{probe}}"),
        unit=Unit.SECONDS,
        limit=at_least(7 * 86_400),
    )

"""The metrics for Prometheus."""

from __future__ import annotations

import math
import sys
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from webp_converter.config import Metrics as MetricsConfig
from webp_converter.queue.jobs import Priority
from webp_converter.queue.outcome import Outcome
from webp_converter.variants.eviction import Why
from webp_converter.variants.store import Result

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIMILARITIES = (0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)

PARTS = ("queue", "cache", "watch", "pool", "disk")
"""Of the daemon: what `part_up` and health tell of."""

STREAMS = (*(priority.value for priority in Priority), "later", "dead")
PAUSES = ("disk", "queue")
"""What keeps the daemon from taking jobs: no space or no store, Redis away."""

# Where nothing can be published, a result says so; otherwise the worker's outcome says why there is none.
_UNPUBLISHED = {result.name.lower() for result in Result} - {"published", "full"}
_OUTCOMES = {outcome.value for outcome in Outcome}
_DECISIONS = sorted({"webp", "keep"} | _UNPUBLISHED | _OUTCOMES - {"finished", "as-good"})
_SECOND_PASS = sorted({"improved", "failed", "full"} | _UNPUBLISHED | {"as-good", "gone"})


VERSION = version("webp-converter")


class Metrics:
    """The daemon's metrics, all named `webp_converter_...`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"webp_converter_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"webp_converter_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"webp_converter_{name}", text, registry=self.registry, buckets=buckets)

        self.pictures = counter("pictures", "Decisions about originals, by what came out", "outcome")
        self.original_bytes = counter("original_bytes", "Bytes of originals with a published variant")
        self.variant_bytes = counter("variant_bytes", "Bytes of published variants")
        self.avif = counter("avif", "AVIF variants published beside a decision")
        self.second = counter("second_pass", "Variants encoded again while idle, by what came out", "outcome")
        self.latency = histogram("latency_seconds", "From close-write to published, conversions at once only")
        self.encode = histogram("encode_seconds", "Reading, decoding, judging and encoding of one picture")
        self.ssim = histogram(
            "ssim",
            "Structural similarity to the original of each variant published: WebP, AVIF, also of a second "
            "pass; 1 is lossless; none where the policy does not measure it",
            _SIMILARITIES,
        )
        self.asked = counter("asked", "Pictures queued because a visitor got less than the best of them")
        self.failures = counter("worker_failures", "Tries that a worker failed")
        self.dead = counter("dead_letters", "Pictures given up after the last try")
        self.stale = counter("stale_removed", "Variants removed because their original changed or went")
        self.damaged = counter("damaged_removed", "Damaged resized pictures removed for Bitrix to make again")
        self.returned = counter(
            "damaged_returned", "Damaged resized pictures that came back with the same bytes, and stay"
        )
        self.copies = counter("copies_removed", "Full originals removed from the names of resized pictures")
        self.replaced = counter("workers_replaced", "Workers and their decoders that died or took too long")
        self.lost = counter("watch_lost", "Times events were lost and a scan had to make up for them")
        self.scans = counter("scans", "Reconcile scans completed")
        self.scan_seconds = gauge("scan_seconds", "Duration of the last reconcile scan")
        self.scan_originals = gauge("scan_originals", "Originals seen by the last reconcile scan")
        self.evicted = counter("evicted", "Variants removed because they were not read, by rule", "why")
        self.evicted_bytes = counter("evicted_bytes", "Bytes on disk that these took up", "why")
        self.eviction_seconds = gauge("eviction_seconds", "Duration of the last eviction")
        self.eviction_time = gauge("eviction_time_seconds", "Unix time at which the last eviction ended")
        self.eviction_missing = gauge(
            "eviction_missing_bytes", "Bytes down to the low-water mark that the last eviction could not free"
        )
        self.queue = gauge("queue_length", "Jobs in each stream, waiting or under way", "stream")
        self.oldest = gauge(
            "queue_oldest_seconds",
            "Age of the oldest job in each stream, waiting or under way; 0: none",
            "stream",
        )
        self.paused = gauge("paused", "Whether no jobs are taken from the queue, by what keeps it", "why")
        self.workers = gauge("workers", "Worker processes")
        self.running = gauge("jobs_running", "Jobs in worker processes")
        self.directories = gauge("watched_directories", "Directories watched")
        self.up = gauge("part_up", "Whether a part of the daemon works", "part")
        self._show_all()
        about = gauge("info", "What runs: 1, with version and release as labels", "version", "release")
        about.labels(VERSION, release()).set(1)

    def _show_all(self) -> None:
        """Creates each labelled series at the start: absent series can't be compared."""
        for metric, values in (
            (self.pictures, _DECISIONS),
            (self.second, _SECOND_PASS),
            (self.evicted, [why.value for why in Why]),
            (self.evicted_bytes, [why.value for why in Why]),
            (self.queue, STREAMS),
            (self.oldest, [priority.value for priority in Priority]),
            (self.paused, PAUSES),
            (self.up, PARTS),
        ):
            for value in values:
                metric.labels(value)

    def published(self, *similarities: float) -> None:
        """Takes note of the similarities of variants that were just published; NaN: it was not measured."""
        for similarity in similarities:
            if not math.isnan(similarity):
                self.ssim.observe(similarity)

    def serve(self, config: MetricsConfig) -> None:
        """Serves GET /metrics.

        :raises OSError: the port is taken.
        """
        start_http_server(config.port, config.address, registry=self.registry)


def release() -> str:
    """Id of the release that this runs from, as the deploy names it; empty: from no release."""
    try:
        return (Path(sys.prefix) / "release").read_text("utf-8").strip()
    except OSError:
        return ""

"""What Prometheus sees."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from webp_converter.config import Metrics as MetricsConfig

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The daemon's metrics, all named `webp_converter_...`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"webp_converter_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"webp_converter_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"webp_converter_{name}", text, registry=self.registry, buckets=_SECONDS)

        self.pictures = counter("pictures", "Decisions about originals, by what came out", "outcome")
        self.original_bytes = counter("original_bytes", "Bytes of originals with a published variant")
        self.variant_bytes = counter("variant_bytes", "Bytes of published variants")
        self.avif = counter("avif", "AVIF variants published beside a decision")
        self.second = counter("second_pass", "Variants encoded again while idle, by what came out", "outcome")
        self.latency = histogram("latency_seconds", "From close-write to published, conversions at once only")
        self.encode = histogram("encode_seconds", "Reading, decoding, judging and encoding of one picture")
        self.asked = counter("asked", "Pictures queued because a visitor got less than the best of them")
        self.failures = counter("worker_failures", "Tries that a worker failed")
        self.dead = counter("dead_letters", "Pictures given up after the last try")
        self.stale = counter("stale_removed", "Variants removed because their original changed or went")
        self.damaged = counter("damaged_removed", "Damaged resized pictures removed for Bitrix to make again")
        self.copies = counter("copies_removed", "Full originals removed from the names of resized pictures")
        self.replaced = counter("workers_replaced", "Workers that died or took too long, and were replaced")
        self.lost = counter("watch_lost", "Times events were lost and a scan had to make up for them")
        self.scans = counter("scans", "Reconcile scans completed")
        self.scan_seconds = gauge("scan_seconds", "Duration of the last reconcile scan")
        self.scan_originals = gauge("scan_originals", "Originals seen by the last reconcile scan")
        self.evicted = counter("evicted", "Variants removed because nobody read them, by rule", "why")
        self.evicted_bytes = counter("evicted_bytes", "Bytes on disk that these took up", "why")
        self.eviction_seconds = gauge("eviction_seconds", "Duration of the last eviction")
        self.eviction_time = gauge("eviction_time_seconds", "Unix time at which the last eviction ended")
        self.eviction_missing = gauge(
            "eviction_missing_bytes", "Bytes down to the low-water mark that the last eviction could not free"
        )
        self.queue = gauge("queue_length", "Jobs in each stream, waiting or under way", "stream")
        self.workers = gauge("workers", "Worker processes")
        self.running = gauge("jobs_running", "Jobs in worker processes")
        self.directories = gauge("watched_directories", "Directories watched")
        self.up = gauge("part_up", "Whether a part of the daemon works", "part")

    def serve(self, config: MetricsConfig) -> None:
        """Answers GET /metrics. Raises OSError when the port is taken."""
        start_http_server(config.port, config.address, registry=self.registry)

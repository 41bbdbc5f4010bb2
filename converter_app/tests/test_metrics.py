"""What Prometheus gets from a real daemon."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from importlib.metadata import version
from urllib.request import urlopen

import pytest
from converter_app.tests.harness import DaemonProcess, StartDaemon, decided, variant_of, wait_until
from prometheus_client.parser import text_string_to_metric_families
from tests.kit import pictures

from webp_converter.metrics import PARTS, PAUSES, STREAMS, Metrics
from webp_converter.variants.store import XATTR, Mark

Samples = dict[str, dict[str, float]]


def scraped(daemon: DaemonProcess) -> Samples:
    """Values by name without `webp_converter_`, then by the value of their only label, if there is one."""
    with urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix("webp_converter_")][",".join(sample.labels.values())] = (
                sample.value
            )
    return found


def test_no_series_is_absent_on_an_idle_daemon(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    wait_until(lambda: set(scraped(daemon)["part_up"].values()) == {1.0})
    health = wait_until(lambda: (told := daemon.health()) and told["queue"] and told)
    samples = scraped(daemon)
    assert set(samples["part_up"]) == set(PARTS) == set(health["parts"])
    assert set(samples["queue_length"]) == set(STREAMS) == set(health["queue"])
    assert samples["queue_oldest_seconds"] == {"high": 0, "normal": 0, "low": 0}
    assert samples["paused"] == dict.fromkeys(PAUSES, 0.0)
    assert samples["evicted_total"] == {"age": 0, "space": 0}
    assert {"webp", "keep", "changed", "damaged", "unrest"} <= set(samples["pictures_total"])
    assert set(samples["pictures_total"].values()) == {0.0}
    assert samples["second_pass_total"]["improved"] == 0
    [(about, one)] = samples["info"].items()
    assert (about, one) == (f",{version('webp-converter')}", 1)  # of no release


def test_the_similarity_of_what_is_published(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    path = daemon.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    wait_until(lambda: scraped(daemon)["ssim_count"][""] == 1)
    mark = Mark.parse(os.getxattr(variant_of(path), XATTR))
    assert mark
    samples = scraped(daemon)
    assert samples["ssim_sum"][""] == pytest.approx(mark.similarity, abs=0.0001)
    below = {float(le): count for le, count in samples["ssim_bucket"].items()}
    assert list(below) == [0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, math.inf]
    assert all(count == (samples["ssim_sum"][""] <= le) for le, count in below.items())


def test_similarities_that_were_not_measured_do_not_count() -> None:
    metrics = Metrics()
    metrics.published(math.nan, 0.97, 1.0)
    assert metrics.registry.get_sample_value("webp_converter_ssim_count") == 2
    assert metrics.registry.get_sample_value("webp_converter_ssim_sum") == pytest.approx(1.97)


def test_paused_by_a_full_disk_the_oldest_job_ages(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(ready=False, store={"minimum_free_mib": 1_048_576})
    wait_until(lambda: (health := daemon.health()) and not health["parts"]["queue"]["reason"])
    path = daemon.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: scraped(daemon)["queue_oldest_seconds"]["normal"] > 1)
    samples = scraped(daemon)
    assert samples["paused"] == {"disk": 1, "queue": 0}
    assert samples["part_up"]["disk"] == 0
    assert not decided(path)

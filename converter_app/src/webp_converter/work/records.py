"""The places that record the results of jobs."""

from __future__ import annotations

from typing import NamedTuple

from webp_converter.metrics import Metrics
from webp_converter.queue.latest_jobs import LatestJobs
from webp_converter.variants.originals import OriginStatus
from webp_converter.variants.statistics import Statistics


class Records(NamedTuple):
    """The places that record the results of jobs."""

    metrics: Metrics
    statistics: Statistics
    latest_jobs: LatestJobs
    origin: OriginStatus

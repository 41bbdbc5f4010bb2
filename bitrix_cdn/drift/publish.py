"""Writes the result to the monitoring hosts, into the directory of node_exporter's textfile collector."""

from __future__ import annotations

from bitrix_cdn.drift.report import DriftError, Report, as_metrics
from bitrix_cdn.fleet import deploys

DATA = "drift_metrics"
"""The metrics, among the data of the run's hosts."""

NAME = "drift.prom"


def publish(report: Report) -> None:
    """Replaces the metrics on all monitoring hosts, each in one rename.

    :raises DriftError: one of them didn't get them.
    """
    if not report.metrics:
        raise DriftError("settings.mounts.metrics is empty: there is nowhere to publish to")
    result = deploys.run(
        report.inventory,
        "bitrix_cdn/drift/metrics.py",
        limit=report.monitoring,
        data={DATA: as_metrics(report)},
    )
    if failure := result.failed(report.monitoring):
        raise DriftError(f"the result could not be published: {failure.why}")

"""Brings the result to the monitoring hosts, where node_exporter's textfile collector finds it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bitrix_cdn.drift.report import DriftError, Report, as_metrics
from bitrix_cdn.fleet import deploys
from bitrix_cdn.fleet.deploys import complaint, limits, said_of

SOURCE = "BITRIX_CDN_DRIFT_METRICS"
"""Names, in the environment of the deploy, the file that holds the metrics."""

NAME = "drift.prom"


def publish(report: Report) -> None:
    """Replaces the metrics on all monitoring hosts, each in one rename.

    :raises DriftError: one of them didn't get them.
    """
    if not report.metrics:
        raise DriftError("settings.mounts.metrics is empty: there is nowhere to publish to")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / NAME
        source.write_text(as_metrics(report))
        run = deploys.run(
            *("-y", "--fail-percent", "0", *limits(report.monitoring)),
            inventory=report.inventory,
            operations="bitrix_cdn/drift/metrics.py",
            environment={SOURCE: str(source)},
        )
    if run.status:
        reasons = [f"{name}: {said}" for name in report.monitoring if (said := said_of(name, run.said))]
        reason = "; ".join(reasons) or complaint(run.said) or f"pyinfra exits {run.status}"
        raise DriftError(f"the result could not be published: {reason}")

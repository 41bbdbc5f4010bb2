"""What pyinfra runs on the monitoring hosts to replace the metrics of the last check."""

import os
from pathlib import Path

from pyinfra import host

from bitrix_cdn.drift.publish import NAME, SOURCE
from bitrix_cdn.engine.files import File, tree
from roles.preflight import settings_of

tree(
    name="Tell Prometheus what the last drift check found",
    files=[File(f"{settings_of(host).mounts.metrics}/{NAME}", Path(os.environ[SOURCE]).read_text())],
)

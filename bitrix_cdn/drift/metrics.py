"""The operations that replace the metrics of the last check on the monitoring hosts."""

from pyinfra import host

from bitrix_cdn.drift.publish import DATA, NAME
from bitrix_cdn.engine.files import File, tree
from roles.preflight import settings_of

tree(
    name="Tell Prometheus what the last drift check found",
    files=[File(f"{settings_of(host).mounts.metrics}/{NAME}", host.data.get(DATA))],
)

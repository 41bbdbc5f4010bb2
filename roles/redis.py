"""Two Redis instances: a cache that may forget, a queue that may not."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import apt, systemd

from bitrix_cdn.engine.files import directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.kernel import sysctl_applied
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles import agent

PACKAGES = ("redis-server", "redis-tools")
INSTANCES = ("cache", "queue")
DROP_IN = "/etc/systemd/system/redis-server@.service.d/bitrix-cdn.conf"
TEXTFILES = "/var/lib/prometheus/node-exporter"
KEYS = ("bind", "port", "dir", "maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save")
"""What its files set and anybody can change while it runs."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.redis
    if not place.among("cdn"):
        return Footprint()
    ports = (Port(own.cache_port, "host", "Redis, statistics"), Port(own.queue_port, "host", "Redis, queue"))
    owned = tuple(f"/var/lib/redis/{instance}" for instance in INSTANCES)
    return Footprint(ports, saved=("/etc/redis",), packages=PACKAGES, data=owned)


@deploy("Redis")
def redis(settings: Settings) -> None:
    apt.packages(name="Install Redis", packages=[*PACKAGES], no_recommends=True)
    systemd.service(
        name="Stop Debian's own Redis instance",
        service="redis-server.service",
        running=False,
        enabled=False,
    )
    configuration = {instance: f"/etc/redis/redis-{instance}.conf" for instance in INSTANCES}
    sysctl = "/etc/sysctl.d/60-redis.conf"
    tree(
        name="Write the configuration of both instances",
        files=rendered(
            "redis",
            settings=settings,
            owners=dict.fromkeys(configuration.values(), ("640", "redis", "redis")),
            agent=agent.COMMAND,
            metrics=settings.mounts.metrics or TEXTFILES,
        ),
        root="/",
    )
    sysctl_applied(name="Allow memory overcommit, so that Redis can fork", path=sysctl)
    for instance in INSTANCES:
        socket = f"/run/redis-{instance}/redis.sock"
        directory(
            name=f"Create the data directory of the {instance}",
            path=f"/var/lib/redis/{instance}",
            mode="750",
            user="redis",
            group="redis",
        )
        running(
            name=f"Run the Redis of the {instance}",
            unit=f"redis-server@{instance}.service",
            start=[configuration[instance], DROP_IN],
            ready=f"redis-cli -s {socket} ping | grep -qx PONG",
            # Anybody who can ask it can change it while it runs. Each start has an order of its own.
            runs=f"redis-cli -s {socket} config get {' '.join(KEYS)} | paste - - | sort",
        )

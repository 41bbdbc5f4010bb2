"""Two Redis instances: a cache that may evict keys, and a queue that may not."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation
from pyinfra.operations import apt, systemd

from bitrix_cdn.engine.files import directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.kernel import sysctl_applied
from bitrix_cdn.engine.keys import token
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from host_agent.redis import INSTANCES, OPERATOR, password_file, socket_of
from roles import agent

PACKAGES = ("redis-server", "redis-tools")
USERS = {OPERATOR: "root", "converter": "www-data", "exporter": "root"}
"""Those of each instance, and the account that may read the password. The exporter's systemd reads for it."""
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
        for user, owner in USERS.items():
            token(
                name=f"Create the password of the {instance}'s {user}",
                path=str(password_file(instance, user)),
                owner=owner,
            )
        directory(
            name=f"Create the data directory of the {instance}",
            path=f"/var/lib/redis/{instance}",
            # Members of the group may ask it, and see no more than it tells them.
            mode="700",
            user="redis",
            group="redis",
        )
        running_or_taught(name=f"Run the Redis of the {instance}", instance=instance)


@deploy("Redis")
def redis_with_passwords() -> None:
    """After the converter and the exporters, which give their passwords by now."""
    for instance in INSTANCES:
        running(name=f"Require passwords in the Redis of the {instance}", **_running(instance))


def _running(instance: str) -> dict[str, Any]:
    ask = f"{agent.COMMAND} redis {instance}"
    return {
        "unit": f"redis-server@{instance}.service",
        "start": [
            f"/etc/redis/redis-{instance}.conf",
            f"/etc/redis/redis-{instance}.users",
            *(str(password_file(instance, user)) for user in USERS),
            DROP_IN,
        ],
        "ready": f"{ask} ping | grep -qx PONG",
        # Its operator can change it while it runs. The order of settings and rights differs after each start.
        "runs": f"{{ {ask} config get {' '.join(KEYS)} | paste - -; "
        f"{ask} acl list | awk '{{ for (i = 3; i <= NF; i++) print $2, $i }}'; }} | sort",
    }


class Open(FactBase[bool]):
    """Whether an instance answers whoever asks."""

    default = bool

    def command(self, instance: str) -> str:
        return f"redis-cli -s {socket_of(instance)} ping 2>/dev/null; true"

    def process(self, output: Iterable[str]) -> bool:
        return list(output) == ["PONG"]


@operation()
def running_or_taught(instance: str) -> Generator[StringCommand, None, None]:
    """Runs an instance. One that requires no password, as earlier versions of this deploy left it, is
    left running and told of its users: it would refuse the converter that runs.

    + instance: its name
    """
    if host.get_fact(Open, instance=instance):
        yield StringCommand(f"{agent.COMMAND} redis-users {instance} --teach")
        return
    yield from running._inner(**_running(instance))

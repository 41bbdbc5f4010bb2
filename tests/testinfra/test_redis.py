"""Role redis: a cache that may forget and a queue that may not, for this host alone."""

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings


def config(host: Host, port: int, key: str) -> str:
    answer: str = host.check_output("redis-cli -p %s config get %s", str(port), key)
    return answer.splitlines()[1]


def in_bytes(memory: str) -> int:
    return int(memory[:-2]) * {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}[memory[-2:]]


@pytest.mark.smoke
def test_the_cache_forgets_the_least_recently_used(cdn: Host, settings: Settings) -> None:
    port = settings.redis.cache_port
    assert config(cdn, port, "maxmemory-policy") == "allkeys-lru"
    assert int(config(cdn, port, "maxmemory")) == in_bytes(settings.redis.cache_maxmemory)


@pytest.mark.smoke
def test_the_queue_refuses_rather_than_forgets(cdn: Host, settings: Settings) -> None:
    assert int(config(cdn, settings.redis.queue_port, "maxmemory")) == in_bytes(
        settings.redis.queue_maxmemory
    )
    assert config(cdn, settings.redis.queue_port, "maxmemory-policy") == "noeviction"


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_what_was_written_survives_a_restart(instance: str, cdn: Host, settings: Settings) -> None:
    port = settings.redis.cache_port if instance == "cache" else settings.redis.queue_port
    assert config(cdn, port, "appendonly") == "yes"
    cdn.check_output("redis-cli -p %s set testinfra yes", str(port))
    # everysec: what is a second old is on the disk.
    cdn.check_output("sleep 1.2; systemctl kill -s KILL redis-server@%s; sleep 0.5", instance)
    answer = cdn.check_output(
        "for i in $(seq 50); do redis-cli -p %s get testinfra && break; sleep 0.2; done 2>/dev/null",
        str(port),
    )
    assert "yes" in answer
    cdn.check_output("redis-cli -p %s del testinfra", str(port))


def test_only_this_host_can_ask(cdn: Host, settings: Settings) -> None:
    for port in (settings.redis.cache_port, settings.redis.queue_port):
        listening = cdn.check_output("ss -Htln sport = :%s", str(port)).splitlines()
        assert listening
        assert all(line.split()[3].startswith(("127.0.0.1:", "[::1]:")) for line in listening)
    assert not cdn.service("redis-server.service").is_running


@pytest.mark.smoke
def test_sockets_are_for_the_group(cdn: Host) -> None:
    for instance in ("cache", "queue"):
        socket = f"/run/redis-{instance}/redis.sock"
        assert cdn.run("runuser -u nobody -- redis-cli -s %s ping", socket).stdout.strip() != "PONG"
        assert cdn.check_output("runuser -u www-data -g redis -- redis-cli -s %s ping", socket) == "PONG"

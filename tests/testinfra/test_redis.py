"""Role redis: a cache that may forget and a queue that may not, for whoever of this host has a password."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from host_agent.redis import INSTANCES, PASSWORDS

_ACCOUNTS = """
import pwd
for account in pwd.getpwall():
    if account.pw_uid: print(account.pw_name)
"""
# A client that needs no package: what is sent, and whatever comes back at once.
_TRY = """
import os, pwd, socket, sys
account, ways = pwd.getpwnam(sys.argv[1]), sys.argv[2:]
os.initgroups(account.pw_name, account.pw_gid)
os.setgid(account.pw_gid)
os.setuid(account.pw_uid)
for way in ways:
    for said in (b"PING", b"INFO", b"FLUSHALL", b"CONFIG GET *", b"AUTH default x", b"AUTH operator "):
        family = socket.AF_UNIX if way.startswith("/") else socket.AF_INET
        client = socket.socket(family)
        client.settimeout(5)
        try:
            client.connect(way if way.startswith("/") else ("127.0.0.1", int(way)))
            client.sendall(said + b"\\r\\n")
            answer = client.recv(100)
        except OSError:
            continue
        if not answer.startswith((b"-NOAUTH", b"-WRONGPASS", b"-ERR AUTH", b"-ERR wrong number")):
            print(account.pw_name, way, said.decode(), answer)
"""


def ask(host: Host, instance: str, *words: str) -> str:
    answer: str = host.check_output("cdn-host redis " + " ".join(["%s"] * (1 + len(words))), instance, *words)
    return answer


def config(host: Host, instance: str, key: str) -> str:
    return ask(host, instance, "config", "get", key).splitlines()[1]


def in_bytes(memory: str) -> int:
    return int(memory[:-2]) * {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}[memory[-2:]]


@pytest.mark.smoke
def test_the_cache_forgets_the_least_recently_used(cdn: Host, settings: Settings) -> None:
    assert config(cdn, "cache", "maxmemory-policy") == "allkeys-lru"
    assert int(config(cdn, "cache", "maxmemory")) == in_bytes(settings.redis.cache_maxmemory)


@pytest.mark.smoke
def test_the_queue_refuses_rather_than_forgets(cdn: Host, settings: Settings) -> None:
    assert int(config(cdn, "queue", "maxmemory")) == in_bytes(settings.redis.queue_maxmemory)
    assert config(cdn, "queue", "maxmemory-policy") == "noeviction"


@pytest.mark.parametrize("instance", INSTANCES)
def test_what_was_written_survives_a_restart(instance: str, cdn: Host) -> None:
    assert config(cdn, instance, "appendonly") == "yes"
    ask(cdn, instance, "set", "testinfra", "yes")
    # everysec: what is a second old is on the disk.
    cdn.check_output("sleep 1.2; systemctl kill -s KILL redis-server@%s; sleep 0.5", instance)
    answer = cdn.check_output(
        # Until it has read its file, it says that instead.
        "for i in $(seq 50); do cdn-host redis %s get testinfra | grep -x yes && break; sleep 0.2; done",
        instance,
    )
    assert "yes" in answer
    ask(cdn, instance, "del", "testinfra")


def test_only_this_host_can_ask(cdn: Host, settings: Settings) -> None:
    for port in (settings.redis.cache_port, settings.redis.queue_port):
        listening = cdn.check_output("ss -Htln sport = :%s", str(port)).splitlines()
        assert listening
        assert all(line.split()[3].startswith(("127.0.0.1:", "[::1]:")) for line in listening)
    assert not cdn.service("redis-server.service").is_running


@pytest.mark.smoke
def test_no_account_of_the_host_can_do_anything_without_a_password(cdn: Host, settings: Settings) -> None:
    ways = [str(settings.redis.cache_port), str(settings.redis.queue_port)]
    ways += [f"/run/redis-{instance}/redis.sock" for instance in INSTANCES]
    accounts = cdn.check_output("python3 -c %s", _ACCOUNTS).split()
    assert {"nobody", "www-data", "prometheus", "mtail", "redis"} <= set(accounts)
    script = f'for account in {" ".join(accounts)}; do python3 -c "$1" $account {" ".join(ways)}; done'
    assert cdn.check_output("sh -c %s sh %s", script, _TRY) == ""


@pytest.mark.smoke
def test_each_password_is_readable_for_whom_it_is(cdn: Host) -> None:
    owners = {"operator": "root", "converter": "www-data", "exporter": "root"}
    for instance in INSTANCES:
        for user, owner in owners.items():
            file = cdn.file(f"{PASSWORDS}/{instance}-{user}")
            assert (file.user, file.group, file.mode) == (owner, "root", 0o400)
        assert cdn.file(f"/run/redis-{instance}/users.acl").mode == 0o400
        assert cdn.file(f"/var/lib/redis/{instance}").mode == 0o700


@pytest.mark.parametrize("instance", INSTANCES)
def test_our_own_clients_are_refused_nothing(instance: str, cdn: Host) -> None:
    # All that they have asked since it started, the exporter and the converter among them.
    clients = ask(cdn, instance, "client", "list")
    assert " user=converter " in clients
    # Others may have tried: they have other names.
    assert not {"converter", "exporter"} & set(ask(cdn, instance, "acl", "log").splitlines())

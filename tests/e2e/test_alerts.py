"""Each alert is made to ring by a real fault, arrives at a receiver here, and ends with its repair.

`make test` makes some of the faults at once; `make alerts` makes each of them alone, more than an hour a
suite. For alerts that look back for long, Prometheus gets the same rules with their time compressed
(tests/compression.py); what breaks is as real, and the factor is printed. `PROVEN_OTHERWISE` has those whose
cause can't be had in the lab. All of them have a case in tests/prometheus.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.settings import Settings
from dev.lab import state
from roles.alertmanager import CONFIG as ALERTMANAGER_CONFIG
from tests.e2e.faults import (
    WORKERS,
    end_for_lack_of_memory,
    importing,
    originals,
    overflow,
    photos,
    workers_slowed,
    write_pictures,
)
from tests.e2e.visitors import mixed, visitors
from tests.kit.alerting import rules
from tests.kit.compression import compressed
from tests.kit.deployment import pyinfra
from tests.kit.hosts import CONVERTER, Cdn, Shop, no_pictures
from tests.kit.lab import lab_command
from tests.kit.mounts import delayed, mounted_since, spool_files, spooled
from tests.kit.receiver import Notice, Receiver, receiving
from tests.kit.support import Figure, Remote, wait_until

FIRES = 300.0
"""Seconds that an alert may take to arrive on a loaded machine; how long it took is printed."""

ENDS = 300.0
"""The same for its end."""

INTERVAL_S = 5
"""Seconds between two looks of Prometheus while time is compressed: the least that the settings take."""

PROVEN_OTHERWISE = {
    "BackupFailed": "the lab's inventory has no backups; test_backup.py makes it ring",
    "BackupStale": "the lab's inventory has no backups, and it looks back more than a day",
    "BackupMissing": "the lab's inventory has no backups, and it waits more than a day",
    "RedisMended": "test_crashes.py damages the files; it ends an hour later",
    "DamagedPicturesReturn": "each picture would have to rest for a minute twice; the "
    "converter's test_daemon.py has some removed, back, and counted",
    "ClockSkew": "one kernel has one wall clock: no namespace gives a host another, and the exporter asks "
    "the kernel without libc, so no library can lie to it either",
    "ShieldUnreachable": "these hosts have no edges; tests/edges",
    "EdgeDown": "these hosts have no edges; tests/edges",
    "EdgeDrained": "these hosts have no edges; tests/edges",
    "NoEdgeLeft": "these hosts have no edges; tests/edges",
}


@dataclass(frozen=True)
class Place:
    """Where faults are made."""

    shop: Shop
    cdn: Cdn
    bitrix: Remote
    receiver: Receiver
    settings: Settings

    @property
    def monitoring(self) -> Remote:
        return self.cdn.remote


Make = Callable[[Place], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """Something that breaks, and the alerts that must come of it."""

    name: str
    make: Make
    """Breaks it; repairs it at the end."""

    alerts: dict[str, dict[str, str]]
    """Labels by name."""

    windows: tuple[str, ...] = ()
    """Of an alert that has several: those that must ring, each by itself."""

    factor: int = 1
    """What the time of all rules is divided by meanwhile."""

    def expected(self) -> list[tuple[str, dict[str, str]]]:
        """Each alert with its labels."""
        windows: list[dict[str, str]] = [{"window": window} for window in self.windows] or [{}]
        return [(name, labels | window) for name, labels in self.alerts.items() for window in windows]


@pytest.fixture(scope="module")
def receiver(lab: state.Lab) -> Iterator[Receiver]:
    """What the lab's Alertmanager tells for as long as these tests run."""
    machine = lab.host("cdn").address.rpartition(".")[0] + ".1"
    with receiving(machine, 9099) as receiver:
        told = pyinfra("-y", lab=lab.name, receiver=receiver.url(machine))
        assert told.status == 0, told.output
        try:
            yield receiver
        finally:
            untold = pyinfra("-y", lab=lab.name)
    assert untold.status == 0, untold.output


@pytest.fixture
def place(shop: Shop, cdn: Cdn, bitrix: Remote, receiver: Receiver, settings: Settings) -> Iterator[Place]:
    """Each test ends with all as it was."""
    yield Place(shop, cdn, bitrix, receiver, settings)
    for remote, name in ((bitrix, "resize-cache"), (cdn.remote, "originals")):
        mounted_since(remote, name, 0, 60)
    wait_until("an empty spool", lambda: spooled(bitrix), lambda files: not files, timeout=60)
    wait_until("a healthy daemon", cdn.daemon_ready, timeout=60)


@contextmanager
def stopped(remote: Remote, *units: str) -> Iterator[None]:
    remote.run("systemctl", "stop", *units)
    try:
        yield
    finally:
        remote.run("systemctl", "start", *units)


@contextmanager
def replaced(remote: Remote, path: str, content: str) -> Iterator[None]:
    """Another content for a file, with the owner and mode that it has."""
    remote.run("cp", "-a", path, f"{path}.kept")
    try:
        remote.put(path, content.encode())
        yield
    finally:
        remote.run("mv", "-f", f"{path}.kept", path)


@contextmanager
def small_disk(remote: Remote, path: str, *options: str, fill: str = "") -> Iterator[None]:
    """A file system of its own over a directory, with what a shell makes of it."""
    remote.run("mkdir", "-p", path)
    remote.run("mount", "-t", "tmpfs", "-o", ",".join(("uid=33,gid=33,mode=755", *options)), "tmpfs", path)
    try:
        if fill:
            remote.run("sh", "-c", f"cd {path}; {fill}", check=False)
        yield
    finally:
        remote.run("umount", "-l", path)


@contextmanager
def no_ssh(client: Remote, server: Remote) -> Iterator[None]:
    """Packets of SSH from one host to the other are lost; all others are not."""
    rule = f"ip saddr {client.address} ip daddr {server.address} tcp dport 22 drop"
    chain = f"chain forward {{\ntype filter hook forward priority filter;\n{rule}\n}}"
    # The machine has one set of tables for all of its labs.
    table = f"bitrix-cdn-alerts-{client.address.replace('.', '-')}"
    subprocess.run(["nft", "-f", "-"], input=f"table bridge {table} {{\n{chain}\n}}\n".encode(), check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "bridge", table], check=True)


# Mounts


def guard_noticed(place: Place) -> None:
    """Waits until the guard of the site's host knows that the other host is away."""
    wait_until(
        "the guard to notice",
        lambda: place.bitrix.run("mount-guard", "status", "resize-cache", check=False),
        lambda said: "waiting" in said or "connecting" in said,
    )


@contextmanager
def site_without_its_pictures(place: Place) -> Iterator[None]:
    with no_ssh(place.bitrix, place.cdn.remote):
        guard_noticed(place)
        spool_files(place.bitrix, place.shop, place.shop.directory("alarm"), 150)
        yield


@contextmanager
def cdn_without_the_originals(place: Place) -> Iterator[None]:
    with no_ssh(place.cdn.remote, place.bitrix):
        yield


@contextmanager
def another_host_key(place: Place) -> Iterator[None]:
    pinned = "/etc/bitrix-cdn/ssh/known_hosts"
    made = "ssh-keygen -q -t ed25519 -N '' -f /tmp/other; cut -d' ' -f1,2 /tmp/other.pub; rm /tmp/other*"
    key = place.bitrix.run("sh", "-c", made)
    with replaced(place.bitrix, pinned, f"cdn {key}"):
        place.bitrix.run("pkill", "-KILL", "-x", "sshfs")
        yield


@contextmanager
def cdn_without_room(place: Place) -> Iterator[None]:
    with small_disk(place.cdn.remote, place.settings.cdn.resize_cache, "size=8m"):
        # The session of the mount still has the directory below.
        place.bitrix.run("pkill", "-KILL", "-x", "sshfs")
        yield
    place.bitrix.run("pkill", "-KILL", "-x", "sshfs")


@contextmanager
def guard_gone(place: Place) -> Iterator[None]:
    with stopped(place.cdn.remote, "mount-guard@originals"):
        place.cdn.remote.run("rm", f"{place.settings.mounts.metrics}/mount_guard_originals.prom")
        yield


# Converter


@contextmanager
def converter_stopped(place: Place) -> Iterator[None]:
    with stopped(place.cdn.remote, CONVERTER):
        yield


_KILL_WORKERS = (
    WORKERS
    + """
main, dead, seconds = arguments
def letters():
    return int(os.popen(f"redis-cli -s /run/redis-queue/redis.sock xlen {dead}").read())
deadline = time.monotonic() + seconds
killed = 0
while time.monotonic() < deadline and not letters():
    for pid in workers_of(main):
        tell(pid, signal.SIGKILL)
        killed += 1
    time.sleep(0.7)
result = [killed, letters()]
"""
)


@contextmanager
def workers_that_die_of_a_picture(place: Place) -> Iterator[None]:
    directory = place.shop.directory("4000_4000_1")
    # One that takes a worker longer than the pause between two kills.
    place.shop.write(f"{directory}/large.jpg", place.shop.photo(4000, 3200))
    dead = f"{place.settings.converter.queue.prefix}:dead"
    killed, letters = place.cdn.remote.python(_KILL_WORKERS, place.cdn.daemon()[0], dead, 120, timeout=180)
    assert letters, f"no picture was given up although {killed} workers were killed"
    try:
        yield
    finally:
        place.cdn.remote.run("webp-converter", "dead", "drop", "--all")


@contextmanager
def file_held_open(place: Place) -> Iterator[None]:
    with no_ssh(place.bitrix, place.cdn.remote):
        guard_noticed(place)
        path = place.shop.mounted(place.shop.directory("held"))
        user = place.settings.site.user
        place.bitrix.run("mkdir", "-p", path, user=user)
        hold = 'exec 3>"$1"; printf half >&3; exec sleep 900'
        place.bitrix.run(
            *("systemd-run", "-q", "--collect", "--unit=alarm", f"--uid={user}"),
            *("sh", "-c", hold, "sh", f"{path}/held.jpg"),
        )
        wait_until("the file in the spool", lambda: spooled(place.bitrix))
    mounted_since(place.bitrix, "resize-cache", 0)
    try:
        yield
    finally:
        place.bitrix.run("systemctl", "stop", "alarm")


@contextmanager
def converter_set(place: Place, **values: str) -> Iterator[None]:
    """Other settings of the converter, as somebody sets them by hand; each stands in one section only."""
    path, remote = "/etc/webp-converter/config.toml", place.cdn.remote
    text = remote.run("cat", path)
    for name, value in values.items():
        text, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert found == 1, f"{name} stands {found} times in {path}"
    try:
        with replaced(remote, path, text):
            remote.run("systemctl", "restart", CONVERTER)
            wait_until("a healthy daemon", place.cdn.daemon_ready, timeout=60)
            yield
    finally:
        remote.run("systemctl", "restart", CONVERTER)
        wait_until("a healthy daemon", place.cdn.daemon_ready, timeout=60)


@contextmanager
def import_on_a_slow_host(place: Place) -> Iterator[None]:
    with (
        workers_slowed(place.cdn, stopped_s=0.9, going_s=0.05),
        importing(place.cdn, place.shop, per_s=40, most=12_000),
    ):
        yield


@contextmanager
def workers_that_stand_still(place: Place) -> Iterator[None]:
    with (
        workers_slowed(place.cdn, stopped_s=1, going_s=0),
        importing(place.cdn, place.shop, per_s=40, most=60),
    ):
        yield


@contextmanager
def workers_without_memory(place: Place) -> Iterator[None]:
    large = place.shop.photo(4000, 3200)
    with converter_set(place, memory_limit_mib="300"):
        write_pictures(place.cdn, place.shop, "4000_4000_1", [large] * 8)
        yield
    place.cdn.remote.run("webp-converter", "dead", "retry", "--all")


@contextmanager
def bursts_of_writes(place: Place) -> Iterator[None]:
    for _ in range(4):
        overflow(place.cdn, place.shop)
    yield


@contextmanager
def pictures_compressed_hard(place: Place) -> Iterator[None]:
    write_pictures(place.cdn, place.shop, "320_240_1", photos(place.shop, 140, quality=70))
    yield


@contextmanager
def quality_set_too_low(place: Place) -> Iterator[None]:
    with converter_set(place, ladder="[1]", ssim_target="0.5"):
        write_pictures(place.cdn, place.shop, "320_240_1", photos(place.shop, 140, quality=90))
        yield


@contextmanager
def cut_off_pictures(place: Place) -> Iterator[None]:
    directory = place.shop.directory("450_450_1")
    content = no_pictures(place.shop)["truncated.jpg"]
    for number in range(8):
        place.shop.write(f"{directory}/cut-{number}.jpg", content)
    yield


@contextmanager
def disk_filled_by_others(place: Place) -> Iterator[None]:
    # Above the high-water mark, below what would be told of as a full disk.
    megabytes = round(300 * (place.settings.converter.store.high_water + 0.02))
    fill = f"head -c {megabytes}M /dev/zero > foreign.bin"
    with small_disk(place.cdn.remote, place.settings.cdn.resize_cache, "size=300m", fill=fill):
        yield
    # The next eviction would be in an hour.
    token = str(place.settings.converter.api.token_file)
    url = f"http://127.0.0.1:{place.settings.converter.api.port}/api/cleanup"
    place.cdn.remote.python(_CLEAN_UP, token, url, timeout=120)


_CLEAN_UP = """
import urllib.request
token, url = arguments
headers = {"Authorization": "Bearer " + open(token).read().strip()}
with urllib.request.urlopen(urllib.request.Request(url, b"", headers), timeout=100) as answer:
    result = answer.status
"""


# Redis


def redis_cli(place: Place, *command: str) -> str:
    return place.cdn.remote.run("redis-cli", "-s", "/run/redis-queue/redis.sock", *command).strip()


@contextmanager
def redis_stopped(place: Place, instance: str) -> Iterator[None]:
    with stopped(place.cdn.remote, f"redis-server@{instance}"):
        yield


@contextmanager
def queue_set(place: Place, **values: str) -> Iterator[None]:
    """Other settings of the queue's Redis."""
    before = {name: redis_cli(place, "config", "get", name).splitlines()[1] for name in values}
    try:
        for name, value in values.items():
            redis_cli(place, "config", "set", name, value)
        yield
    finally:
        for name, value in before.items():
            redis_cli(place, "config", "set", name, value)


def used_memory(place: Place) -> int:
    lines = redis_cli(place, "info", "memory").splitlines()
    return int(dict(line.strip().split(":", 1) for line in lines if ":" in line)["used_memory"])


@contextmanager
def queue_that_forgets(place: Place) -> Iterator[None]:
    limit = str(used_memory(place) + 2_000_000)
    with queue_set(place, **{"maxmemory-policy": "allkeys-lru", "maxmemory": limit}):
        fill = "for i = 1, 30000 do redis.call('SET', 'alarm:' .. i, string.rep('x', 100)) end"
        redis_cli(place, "eval", fill, "0")
        yield
    redis_cli(place, "eval", "for i = 1, 30000 do redis.call('DEL', 'alarm:' .. i) end", "0")
    # The queue itself may be among what it forgot.
    place.cdn.remote.run("systemctl", "restart", CONVERTER)


@contextmanager
def queue_nearly_full(place: Place) -> Iterator[None]:
    # So much that what comes and goes, such as a script's memory, is nothing beside it.
    redis_cli(place, "setrange", "alarm", "63999999", "x")
    try:
        with queue_set(place, maxmemory=str(round(used_memory(place) / 0.93))):
            yield
    finally:
        redis_cli(place, "del", "alarm")


# Delivery


@contextmanager
def cdn_stopped(place: Place, unit: str) -> Iterator[None]:
    with stopped(place.cdn.remote, unit):
        yield


@contextmanager
def variant_that_can_not_be_read(place: Place) -> Iterator[None]:
    remote = place.cdn.remote
    variant = f"{place.settings.cdn.resize_cache}/bitrix-cdn/probe.jpg.webp"
    # It would be made anew every few minutes.
    with stopped(remote, "edge-probe-picture.timer"):
        wait_until("the picture as WebP", lambda: remote.run("ls", variant, check=False))
        remote.run("chmod", "0", variant)
        try:
            yield
        finally:
            remote.run("chmod", "644", variant)


@contextmanager
def site_stopped(place: Place) -> Iterator[None]:
    if not place.settings.monitoring.exporters.probe_site:
        pytest.skip("the lab's inventory has no page of the site asked for")
    with stopped(place.bitrix, "nginx"):
        yield


@contextmanager
def certificate_of_a_day(place: Place) -> Iterator[None]:
    remote, directory = place.cdn.remote, Path("/etc/nginx/tls")
    name = remote.run(
        "openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", f"{directory}/certificate.pem"
    )
    new = remote.run(
        *("openssl", "req", "-x509", "-days", "1", "-key", f"{directory}/key.pem", "-subj", "/CN=alarm"),
        *("-addext", f"subjectAltName={name.splitlines()[-1].strip().replace('IP Address', 'IP')}"),
    )
    try:
        with replaced(remote, f"{directory}/certificate.pem", new):
            remote.run("systemctl", "reload", "nginx")
            yield
    finally:
        remote.run("systemctl", "reload", "nginx")


def visited(place: Place, paths: Iterable[str], number: int = 4) -> AbstractContextManager[Counter[str]]:
    """The CDN host is asked for these pictures meanwhile."""
    return visitors(place.cdn.remote.address, place.settings.nginx.http_port, paths, number=number)


@contextmanager
def visitors_without_originals(place: Place, share: float) -> Iterator[None]:
    """The originals are away, and a share of what visitors ask for is one that Varnish doesn't have."""
    good = [place.shop.resized(200, 200).url_path]
    with originals(place.shop, 6000) as bad, cdn_without_the_originals(place):
        wait_until(
            "an error of the CDN host",
            lambda: place.cdn.client.get(bad[0]).status_code,
            lambda status: status == 503,
            timeout=60,
        )
        with visited(place, mixed(cycle(bad), good, share)):
            yield


@contextmanager
def visitors_of_slow_originals(place: Place, share: float) -> Iterator[None]:
    """The line between the hosts is long, and a share of what visitors ask for has to come over it."""
    good = [place.shop.resized(200, 200).url_path]
    with (
        originals(place.shop, 6000) as slow,
        # An original is a dozen round trips of sshfs.
        delayed(place.cdn.remote, place.bitrix, "originals", 0.025),
    ):
        # Varnish has to see that they are back.
        wait_until(
            "an original",
            lambda: place.cdn.client.get(slow[0]).status_code,
            lambda status: status == 200,
            interval=2,
        )
        # Few, or the mount is too busy to answer Varnish's probe: then there are errors, and quick ones.
        with visited(place, mixed(slow[1:], good, share), number=4):
            yield


@contextmanager
def visitors_who_ask_once(place: Place) -> Iterator[None]:
    with originals(place.shop, 20_000) as once, visited(place, once):
        yield


# Hosts


@contextmanager
def host_without_power(place: Place) -> Iterator[None]:
    lab_command("kill", "bitrix")
    place.bitrix.disconnect()
    try:
        yield
    finally:
        lab_command("start", "bitrix")


@contextmanager
def full_disk(place: Place) -> Iterator[None]:
    fill = "head -c 98M /dev/zero > full.bin"
    with small_disk(place.cdn.remote, "/srv/alarm", "size=100m", fill=fill):
        yield


@contextmanager
def filling_disk(place: Place) -> Iterator[None]:
    # Nine of a hundred are free, and a quarter of a thousandth less with each second.
    with small_disk(place.cdn.remote, "/srv/alarm", "size=200m", fill="head -c 182M /dev/zero > full.bin"):
        grow = "while sleep 1; do head -c 50K /dev/zero; done >> /srv/alarm/growing.bin"
        place.cdn.remote.run("systemd-run", "-q", "--collect", "--unit=alarm", "sh", "-c", grow)
        try:
            yield
        finally:
            place.cdn.remote.run("systemctl", "stop", "alarm")


@contextmanager
def process_without_memory(place: Place) -> Iterator[None]:
    end_for_lack_of_memory()
    yield


@contextmanager
def no_inodes(place: Place) -> Iterator[None]:
    fill = "for i in $(seq 200); do : > $i; done"
    with small_disk(place.cdn.remote, "/srv/alarm", "size=100m,nr_inodes=100", fill=fill):
        yield


@contextmanager
def failed_service(place: Place) -> Iterator[None]:
    place.bitrix.run("systemd-run", "-q", "--unit=alarm", "false")
    try:
        yield
    finally:
        place.bitrix.run("systemctl", "reset-failed", "alarm.service")


# Drift, and the monitoring itself


@contextmanager
def drift_told(place: Place) -> Iterator[None]:
    file = f"{place.settings.mounts.metrics}/drift.prom"
    lines = [
        'drift_differences{host="bitrix"} 3',
        'drift_check_failed{host="bitrix"} 1',
        f"drift_check_timestamp_seconds {time.time() - 30 * 3600:.0f}",
    ]
    before = place.monitoring.run("cat", file, check=False)
    place.monitoring.put(file, ("\n".join(lines) + "\n").encode())
    try:
        yield
    finally:
        if before:
            place.monitoring.put(file, before.encode())
        else:
            place.monitoring.run("rm", file)


@contextmanager
def told_otherwise(place: Place, path: str, unit: str, content: Callable[[str], str]) -> Iterator[None]:
    """A service of the monitoring with what is made of its configuration."""
    new = content(place.monitoring.run("cat", path))
    try:
        with replaced(place.monitoring, path, new):
            place.monitoring.run("systemctl", "reload", unit)
            yield
    finally:
        place.monitoring.run("systemctl", "reload", unit)


def prometheus_told(place: Place, content: Callable[[str], str]) -> AbstractContextManager[None]:
    return told_otherwise(place, "/etc/prometheus/prometheus.yml", "prometheus", content)


@contextmanager
def job_forgotten(place: Place) -> Iterator[None]:
    with prometheus_told(place, lambda text: text.replace("job_name: edge", "job_name: edge-renamed")):
        yield


@contextmanager
def configuration_refused(place: Place) -> Iterator[None]:
    with prometheus_told(place, lambda text: text + "\nnonsense: true\n"):
        yield


@contextmanager
def rule_that_fails(place: Place) -> Iterator[None]:
    path = "/etc/prometheus/rules/alarm.yml"
    rule = "groups: [{name: alarm, rules: [{record: alarm, expr: up * on () up}]}]\n"
    place.monitoring.put(path, rule.encode())
    try:
        place.monitoring.run("systemctl", "reload", "prometheus")
        yield
    finally:
        place.monitoring.run("rm", path)
        place.monitoring.run("systemctl", "reload", "prometheus")


@contextmanager
def receiver_that_refuses(place: Place) -> Iterator[None]:
    before = place.monitoring.python(_FAILURES, _port(place))
    place.receiver.refuses = True
    try:
        # The watchdog is posted all the time, and refused.
        wait_until(
            "Alertmanager to count failures",
            lambda: place.monitoring.python(_FAILURES, _port(place)),
            lambda failures: failures > before + 4,
            timeout=FIRES,
            interval=2,
        )
    finally:
        place.receiver.refuses = False
    yield


_FAILURES = """
import urllib.request
with urllib.request.urlopen(f"http://127.0.0.1:{arguments[0]}/metrics", timeout=5) as answer:
    lines = answer.read().decode().splitlines()
name = 'alertmanager_notifications_failed_total{integration="webhook"'
result = sum(float(line.split()[-1]) for line in lines if line.startswith(name))
"""


def _port(place: Place) -> int:
    return int(place.settings.monitoring.alertmanager.port)


ON_CDN = {"host": "cdn"}
ON_BITRIX = {"host": "bitrix"}

FAULTS = [
    Fault(
        "the site without its pictures",
        site_without_its_pictures,
        {"MountDown": {**ON_BITRIX, "mount": "resize-cache"}, "SpoolGrowing": ON_BITRIX},
    ),
    Fault(
        "the CDN without originals",
        cdn_without_the_originals,
        {"MountDown": {**ON_CDN, "mount": "originals"}},
    ),
    Fault("another host key", another_host_key, {"MountRefused": {**ON_BITRIX, "reason": "host_key"}}),
    Fault(
        "a CDN host without room",
        cdn_without_room,
        {"MountFull": ON_BITRIX, "ConverterDegraded": {**ON_CDN, "part": "disk"}},
    ),
    Fault("a guard that is gone", guard_gone, {"MountUnwatched": {"mount": "originals"}}),
    Fault("a file that is held open", file_held_open, {"SpoolNotDraining": ON_BITRIX}, factor=20),
    Fault("the converter stopped", converter_stopped, {"ConverterDown": ON_CDN}),
    Fault(
        "workers that die of a picture",
        workers_that_die_of_a_picture,
        {"DeadLetters": ON_CDN, "WorkersDying": ON_CDN},
        factor=10,
    ),
    Fault(
        "cut off pictures",
        cut_off_pictures,
        {"DamagedPictures": ON_CDN},
        factor=15,
    ),
    Fault(
        "an import on a slow host",
        import_on_a_slow_host,
        {"QueueGrowing": ON_CDN, "PublishingSlow": ON_CDN},
        factor=20,
    ),
    Fault("workers that stand still", workers_that_stand_still, {"QueueStuck": ON_CDN}, factor=10),
    Fault("workers without memory", workers_without_memory, {"ConversionsFailing": ON_CDN}, factor=40),
    Fault("bursts of writes", bursts_of_writes, {"EventsLost": ON_CDN}, factor=20),
    Fault("pictures that are compressed hard", pictures_compressed_hard, {"SavingLow": ON_CDN}, factor=960),
    Fault("a quality set too low", quality_set_too_low, {"SimilarityLow": ON_CDN}, factor=960),
    Fault("a disk filled by others", disk_filled_by_others, {"EvictionCannotFree": ON_CDN}),
    *(
        Fault(
            f"the Redis of the {instance} stopped",
            lambda place, instance=instance: redis_stopped(place, instance),  # type: ignore[misc]
            {"RedisDown": {**ON_CDN, "redis": instance, "severity": severity}},
        )
        for instance, severity in (("queue", "critical"), ("cache", "warning"))
    ),
    Fault(
        "a queue that forgets",
        queue_that_forgets,
        {"QueueEvicted": ON_CDN},
        factor=10,
    ),
    Fault("a queue that is nearly full", queue_nearly_full, {"QueueMemoryHigh": ON_CDN}),
    Fault(
        "nginx stopped",
        lambda place: cdn_stopped(place, "nginx"),
        {"PicturesNotServed": ON_CDN, "CertificateProbeFailing": ON_CDN},
    ),
    Fault("a variant that can't be read", variant_that_can_not_be_read, {"WebpNotServed": ON_CDN}),
    Fault("the site stopped", site_stopped, {"SiteNotAnswering": ON_BITRIX}),
    Fault("Varnish stopped", lambda place: cdn_stopped(place, "varnish"), {"VarnishDown": ON_CDN}),
    Fault(
        "the server of the originals stopped",
        lambda place: cdn_stopped(place, "nginx-originals"),
        {"VarnishBackendSick": ON_CDN},
    ),
    Fault(
        "a certificate of a day",
        certificate_of_a_day,
        {"CertificateExpiring": {**ON_CDN, "severity": "critical"}},
    ),
    # In this order: long windows remember many errors, and many quick answers.
    Fault(
        "some visitors of slow originals",
        lambda place: visitors_of_slow_originals(place, 0.45),
        {"LatencyBurning": {**ON_CDN, "severity": "warning"}},
        windows=("6h", "3d"),
        factor=120,
    ),
    Fault(
        "visitors of slow originals",
        lambda place: visitors_of_slow_originals(place, 0.97),
        {"LatencyBurning": {**ON_CDN, "severity": "critical"}},
        windows=("1h",),
        factor=60,
    ),
    Fault("visitors who ask once", visitors_who_ask_once, {"CacheHitLow": ON_CDN}, factor=60),
    Fault(
        "a few visitors without originals",
        lambda place: visitors_without_originals(place, 0.0045),
        {"AvailabilityBurning": {**ON_CDN, "severity": "warning"}},
        windows=("3d",),
        factor=120,
    ),
    Fault(
        "visitors without originals",
        lambda place: visitors_without_originals(place, 0.3),
        {"AvailabilityBurning": {**ON_CDN, "severity": "critical"}},
        windows=("1h", "6h"),
        factor=120,
    ),
    Fault("a host without power", host_without_power, {"HostDown": ON_BITRIX}),
    Fault(
        "an exporter stopped",
        lambda place: cdn_stopped(place, "mtail"),
        {"TargetDown": {**ON_CDN, "job": "edge"}},
    ),
    Fault("a job forgotten", job_forgotten, {"JobMissing": {"job": "edge"}}),
    Fault(
        "a full disk", full_disk, {"DiskLow": {**ON_CDN, "mountpoint": "/srv/alarm", "severity": "critical"}}
    ),
    Fault(
        "a disk that fills",
        filling_disk,
        {"DiskFilling": {**ON_CDN, "mountpoint": "/srv/alarm"}},
        factor=72,
    ),
    Fault("a process without memory", process_without_memory, {"OutOfMemory": ON_CDN}, factor=10),
    Fault("a disk without inodes", no_inodes, {"InodesLow": {**ON_CDN, "mountpoint": "/srv/alarm"}}),
    Fault("a service that failed", failed_service, {"ServiceFailed": {**ON_BITRIX, "name": "alarm.service"}}),
    Fault(
        "drift",
        drift_told,
        {"DriftFound": ON_BITRIX, "DriftCheckFailed": ON_BITRIX, "DriftCheckStale": ON_CDN},
    ),
    Fault("a rule that fails", rule_that_fails, {"RulesFailing": ON_CDN}, factor=5),
    Fault(
        "a receiver that refuses",
        receiver_that_refuses,
        {"NotificationsFailing": {**ON_CDN, "integration": "webhook"}},
        factor=5,
    ),
    Fault(
        "a configuration that is refused",
        configuration_refused,
        {"ConfigReloadFailed": {"job": "prometheus"}},
    ),
]


AT_ONCE = (
    "the CDN without originals",
    "the converter stopped",
    "a certificate of a day",
    "an exporter stopped",
    "a full disk",
    "a service that failed",
    "drift",
)
"""Faults that have nothing to do with each other: none keeps the alert of another one from being told."""


def test_faults_that_come_at_once_are_all_told_and_all_end(place: Place, figure: Figure) -> None:
    faults = [fault for fault in FAULTS if fault.name in AT_ONCE]
    assert len(faults) == len(AT_ONCE)
    assert all(fault.factor == 1 for fault in faults)
    told_and_ended(faults, place, figure)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_rings_and_its_repair_ends_that(fault: Fault, place: Place, figure: Figure) -> None:
    told_and_ended([fault], place, figure, fault.factor)


def told_and_ended(faults: Sequence[Fault], place: Place, figure: Figure, factor: int = 1) -> None:
    """Makes faults, waits for all of their alerts, repairs them, and waits for the alerts' ends."""
    told: list[tuple[Fault, str, dict[str, str], Notice]] = []
    with time_compressed(place, factor):
        started = time.time()
        with ExitStack() as broken:
            for fault in faults:
                broken.enter_context(fault.make(place))
            for fault in faults:
                for name, labels in fault.expected():
                    notice = place.receiver.wait_for(name, timeout=FIRES, since=started, **labels)
                    assert notice.annotations["runbook_url"].endswith(f"#{name.lower()}")
                    # What a template makes of a value or a label that it doesn't have.
                    text = " ".join(notice.annotations.values())
                    assert not re.search(r"NaN|\bInf\b|<no value>|<error|%!", text), text
                    told.append((fault, name, labels, notice))
            # The end of what is repaired first may arrive before all is.
            repairing = time.time()
        repaired = time.time()
        for fault, name, labels, notice in told:
            over = place.receiver.wait_for(name, "resolved", timeout=ENDS, since=repairing, **labels)
            figure(
                f"{name} ({notice.labels['severity']}): told {notice.arrived - started:.0f} s after "
                f"{fault.name}, its end {max(0, over.arrived - repaired):.0f} s after the repair"
                + (f"; time of the rules divided by {factor}" if factor != 1 else "")
            )


@contextmanager
def time_compressed(place: Place, factor: int) -> Iterator[None]:
    """Prometheus has the deployed rules with their time divided by `factor`, and looks every `INTERVAL_S`;
    Alertmanager doesn't wait for company."""
    if factor == 1:
        yield
        return
    own = place.settings.monitoring.prometheus.model_copy(update={"interval_s": INTERVAL_S})
    monitoring = place.settings.monitoring.model_copy(update={"prometheus": own})
    files = rules(place.settings.model_copy(update={"monitoring": monitoring}))
    with (
        prometheus_told(place, every_interval),
        told_otherwise(place, ALERTMANAGER_CONFIG, "prometheus-alertmanager", without_delay),
        ExitStack() as rewritten,
    ):
        try:
            for name, content in files.items():
                rewritten.enter_context(replaced(place.monitoring, f"/etc/prometheus/rules/{name}", content))
            groups = reloaded(place)
            for name in files:
                mine = [group for group in groups if group["file"].endswith(f"/{name}")]
                text = compressed(mine, factor, INTERVAL_S)
                place.monitoring.put(f"/etc/prometheus/rules/{name}", text.encode())
            assert reloaded(place) != groups
            yield
        finally:
            rewritten.close()
            place.monitoring.run("systemctl", "reload", "prometheus")


def every_interval(config: str) -> str:
    """Prometheus' configuration with other intervals."""
    new, found = re.subn(
        r"^(  (?:scrape_interval|scrape_timeout|evaluation_interval)): .*$",
        rf"\1: {INTERVAL_S}s",
        config,
        flags=re.MULTILINE,
    )
    assert found == 3, f"{found} intervals in Prometheus' configuration"
    return new


def without_delay(config: str) -> str:
    """Alertmanager's configuration with shorter waits for company."""
    new, found = re.subn(r"(group_(?:wait|interval)): (?:30s|1m)$", r"\1: 5s", config, flags=re.MULTILINE)
    assert found == 2, f"{found} waits in Alertmanager's configuration"
    return new


def reloaded(place: Place) -> list[dict[str, Any]]:
    """The groups of rules after Prometheus has read its configuration again."""
    url = f"http://127.0.0.1:{place.settings.monitoring.prometheus.port}"
    groups: list[dict[str, Any]] = place.monitoring.python(_RELOADED, url)
    return groups


_RELOADED = """
import json, subprocess, time, urllib.request
url, = arguments
def asked(path):
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return answer.read().decode()
def read_at():
    names = ("success_timestamp_seconds", "successful")
    names = [f"prometheus_config_last_reload_{name} " for name in names]
    lines = asked("/metrics").splitlines()
    return [float(line.split()[-1]) for name in names for line in lines if line.startswith(name)]
before = read_at()
deadline = time.monotonic() + 40
while time.monotonic() < deadline:
    subprocess.run(["systemctl", "reload", "prometheus"], check=True)
    time.sleep(1)
    at, succeeded = read_at()
    assert succeeded == 1, "Prometheus refuses its configuration"
    if at > before[0]:
        break
else:
    raise SystemExit("Prometheus has not read its configuration again")
keys = ("name", "type", "query", "duration", "labels", "annotations")
result = [
    {**{key: group[key] for key in ("name", "file", "interval")},
     "rules": [{key: rule[key] for key in keys if key in rule} for rule in group["rules"]]}
    for group in json.loads(asked("/api/v1/rules"))["data"]["groups"]
]
"""


@pytest.mark.both
def test_the_watchdog_arrives_again_and_again(receiver: Receiver) -> None:
    first = receiver.wait_for("Watchdog", timeout=FIRES)
    receiver.wait_for("Watchdog", since=first.arrived + 1, timeout=FIRES)

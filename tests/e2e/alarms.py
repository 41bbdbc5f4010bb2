"""What breaks, and the alerts that must come of it."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from bitrix_cdn.settings import Settings
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
from tests.kit.hosts import CONVERTER, Cdn, Shop, no_pictures
from tests.kit.lab import lab_command
from tests.kit.mounts import delayed, mounted_since, spool_files, spooled
from tests.kit.receiver import Receiver
from tests.kit.support import Remote, wait_until

FIRES = 300.0
"""Seconds that an alert may take to arrive on a loaded machine; how long it took is printed."""


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

    at_once: bool = False
    """Whether it is made with others: none of these keeps the alert of another one from being told."""

    def expected(self) -> list[tuple[str, dict[str, str]]]:
        """Each alert with its labels."""
        windows: list[dict[str, str]] = [{"window": window} for window in self.windows] or [{}]
        return [(name, labels | window) for name, labels in self.alerts.items() for window in windows]


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
    """A separate file system over a directory, with what a shell makes of it."""
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


def stop(unit: str) -> Make:
    """A unit of the CDN host is stopped."""
    return lambda place: stopped(place.cdn.remote, unit)


def disk(options: str, fill: str) -> Make:
    """A small file system of the CDN host, filled by a shell."""
    return lambda place: small_disk(place.cdn.remote, "/srv/alarm", options, fill=fill)


def prometheus(content: Callable[[str], str]) -> Make:
    """Prometheus has another configuration, derived from the deployed one."""
    return lambda place: told_otherwise(place, "/etc/prometheus/prometheus.yml", "prometheus", content)


def slowly_imported(*, stopped_s: float, going_s: float, most: int) -> Make:
    """Pictures come faster than workers convert them that are stopped again and again."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        with (
            workers_slowed(place.cdn, stopped_s=stopped_s, going_s=going_s),
            importing(place.cdn, place.shop, per_s=40, most=most),
        ):
            yield

    return make


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


_KILL_WORKERS = (
    WORKERS
    + """
main, dead, seconds = arguments
def letters():
    return int(os.popen(f"cdn-host redis queue xlen {dead}").read())
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


def redis_cli(place: Place, *command: str) -> str:
    return place.cdn.remote.run("cdn-host", "redis", "queue", *command).strip()


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


@contextmanager
def variant_that_can_not_be_read(place: Place) -> Iterator[None]:
    remote = place.cdn.remote
    variant = f"{place.settings.cdn.resize_cache}/bitrix-cdn/probe.jpg.webp"
    # It would be renewed every few minutes.
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
    with originals(place.shop, 6000) as bad, no_ssh(place.cdn.remote, place.bitrix):
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
def host_without_power(place: Place) -> Iterator[None]:
    lab_command("kill", "bitrix")
    place.bitrix.disconnect()
    try:
        yield
    finally:
        lab_command("start", "bitrix")


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
def failed_service(place: Place) -> Iterator[None]:
    place.bitrix.run("systemd-run", "-q", "--unit=alarm", "false")
    try:
        yield
    finally:
        place.bitrix.run("systemctl", "reset-failed", "alarm.service")


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


@contextmanager
def process_without_memory(place: Place) -> Iterator[None]:
    end_for_lack_of_memory()
    yield


@contextmanager
def visitors_who_ask_once(place: Place) -> Iterator[None]:
    with originals(place.shop, 20_000) as once, visited(place, once):
        yield


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
        lambda place: no_ssh(place.cdn.remote, place.bitrix),
        {"MountDown": {**ON_CDN, "mount": "originals"}},
        at_once=True,
    ),
    Fault("another host key", another_host_key, {"MountRefused": {**ON_BITRIX, "reason": "host_key"}}),
    Fault(
        "a CDN host without room",
        cdn_without_room,
        {"MountFull": ON_BITRIX, "ConverterDegraded": {**ON_CDN, "part": "disk"}},
    ),
    Fault("a guard that is gone", guard_gone, {"MountUnwatched": {"mount": "originals"}}),
    Fault("a file that is held open", file_held_open, {"SpoolNotDraining": ON_BITRIX}, factor=20),
    Fault("the converter stopped", stop(CONVERTER), {"ConverterDown": ON_CDN}, at_once=True),
    Fault(
        "workers that die of a picture",
        workers_that_die_of_a_picture,
        {"DeadLetters": ON_CDN, "WorkersDying": ON_CDN},
        factor=10,
    ),
    Fault("cut off pictures", cut_off_pictures, {"DamagedPictures": ON_CDN}, factor=15),
    Fault(
        "an import on a slow host",
        slowly_imported(stopped_s=0.9, going_s=0.05, most=12_000),
        {"QueueGrowing": ON_CDN, "PublishingSlow": ON_CDN},
        factor=20,
    ),
    Fault(
        "workers that stand still",
        slowly_imported(stopped_s=1, going_s=0, most=60),
        {"QueueStuck": ON_CDN},
        factor=10,
    ),
    Fault("workers without memory", workers_without_memory, {"ConversionsFailing": ON_CDN}, factor=40),
    Fault("bursts of writes", bursts_of_writes, {"EventsLost": ON_CDN}, factor=20),
    Fault("pictures that are compressed hard", pictures_compressed_hard, {"SavingLow": ON_CDN}, factor=960),
    Fault("a quality set too low", quality_set_too_low, {"SimilarityLow": ON_CDN}, factor=960),
    Fault("a disk filled by others", disk_filled_by_others, {"EvictionCannotFree": ON_CDN}),
    *(
        Fault(
            f"the Redis of the {instance} stopped",
            stop(f"redis-server@{instance}"),
            {"RedisDown": {**ON_CDN, "redis": instance, "severity": severity}},
        )
        for instance, severity in (("queue", "critical"), ("cache", "warning"))
    ),
    Fault("a queue that forgets", queue_that_forgets, {"QueueEvicted": ON_CDN}, factor=10),
    Fault("a queue that is nearly full", queue_nearly_full, {"QueueMemoryHigh": ON_CDN}),
    Fault("nginx stopped", stop("nginx"), {"PicturesNotServed": ON_CDN, "CertificateProbeFailing": ON_CDN}),
    Fault("a variant that can't be read", variant_that_can_not_be_read, {"WebpNotServed": ON_CDN}),
    Fault("the site stopped", site_stopped, {"SiteNotAnswering": ON_BITRIX}),
    Fault("Varnish stopped", stop("varnish"), {"VarnishDown": ON_CDN}),
    Fault("the server of the originals stopped", stop("nginx-originals"), {"VarnishBackendSick": ON_CDN}),
    Fault(
        "a certificate of a day",
        certificate_of_a_day,
        {"CertificateExpiring": {**ON_CDN, "severity": "critical"}},
        at_once=True,
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
    Fault("an exporter stopped", stop("mtail"), {"TargetDown": {**ON_CDN, "job": "edge"}}, at_once=True),
    Fault(
        "a job forgotten",
        prometheus(lambda text: text.replace("job_name: edge", "job_name: edge-renamed")),
        {"JobMissing": {"job": "edge"}},
    ),
    Fault(
        "a full disk",
        disk("size=100m", "head -c 98M /dev/zero > full.bin"),
        {"DiskLow": {**ON_CDN, "mountpoint": "/srv/alarm", "severity": "critical"}},
        at_once=True,
    ),
    Fault(
        "a disk that fills",
        filling_disk,
        {"DiskFilling": {**ON_CDN, "mountpoint": "/srv/alarm"}},
        factor=72,
    ),
    Fault("a process without memory", process_without_memory, {"OutOfMemory": ON_CDN}, factor=10),
    Fault(
        "a disk without inodes",
        disk("size=100m,nr_inodes=100", "for i in $(seq 200); do : > $i; done"),
        {"InodesLow": {**ON_CDN, "mountpoint": "/srv/alarm"}},
    ),
    Fault(
        "a service that failed",
        failed_service,
        {"ServiceFailed": {**ON_BITRIX, "name": "alarm.service"}},
        at_once=True,
    ),
    Fault(
        "drift",
        drift_told,
        {"DriftFound": ON_BITRIX, "DriftCheckFailed": ON_BITRIX, "DriftCheckStale": ON_CDN},
        at_once=True,
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
        prometheus(lambda text: text + "\nnonsense: true\n"),
        {"ConfigReloadFailed": {"job": "prometheus"}},
    ),
]
"""All of them, in the order in which they are made."""

"""Each alert is made to ring by a real fault, arrives at a receiver here, and ends with its repair.

`make test` makes some of the faults at once; `make alerts` makes each of them alone, an hour a suite.
Alerts with windows of hours, and those whose cause can't be had in the lab, are in `PROVEN_OTHERWISE`; all
of them have a case in tests/prometheus.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from settings import Settings
from tests.e2e.conftest import CONVERTER, Cdn, Shop
from tests.e2e.test_hostile_files import no_pictures
from tests.e2e.test_outages import lab_command, mounted_since, spool_files, spooled
from tests.receiver import Notice, Receiver, receiving
from tests.support import Figure, Remote, wait_until

FIRES = 300.0
"""Seconds that an alert may take to arrive on a loaded machine; how long it took is printed."""

ENDS = 300.0
"""The same for its end."""

PROVEN_OTHERWISE = {
    "SpoolNotDraining": "a file must stay in the spool for ten minutes",
    "QueueGrowing": "the queue must grow for twenty minutes",
    "QueueStuck": "nothing may be decided for five minutes",
    "ConversionsFailing": "counts an hour, and needs five pictures given up",
    "EventsLost": "hosts of the lab can't make their queue of events shorter",
    "PublishingSlow": "needs a slow host for a quarter of an hour",
    "SavingLow": "counts a day",
    "SimilarityLow": "counts a day, and must not happen",
    "AvailabilityBurning": "its shortest window of errors that matter is an hour",
    "LatencyBurning": "its shortest window is an hour",
    "CacheHitLow": "counts an hour, for an hour",
    "DiskFilling": "looks back six hours",
    "BackupFailed": "the lab's inventory has no backups; test_backup.py makes it ring",
    "BackupStale": "the lab's inventory has no backups, and it looks back more than a day",
    "BackupMissing": "the lab's inventory has no backups, and it waits more than a day",
    "OutOfMemory": "hosts of the lab have limits only where the machine has controllers",
    "ClockSkew": "hosts of the lab have the machine's clock",
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

    lasting: frozenset[str] = field(default=frozenset())
    """Those of them that look back for so long that their end isn't waited for here."""


@pytest.fixture(scope="session")
def receiver(settings: Settings) -> Iterator[Receiver]:
    """What the lab's inventory has as its webhook."""
    urls = settings.monitoring.alertmanager.webhook.urls
    assert urls, "the lab's inventory names no webhook"
    address = urlsplit(urls[0])
    assert address.hostname
    with receiving(address.hostname, address.port or 80) as receiver:
        yield receiver


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
    table = f"table bridge bitrix-cdn-alerts {{\n{chain}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=table.encode(), check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "bridge", "bitrix-cdn-alerts"], check=True)


# Mounts


@contextmanager
def site_without_its_pictures(place: Place) -> Iterator[None]:
    with no_ssh(place.bitrix, place.cdn.remote):
        wait_until(
            "the guard to notice",
            lambda: place.bitrix.run("mount-guard", "status", "resize-cache", check=False),
            lambda said: "waiting" in said or "connecting" in said,
        )
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


# Workers are the children of its only child that has any.
_KILL_WORKERS = """
import os, signal, time
main, dead, seconds = arguments
def parents():
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    return found
def letters():
    return int(os.popen(f"redis-cli -s /run/redis-queue/redis.sock xlen {dead}").read())
deadline = time.monotonic() + seconds
killed = 0
while time.monotonic() < deadline and not letters():
    of = parents()
    for pid, parent in of.items():
        if of.get(parent) == main:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
    time.sleep(0.7)
result = [killed, letters()]
"""


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
def prometheus_told(place: Place, content: Callable[[str], str]) -> Iterator[None]:
    path = "/etc/prometheus/prometheus.yml"
    new = content(place.monitoring.run("cat", path))
    try:
        with replaced(place.monitoring, path, new):
            place.monitoring.run("systemctl", "reload", "prometheus")
            yield
    finally:
        place.monitoring.run("systemctl", "reload", "prometheus")


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
    Fault("the converter stopped", converter_stopped, {"ConverterDown": ON_CDN}),
    Fault(
        "workers that die of a picture",
        workers_that_die_of_a_picture,
        {"DeadLetters": ON_CDN, "WorkersDying": ON_CDN},
        lasting=frozenset({"WorkersDying"}),
    ),
    Fault(
        "cut off pictures",
        cut_off_pictures,
        {"DamagedPictures": ON_CDN},
        lasting=frozenset({"DamagedPictures"}),
    ),
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
        lasting=frozenset({"QueueEvicted"}),
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
    Fault("a disk without inodes", no_inodes, {"InodesLow": {**ON_CDN, "mountpoint": "/srv/alarm"}}),
    Fault("a service that failed", failed_service, {"ServiceFailed": {**ON_BITRIX, "name": "alarm.service"}}),
    Fault(
        "drift",
        drift_told,
        {"DriftFound": ON_BITRIX, "DriftCheckFailed": ON_BITRIX, "DriftCheckStale": ON_CDN},
    ),
    Fault(
        "a rule that fails", rule_that_fails, {"RulesFailing": ON_CDN}, lasting=frozenset({"RulesFailing"})
    ),
    Fault(
        "a receiver that refuses",
        receiver_that_refuses,
        {"NotificationsFailing": {**ON_CDN, "integration": "webhook"}},
        lasting=frozenset({"NotificationsFailing"}),
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
    told_and_ended(faults, place, figure)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_rings_and_its_repair_ends_that(fault: Fault, place: Place, figure: Figure) -> None:
    told_and_ended([fault], place, figure)


def told_and_ended(faults: Sequence[Fault], place: Place, figure: Figure) -> None:
    """Makes faults, waits for all of their alerts, repairs them, and waits for the alerts' ends."""
    told: dict[str, Notice] = {}
    started = time.time()
    with ExitStack() as broken:
        for fault in faults:
            broken.enter_context(fault.make(place))
        for fault in faults:
            for name, labels in fault.alerts.items():
                notice = place.receiver.wait_for(name, timeout=FIRES, since=started, **labels)
                assert notice.annotations["runbook_url"].endswith(f"#{name.lower()}")
                told[name] = notice
    repaired = time.time()
    for fault in faults:
        for name, labels in fault.alerts.items():
            line = f"{name}: told {told[name].arrived - started:.0f} s after {fault.name}"
            if name not in fault.lasting:
                over = place.receiver.wait_for(name, "resolved", timeout=ENDS, since=repaired, **labels)
                line += f", its end {over.arrived - repaired:.0f} s after the repair"
            figure(f"{line} ({told[name].labels['severity']})")


def test_the_watchdog_arrives_again_and_again(receiver: Receiver) -> None:
    first = receiver.wait_for("Watchdog", timeout=FIRES)
    receiver.wait_for("Watchdog", since=first.arrived + 1, timeout=FIRES)

"""Eviction and full disks, on real daemons."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import pytest
from converter_app.tests.harness import (
    DaemonProcess,
    RedisServer,
    StartDaemon,
    decided,
    needs_root,
    read_days_ago,
    variant_of,
    wait_until,
)
from tests.kit import pictures

from webp_converter.config import Config, Queue
from webp_converter.queue.jobs import Job, Jobs, Priority
from webp_converter.variants.disk import FULL_PAUSE_S, Disk
from webp_converter.variants.store import EVICTED, XATTR, Store, is_evicted

STREAMS = ("high", "normal", "low", "later", "dead")


def metric(daemon: DaemonProcess, name: str) -> float:
    """A metric's value, by its name with labels; 0 while it isn't there."""
    with urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"webp_converter_{name} "):
                return float(line.rpartition(" ")[2])
    return 0.0


def write(directory: Path, count: int) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{k}.jpg" for k in range(count)]
    for path in paths:
        path.write_bytes(pictures.jpeg(side=300))
    return paths


def test_evicted_and_back_on_demand(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    daemon = start_daemon(store={"evict_every_s": 1}, watch={"scan_every_s": 1}, queue={"consumer": "one"})
    paths = write(daemon.root / "iblock" / "300_300_1", 6)
    wait_until(lambda: all(decided(path) for path in paths))
    unread, read = paths[:3], paths[3:]
    for path in unread:
        read_days_ago(variant_of(path), 31)
    wait_until(lambda: not any(variant_of(path).exists() for path in unread))
    assert all(is_evicted(os.fsencode(path)) for path in unread)
    wait_until(lambda: metric(daemon, 'evicted_total{why="age"}') == 3)
    assert metric(daemon, 'evicted_bytes_total{why="age"}') > 0
    assert abs(metric(daemon, "eviction_time_seconds") - time.time()) < 60

    # Neither the note's event nor the next scans bring them back.
    scans = metric(daemon, "scans_total")
    wait_until(lambda: metric(daemon, "scans_total") >= scans + 3)
    assert not any(variant_of(path).exists() for path in unread)
    assert all(variant_of(path).exists() for path in read)
    assert len(daemon.log("published")) == 6

    # A visitor does: what the miss log makes of it is a job of high priority.
    Jobs(Queue(url=redis_server.url)).ask([Job(os.fsencode(unread[0]), time.time_ns(), Priority.HIGH)])
    wait_until(lambda: decided(unread[0]) and variant_of(unread[0]).exists())
    wait_until(lambda: EVICTED not in os.listxattr(unread[0]))
    # And so does a new content.
    unread[1].write_bytes(pictures.jpeg("coffee.png", side=300))
    wait_until(lambda: variant_of(unread[1]).exists() and decided(unread[1]))
    unread[2].unlink()
    wait_until(lambda: (health := daemon.health()) and health["queue"] == dict.fromkeys(STREAMS, 0))
    assert len(daemon.log("published")) == 8


def test_the_daemon_killed_again_and_again_amid_evictions(start_daemon: StartDaemon) -> None:
    """Afterwards each original has its variant, or the note."""
    daemon = start_daemon(store={"evict_every_s": 1})
    paths = write(daemon.root / "300_300_1", 40)
    wait_until(lambda: all(decided(path) for path in paths), timeout_s=40)
    generator = random.Random(5)
    for _ in range(3):
        for path in paths:
            if variant_of(path).exists():
                read_days_ago(variant_of(path), 31)
        time.sleep(generator.uniform(0, 1.2))
        daemon.kill()
        assert all(variant_of(path).exists() or is_evicted(os.fsencode(path)) for path in paths)
        daemon.start()
    wait_until(lambda: not any(variant_of(path).exists() for path in paths))
    assert all(is_evicted(os.fsencode(path)) for path in paths)


def test_a_disk_filled_by_others_is_no_reason_to_look_all_the_time(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(store={"high_water": 0.001, "low_water": 0.001}, watch={"scan_every_s": 2})
    [path] = write(daemon.root, 1)
    wait_until(lambda: daemon.log("evicted"))
    scans = metric(daemon, "scans_total")
    wait_until(lambda: metric(daemon, "scans_total") >= scans + 3)
    assert len(daemon.log("above the high-water mark")) == 1
    assert daemon.log("evicted")[0]["missing_bytes"] > 0
    assert path.exists()


def test_scans_come_by_themselves(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(watch={"scan_every_s": 1})
    [path] = write(daemon.root, 1)
    wait_until(lambda: decided(path))
    variant_of(path).unlink()
    wait_until(lambda: decided(path))
    assert len(daemon.log("scanned")) >= 2


# A disk that fills up


@pytest.fixture
def small_daemon(tmp_path: Path, redis_server: RedisServer) -> Iterator[DaemonProcess]:
    """A daemon, not started, on a separate file system of 8 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=400", "webp-converter-test", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"can't mount: {mounted.stderr.strip()}")
    daemon = DaemonProcess(
        directory / "cdn",
        redis_server.url,
        store={"minimum_free_mib": 0, "high_water": 1, "low_water": 1},
        queue={"tries": 1},
        watch={"scan_every_s": 1},
    )
    # The log would fill the disk as well.
    daemon.log_file = tmp_path / "daemon.log"
    yield daemon
    daemon.kill()
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path, leave: int = 0) -> Path:
    """A file that takes all but so many bytes of what is free."""
    filler = directory / "filler"
    space = os.statvfs(directory)
    with filler.open("wb") as file:
        file.write(b"f" * max(0, space.f_bavail * space.f_frsize - leave))
    return filler


def unfinished(daemon: DaemonProcess) -> list[Path]:
    """Files not yet published."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return [file for file in daemon.temporary.rglob("*") if file.is_file()]


def disk_part(daemon: DaemonProcess) -> dict[str, Any]:
    health = daemon.health()
    assert health
    part: dict[str, Any] = health["parts"]["disk"]
    return part


def test_a_disk_that_was_full_is_called_full_until_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free is more than the least that is wanted, and still too little for a picture."""
    scan_wanted = threading.Event()
    config = Config.model_validate({"store": {"root": str(tmp_path), "minimum_free_mib": 0}})
    disk = Disk(config, cast("Store", SimpleNamespace(check=lambda: None)), scan_wanted)
    disk.full("no space left")
    disk.check()
    assert disk.problem == "no space left"
    assert not scan_wanted.is_set()
    later = time.monotonic() + FULL_PAUSE_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    disk.check()
    assert disk.problem == ""
    assert scan_wanted.is_set()


@needs_root
@pytest.mark.parametrize("leave", [0, 4096, 20_000])
def test_a_full_disk_is_a_pause(small_daemon: DaemonProcess, leave: int) -> None:
    """Whether nothing fits any more, an empty file or a part of a variant."""
    daemon = small_daemon
    daemon.start()
    directory = daemon.root / "450_450_1"
    directory.mkdir()
    before = directory / "before.jpg"
    before.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(before))
    paths = [directory / f"{k}.jpg" for k in range(12)]
    filler = fill(daemon.root.parent, leave + 12 * 4096 * (1 + len(pictures.jpeg()) // 4096))
    for path in paths:
        path.write_bytes(pictures.jpeg())
    wait_until(lambda: daemon.log("disk"), timeout_s=30)
    assert daemon.log("disk")[0]["reason"]
    if leave == 0:
        wait_until(lambda: disk_part(daemon)["status"] == "degraded")
        health = daemon.health()
        assert health
        assert health["status"] == "degraded"
        assert disk_part(daemon)["reason"]
        wait_until(lambda: metric(daemon, 'part_up{part="disk"}') == 0)
    for path in paths:
        # Nothing, or all of it.
        if variant_of(path).exists():
            assert pictures.opened(variant_of(path).read_bytes()).format == "WEBP"
            assert os.getxattr(variant_of(path), XATTR)
    assert daemon.process
    assert daemon.process.poll() is None
    # Half-written files don't pile up and keep the disk full.
    wait_until(lambda: unfinished(daemon) == [])

    filler.unlink()
    wait_until(lambda: all(decided(path) and variant_of(path).exists() for path in paths), timeout_s=60)
    wait_until(lambda: (health := daemon.health()) and health["status"] == "ok", timeout_s=30)
    wait_until(lambda: metric(daemon, 'part_up{part="disk"}') == 1)
    health = daemon.health()
    assert health
    assert health["queue"]["dead"] == 0
    assert unfinished(daemon) == []


@needs_root
def test_a_verdict_that_no_longer_fits_waits_as_well(small_daemon: DaemonProcess) -> None:
    """A picture that is given up while the disk is full gets its verdict later."""
    daemon = small_daemon
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text + "\n[workers]\nmemory_limit_mib = 256\ncount = 1\n")
    daemon.start()
    path = daemon.root / "large.jpg"
    large = pictures.encoded(pictures.photograph(side=64).resize((5500, 5500)))
    space = os.statvfs(daemon.root)
    assert len(large) < space.f_bavail * space.f_frsize
    outside = daemon.root.parent / "large.jpg"
    outside.write_bytes(large)
    filler = fill(daemon.root.parent)
    inodes = use_up_inodes(daemon.root.parent)
    outside.rename(path)
    wait_until(lambda: daemon.log("disk"), timeout_s=30)
    assert daemon.process
    assert daemon.process.poll() is None
    filler.unlink()
    for file in inodes:
        file.unlink()
    wait_until(lambda: decided(path), timeout_s=60)
    wait_until(lambda: (health := daemon.health()) and health["queue"].get("dead") == 1)


def use_up_inodes(directory: Path) -> list[Path]:
    """Empty files until no more can be made."""
    files = []
    for k in range(400):
        file = directory / f"inode{k}"
        try:
            file.touch()
        except OSError:
            break
        files.append(file)
    return files


@needs_root
def test_above_the_high_water_mark_the_least_recently_read_go(
    small_daemon: DaemonProcess,
) -> None:
    daemon = small_daemon
    text = daemon.config_file.read_text().replace("high_water = 1", "high_water = 0.7\nevict_every_s = 3600")
    daemon.config_file.write_text(text.replace("low_water = 1", "low_water = 0.6"))
    daemon.start()
    paths = write(daemon.root / "300_300_1", 60)
    wait_until(lambda: all(decided(path) for path in paths), timeout_s=60)
    for age, path in enumerate(paths):
        read_days_ago(variant_of(path), 1 + age / 10)
    space = os.statvfs(daemon.root)
    total = space.f_blocks * space.f_frsize
    fill(daemon.root.parent, int(total * 0.27))
    wait_until(lambda: metric(daemon, 'evicted_total{why="space"}') > 0, timeout_s=30)
    there = [variant_of(path).exists() for path in paths]
    assert there == sorted(there, reverse=True)
    assert not all(there)
    evicted = [path for path in paths if not variant_of(path).exists()]
    assert all(is_evicted(os.fsencode(path)) for path in evicted)
    assert daemon.log("above the high-water mark")

"""What may break while the daemon works, and what holds whatever breaks.

A reader goes through the tree the whole time, as visitors do, and fails the test if a variant was ever
partial, empty, not to be decoded or not what its mark says. After each fault every original has its decision
and no job is left. `FAULTS=full` (`make faults`) kills as often as the promise says; the changes to the tree
follow a seed, which `FAULT_SEED` sets.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
import redis
from converter_app.tests.harness import DaemonProcess, RedisServer, StartDaemon, wait_until
from converter_app.tests.shop import Shop, contents, reader, settle
from PIL import Image
from tests.kit import pictures

from webp_converter.queue.jobs import GROUP
from webp_converter.variants.store import KEEP, XATTR, Mark

FULL = os.environ.get("FAULTS") == "full"

# A worker that is killed costs a try; here it is the test that kills, and pictures are not to be given up.
PATIENT = {"tries": 100, "retry_pause_s": 0.05}


def scaled(full: int, quick: int) -> int:
    return full if FULL else quick


@pytest.fixture
def seed() -> int:
    number = int(os.environ.get("FAULT_SEED") or random.randrange(1_000_000))
    print(f"FAULT_SEED={number}")
    return number


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(redis_server.socket))


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> DaemonProcess:
    return start_daemon(queue={**PATIENT, "consumer": "one"})


@pytest.fixture
def shop(daemon: DaemonProcess, seed: int) -> Iterator[Shop]:
    shop = Shop(daemon.root, seed)
    with reader(shop.root):
        yield shop


def degraded(daemon: DaemonProcess, part: str) -> None:
    wait_until(lambda: (health := daemon.health()) and health["parts"][part]["status"] == "degraded")


# The daemon is killed


def test_the_daemon_killed_at_random_moments(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for number in range(scaled(50, 3)):
        if number:
            daemon.start(ready=False)
        if number % 4 == 2:  # while it starts, watches and scans
            shop.busy(shop.random.uniform(0, 1.2))
            daemon.kill()
            shop.storm()
            shop.move_a_tree()
            daemon.start(ready=False)
        settle(shop, queue, daemon)
        shop.busy(shop.random.uniform(0, 0.4))
        daemon.kill()
        for _ in range(shop.random.randrange(6)):
            shop.change()
    daemon.start(ready=False)
    settle(shop, queue, daemon)


def test_two_daemons_race_for_one_tree(
    daemon: DaemonProcess, start_daemon: StartDaemon, shop: Shop, queue: redis.Redis
) -> None:
    other = start_second(start_daemon, daemon)
    shop.busy(scaled(20, 2))
    settle(shop, queue, daemon, other)
    published = [
        {line["path"] for line in one.log() if line["event"] in ("published", "kept")}
        for one in (daemon, other)
    ]
    assert all(published), "one of the two did all the work"


def start_second(start_daemon: StartDaemon, first: DaemonProcess) -> DaemonProcess:
    """A second daemon in the same group, over the same tree."""
    store = {"root": str(first.root), "temporary": str(first.temporary)}
    return start_daemon(store=store, queue={**PATIENT, "consumer": "other", "claim_idle_s": 1})


def test_a_living_daemon_takes_over_a_dead_one_s_jobs(
    daemon: DaemonProcess, start_daemon: StartDaemon, shop: Shop, queue: redis.Redis
) -> None:
    other = start_second(start_daemon, daemon)
    for _ in range(scaled(10, 1)):
        wait_until(lambda: shop.write(30) and began(queue, b"one") and began(queue, b"other"))
        daemon.kill()
        settle(shop, queue, other)
        daemon.start()
    assert not other.log("try failed"), "to die is not a picture's fault"


def began(queue: redis.Redis, consumer: bytes) -> int:
    """How many jobs a daemon has taken and not finished."""
    found = queue.xinfo_consumers("webp:normal", GROUP)
    return sum(int(one["pending"]) for one in found if one["name"] == consumer)


# Workers are killed


def processes_below(daemon: DaemonProcess) -> dict[int, int]:
    """The parent of each process that the daemon has started, or one of those."""
    assert daemon.process
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {daemon.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: parents[pid] for pid in found - {daemon.process.pid}}


def workers_of(daemon: DaemonProcess) -> list[int]:
    """The processes at the end of the tree of processes: workers, and now and then one that scans."""
    processes = processes_below(daemon)
    return sorted(processes.keys() - set(processes.values()))


def cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def hit(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def test_workers_killed_at_random_moments(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for _ in range(scaled(30, 3)):
        shop.busy(shop.random.uniform(0, 0.3))
        workers = workers_of(daemon)
        for pid in shop.random.sample(workers, k=min(len(workers), shop.random.choice((1, 2)))):
            hit(pid)
    settle(shop, queue, daemon)
    assert daemon.process
    assert daemon.process.poll() is None


def test_idle_workers_and_all_processes_killed(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for victims in (workers_of, processes_below, workers_of):
        for pid in victims(daemon):
            hit(pid)
        shop.write(5)
        settle(shop, queue, daemon)


def test_a_worker_that_segfaults(start_daemon: StartDaemon, seed: int, queue: redis.Redis) -> None:
    """Three workers die of one picture, and it is given up; the rest is converted meanwhile."""
    daemon = start_daemon(queue={"tries": 3, "retry_pause_s": 0.05})
    shop = Shop(daemon.root, seed)
    deadly, harmless = expensive(), pictures.jpeg(side=64)
    with reader(shop.root, deadly, harmless):
        path = daemon.root / "deadly.jpg"
        shop.put(path, deadly)
        tries = 0
        while tries < 3:
            known = {pid: cpu_ticks(pid) for pid in workers_of(daemon)}
            time.sleep(0.1)
            running = {pid: cpu_ticks(pid) - ticks for pid, ticks in known.items()}
            busiest = max(running, key=lambda pid: running[pid], default=0)
            if running.get(busiest, 0) >= 5:  # half of that time
                hit(busiest, signal.SIGSEGV)
                shop.write(3)
                tries += 1
                wait_until(lambda tries=tries: tried(daemon, path) >= tries)
        wait_until(lambda: verdict(path) == "failed")
        settle(shop, queue, daemon)
        [(_, letter)] = queue.xrange("webp:dead")
        assert letter[b"path"] == os.fsencode(path)
        assert letter[b"tries"] == b"3"
        # Another content is another picture.
        shop.put(path, harmless)
        settle(shop, queue, daemon)
        assert verdict(path) != "failed"


def tried(daemon: DaemonProcess, path: Path) -> int:
    lines = daemon.log("try failed") + daemon.log("given up")
    return max((line["tries"] for line in lines if line["path"] == str(path)), default=0)


def verdict(path: Path) -> str | None:
    try:
        mark = Mark.parse(os.getxattr(os.fsencode(path) + KEEP, XATTR))
    except FileNotFoundError:
        return None
    return mark.verdict if mark else None


@cache
def expensive() -> bytes:
    """A picture that takes any machine more than a second."""
    return pictures.encoded(Image.effect_noise((6000, 6000), 80).convert("RGB"))


def greedy_png() -> bytes:
    return pictures.encoded(Image.new("RGB", (6300, 6300), "red"), "PNG")


def greedy_jpeg() -> bytes:
    """All scans of a progressive JPEG are kept until the last has been read."""
    image = Image.linear_gradient("L").resize((6000, 6000)).convert("RGB")
    return pictures.encoded(image, progressive=True, subsampling=0)


@pytest.mark.parametrize(
    ("make", "limits", "reason"),
    [
        (expensive, {"time_limit_s": 1}, b"not done after 1 s"),
        (greedy_png, {"memory_limit_mib": 400}, b"MemoryError"),
        (greedy_jpeg, {"memory_limit_mib": 400}, b"MemoryError"),
    ],
)
def test_a_picture_beyond_a_worker_s_limits(
    start_daemon: StartDaemon,
    seed: int,
    queue: redis.Redis,
    make: Callable[[], bytes],
    limits: dict[str, int],
    reason: bytes,
) -> None:
    daemon = start_daemon(
        queue={"tries": 2, "retry_pause_s": 0.05},
        workers=limits,
        watch={"damaged_rest_s": 1, "intermediate_rest_s": 0},
    )
    shop = Shop(daemon.root, seed)
    data = make()
    with reader(shop.root, data):
        path = daemon.root / "200_200_1" / "greedy.jpg"
        shop.put(path, data)
        shop.write(20)
        wait_until(lambda: verdict(path) == "failed" or not path.exists(), timeout_s=40)
        assert path.exists(), "a picture that is whole was taken for a damaged one"
        settle(shop, queue, daemon)
        [(_, letter)] = queue.xrange("webp:dead")
        assert letter[b"path"] == os.fsencode(path)
        assert reason in letter[b"reason"]


# Redis fails


def test_redis_killed_amid_the_work(
    daemon: DaemonProcess, shop: Shop, queue: redis.Redis, redis_server: RedisServer
) -> None:
    for _ in range(scaled(15, 2)):
        shop.busy(shop.random.uniform(0, 0.5))
        redis_server.kill()
        shop.busy(shop.random.uniform(0, 0.5))
        redis_server.start()
        shop.busy(shop.random.uniform(0, 0.2))
        settle(shop, queue, daemon)


def test_redis_flushed_amid_the_work(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for _ in range(scaled(30, 3)):
        for _ in range(shop.random.randrange(1, 4)):
            shop.busy(shop.random.uniform(0, 0.3))
            queue.flushall()
        settle(shop, queue, daemon)


def test_redis_hangs(
    daemon: DaemonProcess, shop: Shop, queue: redis.Redis, redis_server: RedisServer
) -> None:
    for _ in range(scaled(3, 1)):
        shop.busy(0.2)
        assert redis_server.process
        redis_server.process.send_signal(signal.SIGSTOP)
        shop.busy(0.2)
        shop.write()
        degraded(daemon, "queue")
        redis_server.process.send_signal(signal.SIGCONT)
        settle(shop, queue, daemon)


def test_redis_out_of_memory(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for _ in range(scaled(5, 1)):
        shop.busy(0.3)
        queue.config_set("maxmemory", 1)
        shop.busy(0.5)
        degraded(daemon, "queue")
        shop.busy(0.3)
        queue.config_set("maxmemory", 0)
        settle(shop, queue, daemon)


def test_a_queue_that_is_too_small_for_the_tree(
    daemon: DaemonProcess, shop: Shop, queue: redis.Redis
) -> None:
    """What fits into it is converted, and the next scan queues more, without any help."""
    daemon.kill()
    directory = shop.root / ("long name " * 20) / ("longer name " * 20)
    page = next(data for data in contents() if data.startswith(b"<"))  # decided at once
    for k in range(1300):
        shop.put(directory / f"{k}.jpg", page)
    queue.config_set("maxmemory", int(queue.info("memory")["used_memory"]) + 1_000_000)
    daemon.start(ready=False)
    settle(shop, queue, daemon)
    assert any(not line["complete"] for line in daemon.log("scanned")), "all of it fitted"


# The disk is full


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("scarce", ["blocks", "inodes"])
def test_a_full_disk(
    start_daemon: StartDaemon, tmp_path: Path, seed: int, queue: redis.Redis, scarce: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=6m,nr_inodes=1000"):
        root = disk / "upload"
        root.mkdir()
        store = {"root": str(root), "temporary": str(disk / "tmp"), "minimum_free_mib": 0}
        # Nothing is evicted: what is evicted comes back only when somebody asks for it.
        daemon = start_daemon(store={**store, "high_water": 1.0, "low_water": 1.0}, queue=PATIENT)
        daemon.temporary = disk / "tmp"
        shop = Shop(root, seed)
        with reader(root):
            shop.write(20)
            settle(shop, queue, daemon)
            for _ in range(scaled(5, 1)):
                daemon.kill()
                shop.write(60)
                filler = disk / "filler"
                filler.mkdir()
                leave_no_room(filler, scarce)
                daemon.start(ready=False)
                degraded(daemon, "disk")
                for path in shop.originals()[:5]:
                    shop.remove(path)  # a little room, for some
                for path in filler.iterdir():
                    path.unlink()
                filler.rmdir()
                settle(shop, queue, daemon)
        assert not daemon.log("loop failed")
        daemon.kill()


def leave_no_room(directory: Path, scarce: str) -> None:
    try:
        if scarce == "blocks":
            with (directory / "file").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            for k in range(10_000):
                (directory / str(k)).touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise

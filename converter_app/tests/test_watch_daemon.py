"""What the daemon makes of events in the tree that are rare, and must not be missed or followed."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from converter_app.tests.harness import DaemonProcess, RedisServer, StartDaemon, wait_until
from converter_app.tests.shop import Shop, contents, reader, settle


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> DaemonProcess:
    return start_daemon()


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(redis_server.socket))


@pytest.fixture
def shop(daemon: DaemonProcess) -> Iterator[Shop]:
    shop = Shop(daemon.root, 1)
    with reader(shop.root):
        yield shop


def test_more_events_than_the_kernel_keeps(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    """The daemon sleeps while its queue of events overflows: it notices, watches again and scans."""
    kept = shop.write(5)
    settle(shop, queue, daemon)
    assert daemon.process
    daemon.process.send_signal(signal.SIGSTOP)
    rewritten, removed = kept[0], kept[1]
    # A deploy of a lab raises it, for this kernel, and the daemon began with what it was then.
    limit = max(262_144, int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()))
    noise = [shop.root / name for name in ("one.txt", "other.txt")]
    for path in noise:
        path.touch()
    for k in range(limit + 100):  # the kernel merges events that are equal and adjacent
        os.utime(noise[k % 2])
    shop.rewrite(rewritten)
    shop.remove(removed)
    shop.storm()
    shop.move_a_tree()
    daemon.process.send_signal(signal.SIGCONT)
    settle(shop, queue, daemon)
    assert daemon.log("events lost")
    # And what happens from now on is seen again.
    scans = len(daemon.log("scanned"))
    shop.storm()
    settle(shop, queue, daemon)
    assert len(daemon.log("scanned")) == scans


def test_trees_change_places(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    """Two trees with the same names in them: each picture's decision must be its own afterwards."""
    one, other, aside = (shop.root / name for name in ("one", "other", "aside"))
    first, second = shop.write(10, one / "200_200_1"), shop.write(10, other / "200_200_1")
    settle(shop, queue, daemon)
    for _ in range(3):
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        shop.rewrite(other / "200_200_1" / first[0].name)
        shop.rewrite(one / "200_200_1" / second[0].name)
        settle(shop, queue, daemon)
        first, second = second, first
        shop.write(2, one / "200_200_1")
        shop.write(2, other / "200_200_1")
        settle(shop, queue, daemon)


def test_trees_moved_while_they_are_worked_on(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    for _ in range(12):
        shop.storm()
        shop.move_a_tree()
        shop.busy(0.05)
    settle(shop, queue, daemon)


def test_special_files_are_ignored(daemon: DaemonProcess, shop: Shop, queue: redis.Redis) -> None:
    directory = shop.root / "450_450_1"
    directory.mkdir()
    outside = shop.outside / "secret.bin"
    outside.write_bytes(b"not for the public")
    specials = [directory / f"{name}.jpg" for name in ("fifo", "link", "dangling", "loop", "directory")]
    fifo, link, dangling, loop, inner = specials
    os.mkfifo(fifo)
    link.symlink_to(outside)
    dangling.symlink_to(directory / "absent.jpg")
    loop.symlink_to(loop)
    inner.mkdir()
    os.mknod(directory / "socket.jpg", stat.S_IFSOCK | 0o600)
    specials.append(directory / "socket.jpg")
    if os.geteuid() == 0:
        os.mknod(directory / "null.jpg", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        specials.append(directory / "null.jpg")
    shop.write(1, inner)
    wait_until(lambda: any(path.suffix in (".webp", ".keep") for path in inner.iterdir()))
    daemon.kill()
    daemon.start()  # the scan meets them too
    shop.write(3, directory)
    wait_until(lambda: sum(path.suffix in (".webp", ".keep") for path in directory.iterdir()) >= 3)
    decided = {path.with_suffix("") for path in directory.iterdir() if path.suffix in (".webp", ".keep")}
    assert not decided & set(specials)
    assert outside.read_bytes() == b"not for the public"
    for path in specials:
        assert path.is_dir() or not stat.S_ISREG(path.lstat().st_mode)
    for path in specials:
        if not path.is_dir():
            path.unlink()
    settle(shop, queue, daemon)
    assert not daemon.log("try failed")


NAMES = [
    b"with  two spaces ",
    b"\"double\" 'single' `back`",
    b"100% %s %d %2F %00",
    b"new\nline\r\ttab",
    "товар №5 «новый»".encode(),
    b"\xff\xfe\x80 not text",
    b"$(touch x); | & > < * ? [a] {b} ~ # \\",
    b"-rf",
    "é ê".encode(),
    b"a" * 240,
]


def test_directories_and_files_of_any_name(daemon: DaemonProcess) -> None:
    """Each name as a directory's, and of a file in it: written, rewritten, moved and removed."""
    root = os.fsencode(daemon.root)
    data = next(iter(contents()))
    paths = []
    for name in NAMES:
        directory = root + b"/" + name + b"/" + name[:200] + b"/200_200_1"
        os.makedirs(directory)
        paths.append(directory + b"/" + name + b".jpg")
        with open(paths[-1], "wb") as file:
            file.write(data)
    wait_until(lambda: all(has_decision(path) for path in paths))
    for path in paths:
        os.rename(path, path.replace(b".jpg", b".png"))
    moved = [path.replace(b".jpg", b".png") for path in paths]
    wait_until(lambda: all(has_decision(path) for path in moved))
    wait_until(lambda: not any(has_decision(path) for path in paths))
    for path in moved:
        os.unlink(path)
    wait_until(lambda: not any(has_decision(path) for path in moved))


def has_decision(path: bytes) -> bool:
    return os.path.exists(path + b".webp") or os.path.exists(path + b".keep")


def test_a_name_without_room_for_a_suffix_is_told_of_once_and_never_queued(
    daemon: DaemonProcess, queue: redis.Redis
) -> None:
    path = daemon.root / ("a" * 247 + ".jpg")
    for content in (b"one", b"other"):
        path.write_bytes(content)
    decided = daemon.root / "decided.jpg"
    decided.write_bytes(b"no picture")
    wait_until(decided.with_name("decided.jpg.keep").exists)
    assert daemon.process
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait()
    daemon.start()  # whose scan comes upon it
    [first, second] = wait_until(lambda: len(daemon.log("name too long")) > 1 and daemon.log("name too long"))
    assert first["path"] == second["path"] == str(path)
    assert not [line for line in daemon.log("foreign") if line.get("path") == str(path)]
    assert queue.xlen("webp:dead") == 0
    assert sorted(entry.name for entry in daemon.root.iterdir()) == [
        path.name,
        *sorted(["decided.jpg", "decided.jpg.keep"]),
    ]

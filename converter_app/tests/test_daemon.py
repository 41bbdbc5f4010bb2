"""The daemon's promises, each on a real process with a real Redis."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import redis
from converter_app.tests import samples
from converter_app.tests.harness import (
    MARK,
    DaemonProcess,
    RedisServer,
    StartDaemon,
    children_of,
    decided,
    variant_of,
    verdict_of,
    wait_until,
)
from tests.kit import pictures


def test_a_photo_written_is_published_as_promised(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    variant = variant_of(path)
    wait_until(lambda: decided(path))
    status = variant.stat()
    assert status.st_mtime_ns == 1_700_000_000_123_456_789
    assert status.st_mode == 0o100644
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert status.st_size < 0.9 * path.stat().st_size
    assert pictures.ssim(path.read_bytes(), variant.read_bytes()) >= 0.95


def test_what_was_made_can_be_asked_for(daemon: DaemonProcess, resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))

    def known() -> dict[str, object]:
        with urlopen(f"http://127.0.0.1:{daemon.api_port}/api/pictures?path={quote(str(path))}") as answer:
            return dict(json.load(answer))

    wait_until(lambda: known()["format"] == "jpeg")
    picture = known()
    assert picture["original_bytes"] == path.stat().st_size
    assert picture["variant_bytes"] == variant_of(path).stat().st_size
    assert str(picture["verdict"]).startswith("q")
    assert 0 < int(str(picture["latency_ms"])) < 10_000
    published = [line for line in daemon.log("published") if line["path"] == str(path)]
    assert published[0]["latency_ms"] > 0
    with urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics") as answer:
        assert b'webp_converter_pictures_total{outcome="webp"}' in answer.read()


def test_rewriting_an_original_removes_its_variant_at_once(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    old = variant_of(path).read_bytes()
    seen_missing = False
    path.write_bytes(pictures.jpeg("coffee.png"))
    deadline = time.monotonic() + 10
    while not decided(path) and time.monotonic() < deadline:
        seen_missing |= not variant_of(path).exists()
    assert seen_missing
    assert variant_of(path).read_bytes() != old
    assert pictures.ssim(path.read_bytes(), variant_of(path).read_bytes()) >= 0.95


def test_removing_an_original_removes_its_variant_and_the_directory(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    path.unlink()
    wait_until(lambda: not variant_of(path).exists())
    wait_until(lambda: not resized.parent.exists())
    assert resized.parent.parent.exists()


def test_bitrix_can_remove_the_directory_itself(start_daemon: StartDaemon) -> None:
    # This daemon leaves directories alone for longer than the test takes.
    resized = start_daemon(store={"directory_rest_s": 3600}).root / "iblock/450_450_1"
    resized.mkdir(parents=True)
    for name in ("one.jpg", "two.png"):
        (resized / name).write_bytes(pictures.jpeg())
        wait_until(lambda name=name: decided(resized / name))
        (resized / name).unlink()

    def removed() -> bool:
        try:
            resized.rmdir()
        except OSError:
            return False
        return True

    wait_until(removed)


def test_a_directory_emptied_for_a_moment_stays(resized: Path) -> None:
    """PHP unlinks a picture and opens it for writing again; the directory must still be there."""
    path = resized / "photo.jpg"
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        path.write_bytes(pictures.jpeg(name))
        wait_until(lambda: decided(path))
        path.unlink()
        wait_until(lambda: not variant_of(path).exists())
        time.sleep(0.2)
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))


def test_the_intermediate_is_never_published(daemon: DaemonProcess, resized: Path) -> None:
    path = resized / "photo.jpg"
    full = pictures.encoded(pictures.photograph(side=512).resize((1600, 1600)))
    for pause_s in (0, 0.02, 0.3):
        path.write_bytes(full)
        time.sleep(pause_s)
        assert not variant_of(path).exists()
        path.unlink()
        path.write_bytes(pictures.jpeg())
        wait_until(lambda: decided(path), timeout_s=5)
        assert pictures.opened(variant_of(path).read_bytes()).size == pictures.photograph().size
        path.unlink()
        wait_until(lambda: not variant_of(path).exists())
    sizes = {line["original_bytes"] for line in daemon.log("published") if line["path"] == str(path)}
    assert sizes == {len(pictures.jpeg())}


def test_a_picture_larger_than_its_box_is_converted_once_at_rest(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.encoded(pictures.photograph().resize((451, 100))))
    written = time.monotonic()
    wait_until(lambda: decided(path))
    assert time.monotonic() - written >= 1.0


@pytest.mark.parametrize("cut", ["empty", "jpeg", "jpeg-progressive", "jpeg-without-end", "png"])
def test_a_resized_picture_cut_off_is_removed_once_at_rest(resized: Path, cut: str) -> None:
    photograph = pictures.photograph()
    data, name = {
        "empty": (b"", "photo.jpg"),
        "jpeg": (pictures.jpeg()[:20_000], "photo.jpg"),
        "jpeg-progressive": (pictures.encoded(photograph, progressive=True)[:-5000], "photo.jpg"),
        "jpeg-without-end": (pictures.jpeg()[:-2], "photo.jpg"),
        "png": (pictures.encoded(photograph, "PNG")[:-100], "photo.png"),
    }[cut]
    path = resized / name
    path.write_bytes(data)
    written = time.monotonic()
    wait_until(lambda: not path.exists())
    assert time.monotonic() - written >= 1.5
    assert not variant_of(path).exists()
    assert not verdict_of(path).exists()


def test_a_picture_still_being_written_is_not_removed(resized: Path) -> None:
    path = resized / "photo.jpg"
    data = pictures.jpeg()
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 6):
            file.write(data[start : start + len(data) // 6])
            with path.open("ab"):
                pass  # somebody else's close-write in between
            time.sleep(0.5)
    wait_until(lambda: decided(path))
    assert variant_of(path).exists()


def test_a_damaged_picture_outside_of_a_resize_directory_is_kept(daemon: DaemonProcess) -> None:
    path = daemon.root / "banner.jpg"
    path.write_bytes(pictures.jpeg()[:20_000])
    wait_until(lambda: decided(path))
    assert os.getxattr(verdict_of(path), MARK).split(b" ")[3] == b"damaged"
    path.unlink()


def test_html_named_jpg_gets_the_verdict(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_text("<!DOCTYPE html><title>502 Bad Gateway</title>")
    wait_until(lambda: decided(path))
    assert verdict_of(path).stat().st_size == 0
    assert verdict_of(path).stat().st_mtime_ns == path.stat().st_mtime_ns
    assert os.getxattr(verdict_of(path), MARK).split(b" ")[3] == b"no-picture"


def test_a_foreign_variant_is_left_alone(daemon: DaemonProcess, resized: Path) -> None:
    path = resized / "photo.jpg"
    variant_of(path).write_bytes(b"somebody else's")
    path.write_bytes(pictures.jpeg())
    after = resized / "after.jpg"
    after.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(after))
    path.unlink()
    after.unlink()
    wait_until(lambda: not variant_of(after).exists())
    assert variant_of(path).read_bytes() == b"somebody else's"


def test_symbolic_links_are_not_followed(daemon: DaemonProcess, resized: Path, tmp_path: Path) -> None:
    outside = tmp_path / "450_450_1"
    outside.mkdir()
    (outside / "photo.jpg").write_bytes(pictures.jpeg())
    (resized / "link.jpg").symlink_to(outside / "photo.jpg")
    (resized / "directory").symlink_to(outside)
    after = resized / "after.jpg"
    after.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(after))
    time.sleep(0.2)
    assert sorted(path.name for path in outside.iterdir()) == ["photo.jpg"]
    assert not variant_of(resized / "link.jpg").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"with space.jpg",
        "фото.jpg".encode(),
        b"new\nline.jpg",
        b"100%25 '\"$(x).jpg",
        b"\xff\xfe.jpg",
        b"UPPER.JPG",
    ],
)
def test_names_of_any_bytes(daemon: DaemonProcess, name: bytes) -> None:
    directory = os.fsencode(daemon.root) + b"/names \xd0\xb0\xff"
    Path(os.fsdecode(directory)).mkdir(exist_ok=True)
    path = Path(os.fsdecode(directory + b"/" + name))
    path.write_bytes(pictures.jpeg(side=120))
    wait_until(lambda: decided(path))


def test_a_storm_of_directories_made_and_filled_at_once(daemon: DaemonProcess) -> None:
    data = pictures.jpeg(side=64)
    storm = daemon.root / "storm"
    paths = []

    def fill(k: int) -> None:
        for directory in range(20):
            deep = storm / f"{k}" / f"{directory:03x}" / "sub" / "100_100_1"
            deep.mkdir(parents=True)
            for file in range(3):
                path = deep / f"{file}.jpg"
                path.write_bytes(data)
                paths.append(path)

    threads = [threading.Thread(target=fill, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 300
    wait_until(lambda: all(decided(path) for path in paths), timeout_s=20)


def test_a_tree_moved_in_and_renamed_and_moved_out(daemon: DaemonProcess, tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "a" / "100_100_1"
    tree.mkdir(parents=True)
    (tree / "one.jpg").write_bytes(pictures.jpeg(side=64))
    inside = daemon.root / "moved"
    (tmp_path / "tree").rename(inside)
    wait_until(lambda: decided(inside / "a" / "100_100_1" / "one.jpg"))
    renamed = daemon.root / "renamed"
    inside.rename(renamed)
    two = renamed / "a" / "100_100_1" / "two.jpg"
    two.write_bytes(pictures.jpeg(side=64))
    wait_until(lambda: decided(two))
    two.unlink()
    wait_until(lambda: not variant_of(two).exists())
    outside = tmp_path / "outside"
    renamed.rename(outside)
    three = outside / "a" / "100_100_1" / "three.jpg"
    three.write_bytes(pictures.jpeg(side=64))
    time.sleep(0.3)
    assert not variant_of(three).exists()
    assert decided(outside / "a" / "100_100_1" / "one.jpg")


def test_rename_onto_an_original(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    new = resized / "upload.tmp"
    new.write_bytes(pictures.jpeg("coffee.png"))
    new.rename(path)
    wait_until(lambda: decided(path))
    assert pictures.ssim(path.read_bytes(), variant_of(path).read_bytes()) >= 0.95


def test_a_time_set_later_is_noticed(resized: Path) -> None:
    path = resized / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    os.utime(path, ns=(5, 5))
    wait_until(lambda: decided(path))
    assert variant_of(path).stat().st_mtime_ns == 5


def test_changes_while_the_daemon_was_away_are_reconciled(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    directory = daemon.root / "iblock" / "1a2" / "450_450_1"
    directory.mkdir(parents=True)
    names = ("stays", "rewritten", "removed")
    paths = {name: directory / f"{name}.jpg" for name in names}
    for path in paths.values():
        path.write_bytes(pictures.jpeg())
    wait_until(lambda: all(decided(path) for path in paths.values()))
    before = variant_of(paths["stays"]).stat().st_ino
    assert daemon.stop() == 0
    assert not list(daemon.temporary.iterdir())

    leftover = daemon.temporary / "123-abc"
    leftover.mkdir()
    (leftover / "123-0").write_bytes(b"unfinished")
    paths["rewritten"].write_bytes(pictures.jpeg("coffee.png"))
    paths["removed"].unlink()
    paths["new"] = directory / "new.png"
    paths["new"].write_bytes(pictures.encoded(pictures.photograph(), "PNG"))
    daemon.start()
    wait_until(lambda: decided(paths["rewritten"]) and decided(paths["new"]))
    wait_until(lambda: not variant_of(paths["removed"]).exists())
    assert variant_of(paths["stays"]).stat().st_ino == before
    assert not leftover.exists()


def test_killed_amid_a_hundred_conversions(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    directory = daemon.root / "iblock" / "1a2" / "768_768_1"
    directory.mkdir(parents=True)
    paths = [directory / f"{k}.jpg" for k in range(100)]
    picture = pictures.jpeg("motorcycle_left.png", side=600)
    for path in paths:
        path.write_bytes(picture)
    wait_until(lambda: sum(variant_of(path).exists() for path in paths) >= 20)
    children = descendants(daemon)
    daemon.kill()
    done = sum(variant_of(path).exists() for path in paths)
    assert done < 100
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), timeout_s=5)
    daemon.start(ready=False)
    wait_until(lambda: all(decided(path) for path in paths), timeout_s=40)
    assert daemon.log("queue reached")[-1]["unfinished"] > 0
    wait_until(lambda: (health := daemon.health()) and health["status"] == "ok")
    assert len(list(daemon.temporary.iterdir())) == 1


def descendants(daemon: DaemonProcess) -> list[int]:
    assert daemon.process
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [daemon.process.pid]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def test_stopping_ends_all_children(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    children = descendants(daemon)
    assert len(children) >= 3
    assert daemon.stop() == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), timeout_s=3)


def test_redis_killed_and_restarted(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    daemon = start_daemon()
    directory = daemon.root / "iblock" / "1a2" / "450_450_1"
    directory.mkdir(parents=True)
    before = directory / "before.jpg"
    before.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(before))
    redis_server.kill()
    wait_until(lambda: (health := daemon.health()) and health["status"] == "degraded")
    paths = [directory / f"{k}.jpg" for k in range(10)]
    for path in paths:
        path.write_bytes(pictures.jpeg())
    before.write_bytes(pictures.jpeg("coffee.png"))
    wait_until(lambda: not variant_of(before).exists())
    time.sleep(0.5)
    redis_server.start()
    wait_until(lambda: all(decided(path) for path in (before, *paths)), timeout_s=20)
    wait_until(lambda: (health := daemon.health()) and health["status"] == "ok", timeout_s=15)


def test_redis_away_at_the_start(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    redis_server.kill()
    daemon = start_daemon(ready=False)
    directory = daemon.root / "iblock" / "1a2" / "450_450_1"
    directory.mkdir(parents=True)
    path = directory / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: (health := daemon.health()) and health["status"] == "degraded")
    redis_server.start()
    wait_until(lambda: decided(path), timeout_s=20)


def test_an_idle_worker_killed_from_outside(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(workers={"count": 2, "minimum": 2})
    server = next(pid for pid in descendants(daemon) if len(children_of(pid)) >= 2)
    for pid in children_of(server):
        os.kill(pid, signal.SIGKILL)
    path = daemon.root / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path), timeout_s=20)


def test_the_root_goes_and_comes_back(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.root.rename(daemon.root.with_name("away"))
    daemon.root.with_name("away").rmdir()
    wait_until(lambda: (health := daemon.health()) and health["parts"]["watch"]["status"] == "degraded")
    directory = daemon.root / "450_450_1"
    directory.mkdir(parents=True)
    (directory / "photo.jpg").write_bytes(pictures.jpeg())
    wait_until(lambda: decided(directory / "photo.jpg"))


def test_readers_never_see_half_a_variant(daemon: DaemonProcess, resized: Path) -> None:
    names = ("astronaut.png", "coffee.png", "rocket.jpg")
    path = resized / "photo.jpg"
    stop = threading.Event()
    seen = 0

    def read() -> None:
        nonlocal seen
        while not stop.is_set():
            try:
                data = variant_of(path).read_bytes()
            except FileNotFoundError:
                continue
            pictures.opened(data)
            seen += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(6):
            path.write_bytes(pictures.jpeg(random.choice(names)))
            wait_until(lambda: decided(path))
    finally:
        stop.set()
        reader.join()
    assert seen


def avif_of(path: Path) -> Path:
    return path.with_name(path.name + ".avif")


def test_avif_beside_webp_and_once_it_is_switched_on(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    directory = daemon.root / "iblock" / "1a2" / "450_450_1"
    directory.mkdir(parents=True)
    path, page = directory / "photo.jpg", directory / "page.jpg"
    path.write_bytes(pictures.jpeg())
    page.write_text("<html>")
    wait_until(lambda: decided(path) and decided(page))
    webp = variant_of(path).read_bytes()
    assert not avif_of(path).exists()
    assert daemon.stop() == 0

    settings = daemon.config_file.read_text()
    daemon.config_file.write_text(settings.replace("[encoding]\n", "[encoding]\navif = true\n"))
    daemon.start()
    wait_until(lambda: avif_of(path).exists() and os.getxattr(verdict_of(page), MARK).startswith(b"1a "))
    wait_until(lambda: os.getxattr(variant_of(path), MARK).startswith(b"1a "))
    assert variant_of(path).read_bytes() == webp
    assert avif_of(path).stat().st_size < len(webp)
    assert avif_of(path).stat().st_mtime_ns == path.stat().st_mtime_ns
    assert pictures.ssim(path.read_bytes(), avif_of(path).read_bytes()) >= 0.95
    assert not avif_of(page).exists()

    daemon.stop()
    daemon.start()
    assert daemon.log("scanned")[-1]["queued"] == 0
    path.unlink()
    wait_until(lambda: not avif_of(path).exists() and not variant_of(path).exists())


def test_avif_is_never_late(start_daemon: StartDaemon) -> None:
    """A browser that accepts AVIF is told to keep what it gets for a year as soon as there is a decision."""
    daemon = start_daemon(encoding={"avif": True})
    directory = daemon.root / "450_450_1"
    directory.mkdir()
    path = directory / "photo.jpg"
    for name in ("astronaut.png", "coffee.png", "astronaut.png", "coffee.png"):
        path.write_bytes(pictures.jpeg(name))
        wait_until(lambda: variant_of(path).exists(), every_s=0.001)
        assert avif_of(path).exists()
        path.unlink()
        wait_until(lambda: not variant_of(path).exists() and not avif_of(path).exists())


@pytest.mark.parametrize("name", ["photo.gif", "photo.jpg", "photo.png"])
def test_an_animation_by_whatever_name(resized: Path, name: str) -> None:
    frames = [samples.GifFrame(colour, (0, 0, 80, 60), 20) for colour in range(3)]
    path = resized / name
    path.write_bytes(samples.gif((80, 60), frames, repeats=0))
    wait_until(lambda: decided(path))
    variant = pictures.opened(variant_of(path).read_bytes())
    assert getattr(variant, "n_frames", 1) == 3
    assert variant.info["loop"] == 0


@pytest.mark.parametrize("extension", ["gif", "bmp", "tif", "tiff"])
def test_other_kinds_of_pictures(resized: Path, extension: str) -> None:
    path = resized / f"photo.{extension}"
    form = {"gif": "GIF", "bmp": "BMP"}.get(extension, "TIFF")
    path.write_bytes(pictures.encoded(pictures.photograph().quantize(64), form))
    wait_until(lambda: decided(path))
    assert pictures.opened(variant_of(path).read_bytes()).size == pictures.photograph().size


@pytest.mark.parametrize("data", [bytes(5000), pictures.jpeg()[:20_000]], ids=["zeros", "cut off"])
def test_the_same_damaged_bytes_are_removed_once(
    start_daemon: StartDaemon, redis_server: RedisServer, data: bytes
) -> None:
    """Whatever Redis forgets, and whoever starts meanwhile."""
    daemon = start_daemon(watch={"damaged_rest_s": 1.0})
    path = daemon.root / "iblock/1a2/450_450_1/photo.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    wait_until(lambda: not path.exists())
    daemon.stop()
    redis.Redis.from_url(redis_server.url).flushall()
    daemon.start()
    other = path.with_name("other.jpg")
    for again in (path, other):
        again.parent.mkdir(parents=True, exist_ok=True)
        again.write_bytes(data)
    wait_until(lambda: decided(path) and not other.exists())
    assert path.read_bytes() == data
    assert os.getxattr(verdict_of(path), MARK).split(b" ")[3] == b"damaged"
    assert os.access(verdict_of(path), os.X_OK)  # which tells nginx that it may change soon
    [line] = daemon.log("damaged picture came back and stays")
    assert line["path"] == str(path)
    with urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=10) as answer:
        assert b"webp_converter_damaged_returned_total 1.0" in answer.read()
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: variant_of(path).exists() and not verdict_of(path).exists())


def test_a_gif_cut_off_is_removed_once_at_rest(resized: Path) -> None:
    path = resized / "photo.gif"
    path.write_bytes(pictures.encoded(pictures.photograph(), "GIF")[:-100])
    wait_until(lambda: not path.exists())
    assert not verdict_of(path).exists()


_BROKEN_DECODER = """
import os
from PIL import ImageFile
def broken(image, *arguments):
    raise OSError("no such codec")
# A decoder itself sees no file any more.
if os.path.exists({flag!r}):
    ImageFile.ImageFile.load = broken
"""


def test_a_broken_decoder_ends_the_daemon_and_costs_no_picture(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "broken"
    (tmp_path / "sitecustomize.py").write_text(_BROKEN_DECODER.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flag.touch()
    daemon = start_daemon(watch={"damaged_rest_s": 1.0})
    directory = daemon.root / "450_450_1"
    directory.mkdir()
    path = directory / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    assert daemon.process
    assert daemon.process.wait(15) == 1
    assert "decoder is broken" in daemon.log("decoder broken")[0]["reason"]
    assert path.exists()
    assert not verdict_of(path).exists()
    flag.unlink()
    daemon.start(ready=False)
    wait_until(lambda: decided(path), timeout_s=20)
    assert variant_of(path).exists()

"""The full original under the name of a resized picture: PHP leaves it when its mount goes in between."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from converter_app.tests.harness import DaemonProcess, StartDaemon, wait_until
from converter_app.tests.site import Site
from tests.kit import pictures

ORIGINAL = pictures.encoded(pictures.photograph(side=512).resize((1600, 1600)))
SMALLER = pictures.encoded(pictures.photograph(side=512).resize((1500, 1500)))
URL = "/original/upload/iblock/1a2/photo.jpg"


@pytest.fixture
def started(start_daemon: StartDaemon, site: Site, tmp_path: Path) -> DaemonProcess:
    return start_with(start_daemon, site, tmp_path)


def start_with(start_daemon: StartDaemon, site: Site, tmp_path: Path, **watch: object) -> DaemonProcess:
    variants = tmp_path / "variants"
    variants.mkdir()
    places = {"variants": str(variants), "temporary": str(tmp_path / "temporary-of-variants")}
    (tmp_path / "temporary-of-variants").mkdir()
    return start_daemon(
        watch={"remove_copies": True, "intermediate_rest_s": 0.3, "damaged_rest_s": 1, **watch},
        originals={**places, "url": site.url, "purge_url": site.url},
    )


def put(daemon: DaemonProcess, data: bytes) -> Path:
    path = daemon.root / "iblock/1a2/450_450_1/photo.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def is_converted(path: Path) -> bool:
    return path.with_name("photo.jpg.webp").exists()


def test_a_copy_that_stays_is_removed_once(started: DaemonProcess, site: Site) -> None:
    site.files[URL] = ORIGINAL
    path = put(started, ORIGINAL)
    # It is told after it was done.
    [line] = wait_until(lambda: started.log("copy of the original removed"))
    assert line["path"] == str(path)
    assert not path.exists()
    assert not is_converted(path)
    # An original that can't be resized: the copy comes back, and stays.
    put(started, ORIGINAL)
    wait_until(lambda: is_converted(path))
    assert path.exists()


def test_a_copy_is_given_its_time(start_daemon: StartDaemon, site: Site, tmp_path: Path) -> None:
    daemon = start_with(start_daemon, site, tmp_path, damaged_rest_s=3600)
    site.files[URL] = ORIGINAL
    path = put(daemon, ORIGINAL)
    wait_until(lambda: "the full original" in str(daemon.log("put off")))
    assert path.exists()
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: is_converted(path))


@pytest.mark.parametrize("original", [None, SMALLER, bytes(len(ORIGINAL))])
def test_a_large_picture_that_is_no_copy_is_converted(
    started: DaemonProcess, site: Site, original: bytes | None
) -> None:
    if original is not None:
        site.files[URL] = original
    path = put(started, ORIGINAL)
    wait_until(lambda: is_converted(path))


def test_a_copy_of_long_ago_is_converted(started: DaemonProcess, site: Site) -> None:
    site.files[URL] = ORIGINAL
    path = started.root / "iblock/1a2/450_450_1/photo.jpg"
    path.parent.mkdir(parents=True)
    outside = started.root.parent / "copied.jpg"
    outside.write_bytes(ORIGINAL)
    os.utime(outside, (time.time() - 3600, time.time() - 3600))
    outside.rename(path)
    wait_until(lambda: is_converted(path))


def test_it_can_be_switched_off(start_daemon: StartDaemon, site: Site, tmp_path: Path) -> None:
    daemon = start_with(start_daemon, site, tmp_path, remove_copies=False)
    site.files[URL] = ORIGINAL
    path = put(daemon, ORIGINAL)
    wait_until(lambda: is_converted(path))


def test_while_the_site_is_away_a_copy_waits_and_nothing_waits_for_ever(
    started: DaemonProcess, site: Site
) -> None:
    site.files[URL] = ORIGINAL
    site.status = 503
    path = put(started, ORIGINAL)
    wait_until(lambda: "503" in str(started.log("put off")))
    assert not is_converted(path)
    wait_until(lambda: is_converted(path), timeout_s=30)

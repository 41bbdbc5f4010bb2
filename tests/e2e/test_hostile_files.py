"""Files that are no pictures, and trees that appear all at once."""

from __future__ import annotations

import time

import pytest

from tests.kit.hosts import BROWSER, Cdn, Shop, all_are_published, no_pictures
from tests.kit.support import wait_until

_BURST = """
import os

root, picture, trees = arguments
for tree in range(*trees):
    path = f"{root}/{tree}/a/b/c/120_120_2"
    os.makedirs(path)
    for number in range(3):
        with open(f"{path}/{number}.jpg", "wb") as file:
            file.write(bytes.fromhex(picture))
"""


@pytest.mark.both
def test_a_picture_that_is_no_picture_crashes_nothing_and_is_not_published(shop: Shop, cdn: Cdn) -> None:
    before = cdn.daemon()
    directory = shop.directory("450_450_1")
    files = no_pictures(shop)
    for name, content in files.items():
        shop.write(f"{directory}/{name}", content)

    # Written last: once it is published, the others have been looked at.
    shop.write(f"{directory}/real.jpg", shop.photo(450, 300))
    real = cdn.variant(f"{directory}/real.jpg")
    wait_until("the real picture among them to be published", lambda: cdn.exist([real]))
    time.sleep(3)

    published = cdn.exist([cdn.variant(f"{directory}/{name}") for name in files])
    assert published == []
    for name in files:
        answer = cdn.client.get(f"{directory}/{name}", headers={"Accept": BROWSER})
        assert answer.headers.get("Content-Type") != "image/webp"
    assert cdn.daemon_ready()
    assert cdn.daemon() == before, "the daemon was restarted"


def test_cut_off_pictures_at_rest_are_removed_so_that_bitrix_makes_them_again(shop: Shop, cdn: Cdn) -> None:
    directory = shop.directory("450_450_1")
    damaged = {name: no_pictures(shop)[name] for name in ("empty.jpg", "truncated.jpg", "truncated.png")}
    for name, content in damaged.items():
        shop.write(f"{directory}/{name}", content)
    shop.write(f"{directory}/whole.jpg", shop.photo(450, 300))
    files, whole = [cdn.file(f"{directory}/{name}") for name in damaged], cdn.file(f"{directory}/whole.jpg")

    rest = cdn.settings.converter.watch.damaged_rest_s
    wait_until(
        "the damaged files to be removed",
        lambda: cdn.exist(files),
        lambda found: not found,
        timeout=rest + 30,
        interval=0.5,
    )
    assert cdn.exist([whole]) == [whole]


def test_a_tree_made_and_filled_before_it_is_watched_is_not_forgotten(shop: Shop, cdn: Cdn) -> None:
    before = cdn.daemon()
    path = shop.directory("burst")
    owner = cdn.settings.converter.store.owner
    # On the CDN host's own disk: over the mount no tree is made that fast.
    picture = shop.photo(120, 120).hex()
    cdn.remote.python(_BURST, cdn.file(path), picture, (0, 15), user=owner)
    # However fast this host is: these are whole before any of them can be watched.
    cdn.remote.run("kill", "-STOP", str(before[0]))
    try:
        cdn.remote.python(_BURST, cdn.file(path), picture, (15, 30), user=owner)
    finally:
        cdn.remote.run("kill", "-CONT", str(before[0]))

    pictures = [f"{path}/{tree}/a/b/c/120_120_2/{number}.jpg" for tree in range(30) for number in range(3)]
    all_are_published(cdn, pictures)
    assert cdn.daemon() == before, "the daemon was restarted"


def test_a_tree_made_through_the_mount_is_not_forgotten(shop: Shop, cdn: Cdn) -> None:
    path = shop.directory("burst")
    pictures = [f"{path}/{tree}/{number}.jpg" for tree in range(20) for number in range(2)]
    local = f"/tmp/{shop.token}.jpg"
    shop.bitrix.put(local, shop.photo(120, 120))
    script = (
        'for t in $(seq 0 19); do mkdir -p "$1/$t" && cp "$2" "$1/$t/0.jpg" && cp "$2" "$1/$t/1.jpg"; done'
    )
    try:
        shop.bitrix.run("sh", "-ec", script, "sh", shop.mounted(path), local, user=shop.settings.site.user)
        all_are_published(cdn, pictures)
    finally:
        shop.bitrix.run("rm", "-f", local)

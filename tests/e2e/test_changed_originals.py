"""The picture changes or goes: stale is worse than missing."""

from __future__ import annotations

import time
from typing import Literal

import httpx
import pytest

from dev.lab.site import EXACT
from tests.kit.hosts import Cdn, Shop
from tests.kit.pictures import ssim
from tests.kit.support import wait_until

# nginx may go on with a file that it has open for `open_file_cache_valid`, 1 s; the rest is the way
# of the event.
AT_ONCE = 2.0

OURS = (".webp", ".avif", ".keep")


@pytest.mark.parametrize("way", ["copy", "rename"])
@pytest.mark.both
def test_rewritten_the_old_variant_is_gone_at_once_and_the_new_one_appears(
    shop: Shop, cdn: Cdn, way: Literal["copy", "rename"]
) -> None:
    picture = shop.resized()
    old = cdn.as_webp(picture).content
    new_picture = shop.photo(picture.width, picture.height)
    assert ssim(old, new_picture) < 0.9, "the two pictures can't be told apart"

    shop.site.rewrite(picture, new_picture, way)

    rewritten = time.monotonic()
    last_old = 0.0

    def look() -> httpx.Response:
        nonlocal last_old
        answer = cdn.get(picture)
        if answer.content == old:
            last_old = time.monotonic() - rewritten
        return answer

    new = wait_until(
        "the new variant",
        look,
        lambda answer: answer.headers["Content-Type"] == "image/webp" and answer.content != old,
        interval=0.02,
    ).content
    assert ssim(new, new_picture) >= 0.95
    assert last_old < AT_ONCE, f"the old variant was served for {last_old:.1f} s"
    # And it doesn't come back, say from a second worker.
    time.sleep(1.5)
    assert cdn.get(picture).content == new


@pytest.mark.both
def test_removed_the_variant_goes_too_and_bitrix_can_remove_the_directory(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    pictures = [shop.site.resize(original, 450, 450), shop.site.resize(original, 120, 120, EXACT)]
    for picture in pictures:
        cdn.as_webp(picture)
    directories = [picture.path.rsplit("/", 1)[0] for picture in pictures]
    parent = directories[0].rsplit("/", 1)[0]

    deleted = shop.site.delete(original)

    assert {original.path, *(picture.path for picture in pictures)} <= set(deleted.removed)
    wait_until(
        "404 for all of them",
        lambda: [cdn.get(picture).status_code for picture in pictures],
        lambda statuses: set(statuses) == {404},
        timeout=AT_ONCE,
    )
    # Bitrix's rmdir may come before the daemon has taken its variants away; then nothing but those was
    # in its way, and the daemon removes the directory in its stead.
    for directory in deleted.directories:
        if directory.path in directories:
            assert all(name.endswith(OURS) for name in directory.left), directory
    wait_until(
        "the emptied directories to be gone",
        lambda: cdn.exist([cdn.file(path) for path in (*directories, parent)]),
        lambda left: not left,
        timeout=cdn.settings.converter.store.directory_rest_s + 10,
    )


def test_a_removed_picture_comes_back_when_the_site_makes_it_again(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    picture = shop.site.resize(original, 300, 300)
    cdn.as_webp(picture)

    shop.bitrix.run("rm", shop.mounted(picture.path), user=shop.settings.site.user)
    again = shop.site.resize(original, 300, 300)

    assert again.made
    assert again.path == picture.path
    # Written at once after the removal, in a directory that the daemon may just be tidying up.
    time.sleep(cdn.settings.converter.store.directory_rest_s + 1)
    assert ssim(cdn.as_webp(picture).content, shop.site.get(picture)) >= 0.95

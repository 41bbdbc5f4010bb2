"""What lies on the CDN host's disk after a conversion."""

from __future__ import annotations

import pytest

from dev.lab.site import EXACT, PROPORTIONAL, PROPORTIONAL_ALT, Resized
from tests.kit.hosts import OLD_BROWSER, Cdn, Shop
from tests.kit.pictures import ssim


@pytest.mark.both
def test_the_published_file_is_www_datas_0644_with_the_mtime_of_the_original_to_the_nanosecond(
    shop: Shop, cdn: Cdn
) -> None:
    picture = shop.resized()
    cdn.as_webp(picture)
    # SFTP sets whole seconds only: a time that has nanoseconds is set here, on the disk itself.
    original = cdn.file(picture)
    cdn.remote.python(
        "import os\nos.utime(arguments[0], ns=(arguments[1], arguments[1]))\n"
        "os.close(os.open(arguments[0], os.O_WRONLY))",
        original,
        mtime := 1_700_000_000_123_456_789,
    )
    cdn.wait_for_fresh_variant(picture, mtime_ns=mtime)

    status = cdn.status(original, cdn.variant(picture))

    published = status[cdn.variant(picture)]
    # 33 and 33, unless somebody has chosen other ones.
    www_data = tuple(int(cdn.remote.run("id", which, "www-data")) for which in ("-u", "-g"))
    assert (published.uid, published.gid) == www_data
    assert published.mode == 0o644
    assert published.mtime_ns == status[original].mtime_ns == mtime
    assert published.mark is not None, "the file lacks the daemon's mark"
    # Format version, then the original's size and mtime: by these freshness is judged.
    assert published.mark.split()[1:3] == [str(picture.bytes), str(mtime)]
    assert status[original].size == picture.bytes


@pytest.mark.parametrize(
    ("width", "height", "how"),
    [(450, 450, PROPORTIONAL), (120, 120, EXACT), (768, 768, PROPORTIONAL), (300, 200, PROPORTIONAL_ALT)],
)
def test_a_variant_is_like_its_original_to_an_independent_eye(
    shop: Shop, cdn: Cdn, width: int, height: int, how: int
) -> None:
    for _ in range(3):
        picture: Resized = shop.resized(width, height, how)
        variant = cdn.as_webp(picture).content
        original = cdn.get(picture, accept=OLD_BROWSER).content

        assert ssim(variant, original) >= 0.95, picture.path


def test_nothing_but_the_picture_and_its_variant_is_left_in_the_directory(shop: Shop, cdn: Cdn) -> None:
    picture = shop.resized()
    cdn.as_webp(picture)

    directory = cdn.file(picture).rsplit("/", 1)[0]
    names = cdn.remote.run("ls", "-A", directory).splitlines()
    mine = [name for name in names if shop.token in name]
    name = picture.path.rsplit("/", 1)[1]
    assert sorted(mine) == [name, f"{name}.webp"]

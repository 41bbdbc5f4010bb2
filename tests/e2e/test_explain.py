"""Pictures that are WebP or AVIF already, names that are too long, and what explains each of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev.lab.site import Picture
from tests.kit.hosts import OLD_BROWSER, Cdn, Shop
from tests.kit.pictures import opened, ssim
from tests.kit.support import wait_until

LONG_NAME = "\u0444" * 124 + ".jpg"
WITH_AVIF = "image/avif,image/webp,image/apng,image/*,*/*;q=0.8"


def explained(cdn: Cdn, target: str) -> dict[str, Any]:
    told = cdn.remote.run("webp-converter", "explain", "--json", target, check=False)
    return dict(json.loads(told))


def as_format(shop: Shop, form: str, quality: int) -> bytes:
    made = io.BytesIO()
    opened(shop.photo(400, 300)).convert("RGB").save(made, form, quality=quality)
    return made.getvalue()


@pytest.fixture(params=["resized", "original"])
def place(request: pytest.FixtureRequest, shop: Shop) -> Iterator[str]:
    """A directory of this test's own, behind the mount and on the site's own disk."""
    if request.param == "resized":
        yield shop.directory("450_450_1")
        return
    directory = f"/upload/iblock/e2e-{shop.token}"
    yield directory
    shop.bitrix.run("rm", "-rf", shop.mounted(directory))


def test_a_webp_picture_becomes_a_smaller_one(shop: Shop, cdn: Cdn, place: str) -> None:
    written = as_format(shop, "WEBP", 95)
    picture = Picture(f"{place}/photo.webp", len(written))
    shop.write(picture.path, written)
    answer = wait_until(
        "the smaller WebP",
        lambda: cdn.get(picture),
        lambda answer: answer.headers.get("X-Image-Variant") == "webp",
        timeout=30,
    )
    assert len(answer.content) <= 0.9 * len(written)
    assert ssim(answer.content, written) >= 0.95
    old = cdn.get(picture, accept=OLD_BROWSER)
    assert (old.content, old.headers["X-Image-Variant"]) == (written, "original")
    assert explained(cdn, picture.url_path)["state"] == "webp"


def test_an_avif_picture_is_webp_for_those_who_cannot_show_it(shop: Shop, cdn: Cdn, place: str) -> None:
    written = as_format(shop, "AVIF", 50)
    picture = Picture(f"{place}/photo.avif", len(written))
    shop.write(picture.path, written)
    answer = wait_until(
        "a WebP of the AVIF",
        lambda: cdn.get(picture),
        lambda answer: answer.headers.get("Content-Type") == "image/webp",
        timeout=30,
    )
    assert ssim(answer.content, written) >= 0.94
    modern = cdn.get(picture, accept=WITH_AVIF)
    assert modern.headers["Content-Type"] == "image/avif"
    assert len(modern.content) <= len(written)


def test_a_name_without_room_for_a_suffix_is_decided_and_told_of_once(
    shop: Shop, cdn: Cdn, place: str
) -> None:
    decided = shop.directory("450_450_1") + "/decided.jpg"
    shop.write(decided, b"no picture")
    picture = Picture(f"{place}/{LONG_NAME}", 0)
    shop.write(picture.path, shop.photo(100, 80))
    expected = wait_until(
        "a verdict",
        lambda: cdn.get(Picture(decided, 0)),
        lambda answer: answer.headers.get("X-Image-Variant") == "original",
    )
    for _ in range(3):
        answer = cdn.get(picture)
        assert (answer.status_code, answer.headers["X-Image-Variant"]) == (200, "original")
        assert answer.headers["Cache-Control"] == expected.headers["Cache-Control"]
    told = explained(cdn, picture.url_path)
    assert (told["state"], told["queue"]["state"]) == ("original", "none")
    assert "250 bytes" in told["why"]
    log = cdn.remote.run("journalctl", "-u", "webp-converter", "-o", "cat", "--since", "-5min", "--no-pager")
    lines = [line for line in log.splitlines() if '"name too long"' in line and shop.token in line]
    assert len(lines) == 1


def test_why_a_picture_is_webp_for_whoever_asks(shop: Shop, cdn: Cdn) -> None:
    resized = shop.resized()
    cdn.as_webp(resized)
    human = cdn.remote.run("webp-converter", "explain", f"https://cdn.example{resized.url_path}?v=1")
    for words in ("It is WebP at quality", "is fresh", "a browser with AVIF", "a bot", "isn't in the queue"):
        assert words in human
    original = shop.upload()
    cdn.as_webp(original)
    told = wait_until(
        "a copy of each class",
        lambda: explained(cdn, original.url_path),
        # A slow machine takes so long over it that a copy is due for comparison by then.
        lambda told: {answer["cache"] for answer in told["varnish"]} <= {"hit", "stale"},
    )
    assert told["state"] == "webp"
    assert [answer["variant"] for answer in told["visitors"]] == ["webp", "webp", "original", "original"]
    assert told["original"]["bytes"] == len(shop.site.get(original))


def test_why_a_picture_is_not_there(cdn: Cdn) -> None:
    told = explained(cdn, "/upload/iblock/no-such-picture.jpg")
    assert (told["state"], told["original"]["present"]) == ("missing", False)
    assert {answer["status"] for answer in told["visitors"]} == {404}

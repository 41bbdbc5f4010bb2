"""What visitors are answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from dev.lab.site import EXACT, PROPORTIONAL
from tests.kit.hosts import BROWSER, CONVERTER, OLD_BROWSER, SHORT_LIVED, Cdn, Shop
from tests.kit.pictures import opened
from tests.kit.support import wait_until


@pytest.mark.both
def test_a_photograph_written_by_php_through_the_mount_is_answered_as_webp_to_a_client_that_accepts_it(
    shop: Shop, cdn: Cdn
) -> None:
    picture = shop.resized()

    answer = cdn.as_webp(picture)

    decoded = opened(answer.content)
    assert decoded.format == "WEBP"
    assert decoded.size == (picture.width, picture.height)
    assert len(answer.content) < picture.bytes
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["X-Image-Variant"] == "webp"
    assert answer.headers["Cache-Control"] == SHORT_LIVED
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert {"ETag", "Last-Modified"} <= {name.title().replace("Etag", "ETag") for name in answer.headers}


@pytest.mark.both
def test_it_is_answered_as_the_untouched_original_to_a_client_that_does_not(shop: Shop, cdn: Cdn) -> None:
    picture = shop.resized()
    written = shop.site.get(picture)
    assert len(written) == picture.bytes
    cdn.as_webp(picture)

    answer = cdn.get(picture, accept=OLD_BROWSER)

    assert answer.headers["Content-Type"] == "image/jpeg"
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(written).digest()
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["X-Image-Variant"] == "original"
    assert answer.headers["Cache-Control"] == SHORT_LIVED
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_png_and_names_in_any_script_take_the_same_way(shop: Shop, cdn: Cdn) -> None:
    png = shop.site.resize(shop.upload(form="PNG"), 300, 300, PROPORTIONAL)
    assert opened(cdn.as_webp(png).content).size == (png.width, png.height)

    # What a customer's browser sends as the name of a file.
    original = shop.upload(name=f"Диван угловой (2) {shop.token}.jpg")
    resized = shop.site.resize(original, 120, 120, EXACT)
    assert "Диван" in resized.path
    assert opened(cdn.as_webp(resized).content).size == (120, 120)


def test_a_browser_that_has_the_variant_is_told_so(shop: Shop, cdn: Cdn) -> None:
    picture = shop.resized()
    first = cdn.as_webp(picture)

    again = cdn.client.get(
        picture.url_path, headers={"Accept": BROWSER, "If-None-Match": first.headers["ETag"]}
    )

    assert again.status_code == 304
    # Without it a shared cache would hand this variant to everyone from now on.
    assert again.headers["Vary"] == "Accept"


@pytest.fixture
def converter_stopped(cdn: Cdn) -> Iterator[None]:
    cdn.remote.run("systemctl", "stop", CONVERTER)
    yield
    cdn.remote.run("systemctl", "start", CONVERTER)
    wait_until("a healthy daemon", cdn.daemon_ready)


@pytest.mark.both
def test_what_is_still_to_come_is_answered_at_once_and_not_for_long(
    shop: Shop, cdn: Cdn, converter_stopped: None
) -> None:
    picture = shop.resized()

    answer = cdn.get(picture)

    assert answer.status_code == 200
    assert answer.content == shop.site.get(picture)
    assert answer.headers["X-Image-Variant"] == "pending"
    assert answer.headers["Cache-Control"] == SHORT_LIVED
    assert answer.headers["Vary"] == "Accept"

    cdn.remote.run("systemctl", "start", CONVERTER)
    assert cdn.as_webp(picture).headers["Cache-Control"] == SHORT_LIVED


def test_a_picture_that_is_not_there_is_404_and_kept_by_nobody(shop: Shop, cdn: Cdn) -> None:
    answer = cdn.client.get(
        f"/upload/resize_cache/iblock/000/120_120_2/{shop.token}.jpg", headers={"Accept": BROWSER}
    )

    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PURGE", "PATCH"])
def test_what_is_not_reading_is_405(shop: Shop, cdn: Cdn, method: str) -> None:
    picture = shop.resized(120, 120, EXACT)

    assert cdn.client.request(method, picture.url_path).status_code == 405
    assert cdn.get(picture).status_code == 200


@pytest.mark.parametrize("name", ["page.php", "page.html", "exchange.xml", "noextension", ".hidden.jpg"])
@pytest.mark.both
def test_what_is_not_on_the_allow_list_is_never_served(shop: Shop, cdn: Cdn, name: str) -> None:
    directory = shop.directory()
    secret = f"secret {shop.token}"
    shop.write(f"{directory}/{name}", secret.encode())
    # The same request for a picture is answered, so the refusal is not for want of the file.
    shop.write(f"{directory}/picture.jpg", picture := shop.photo(120, 120))
    assert cdn.client.get(f"{directory}/picture.jpg", headers={"Accept": OLD_BROWSER}).content == picture

    answer = cdn.client.get(f"{directory}/{name}")

    assert answer.status_code in {403, 404}
    assert secret not in answer.text


@pytest.mark.parametrize("path", ["/upload/1c_exchange/import.xml", "/upload/tmp/x.jpg", "/", "/etc/passwd"])
def test_nothing_but_pictures_is_served(cdn: Cdn, path: str) -> None:
    assert cdn.client.get(path).status_code in {403, 404}


def test_links_out_of_the_tree_are_not_followed(shop: Shop, cdn: Cdn) -> None:
    directory = shop.directory()
    secret = f"/tmp/{shop.token}.jpg"
    shop.write(f"{directory}/real.jpg", shop.photo(120, 120))
    cdn.remote.put(secret, shop.photo(120, 120))
    try:
        cdn.remote.run(
            "ln", "-s", secret, cdn.file(f"{directory}/link.jpg"), user=cdn.settings.converter.store.owner
        )
        assert cdn.client.get(f"{directory}/real.jpg").status_code == 200
        assert cdn.client.get(f"{directory}/link.jpg").status_code in {403, 404}
    finally:
        cdn.remote.run("rm", "-f", secret)


def test_head_answers_like_get_without_the_body(shop: Shop, cdn: Cdn) -> None:
    picture = shop.resized(120, 120, EXACT)
    get = cdn.as_webp(picture)

    head: httpx.Response = cdn.client.head(picture.url_path, headers={"Accept": BROWSER})

    assert head.status_code == 200
    assert head.content == b""
    for name in ("Content-Type", "Content-Length", "Vary", "ETag", "X-Image-Variant", "Cache-Control"):
        assert head.headers[name] == get.headers[name], name

"""Ranges, conditions, versions and names: what a request may say beside the path, and what it gets."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from dev.lab.site import Picture
from tests.e2e.browser import proxy, visit
from tests.kit.hosts import BROWSER, OLD_BROWSER, SHORT_LIVED, Cdn, Shop
from tests.kit.pictures import opened
from tests.kit.support import Figure, wait_until

FOREVER = "public, max-age=31536000, immutable"

RIGHT_WITHIN = 60.0
"""Seconds after which a picture that was replaced under its name is the new one, everywhere."""


@pytest.fixture(params=["original", "resized"])
def decided(request: pytest.FixtureRequest, shop: Shop, cdn: Cdn) -> Picture:
    """A picture with a variant: one that comes through Varnish, and one from the CDN host's own disk."""
    picture = shop.upload() if request.param == "original" else shop.resized()
    cdn.as_webp(picture)
    return picture


def asked(cdn: Cdn, picture: Picture, query: str = "", **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return cdn.client.get(picture.url_path + query, headers={"Accept": BROWSER, **given})


@pytest.mark.both
def test_ranges_are_answered_as_ranges_or_whole(cdn: Cdn, decided: Picture) -> None:
    whole = asked(cdn, decided).content
    for asked_for, part in {"bytes=0-0": whole[:1], "bytes=-7": whole[-7:], "bytes=5-9": whole[5:10]}.items():
        answer = asked(cdn, decided, Range=asked_for)
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["Content-Range"].endswith(f"/{len(whole)}")
    for asked_for in ("items=0-1", "bytes=x", "bytes=", "none", "bytes=0-1;2-3"):
        answer = asked(cdn, decided, Range=asked_for)
        assert (asked_for, answer.status_code, answer.content == whole) == (asked_for, 200, True)
    several = asked(cdn, decided, Range="bytes=0-0,5-9")
    assert several.status_code == 206 or (several.status_code, several.content) == (200, whole)
    assert several.status_code == 200 or whole[5:10] in several.content


@pytest.mark.both
def test_a_range_that_is_not_there_is_416_with_each_header_once(cdn: Cdn, decided: Picture) -> None:
    whole = asked(cdn, decided).content
    answer = asked(cdn, decided, Range=f"bytes={len(whole)}-")
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "X-Image-Variant" not in answer.headers
    names = Counter(name.lower() for name, _ in answer.headers.multi_items())
    assert max(names.values()) == 1, names


@pytest.mark.both
def test_the_time_alone_never_stands_for_another_format(cdn: Cdn, decided: Picture) -> None:
    variant, original = asked(cdn, decided), asked(cdn, decided, Accept=OLD_BROWSER)
    # Both have the original's time, so it says nothing of what a client has.
    since = variant.headers["Last-Modified"]
    assert since == original.headers["Last-Modified"]
    for accept, right in ((BROWSER, variant), (OLD_BROWSER, original)):
        answer = asked(cdn, decided, Accept=accept, If_Modified_Since=since)
        assert (answer.status_code, answer.content) == (200, right.content)
        again = asked(
            cdn, decided, Accept=accept, If_None_Match=right.headers["ETag"], If_Modified_Since=since
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["Cache-Control"] == SHORT_LIVED
    other = asked(cdn, decided, Accept=OLD_BROWSER, If_None_Match=variant.headers["ETag"])
    assert other.status_code == 200


@pytest.mark.both
def test_only_an_address_with_the_pictures_version_is_kept_for_ever(cdn: Cdn, decided: Picture) -> None:
    answer = asked(cdn, decided)
    written = int(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp())
    assert answer.headers["Cache-Control"] == SHORT_LIVED
    for query in (f"?v={written}", f"?{written}", f"?{written}{len(answer.content)}", f"?a=b&v={written}"):
        versioned = asked(cdn, decided, query)
        assert (query, versioned.headers["Cache-Control"]) == (query, FOREVER)
        assert versioned.content == answer.content
    for query in ("?", "?utm_source=x", "?123", "?v="):
        assert (query, asked(cdn, decided, query).headers["Cache-Control"]) == (query, SHORT_LIVED)


@pytest.mark.both
def test_an_older_picture_is_not_kept_for_ever_as_a_newer_version(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    cdn.as_webp(original)
    # A page names the version that PHP has just written; Varnish may not have noticed yet.
    answer = asked(cdn, original, f"?v={int(time.time()) + 5}")
    assert answer.headers["Cache-Control"] == SHORT_LIVED


@pytest.mark.both
def test_who_asks_for_the_original_gets_it_under_its_own_name_and_type(cdn: Cdn, decided: Picture) -> None:
    name = decided.path.rsplit("/", 1)[1].removesuffix(".jpg")
    variant = asked(cdn, decided)
    assert variant.headers["Content-Type"] == "image/webp"
    assert variant.headers["Content-Disposition"] == f'inline; filename="{name}.webp"'
    for query, accept in (
        ("", "*/*"),
        ("?original", BROWSER),
        ("?original=1", BROWSER),
        ("?a&original", BROWSER),
    ):
        answer = asked(cdn, decided, query, Accept=accept)
        assert (query, answer.headers["Content-Type"]) == (query, "image/jpeg")
        assert opened(answer.content).format == "JPEG"
        assert "Content-Disposition" not in answer.headers
    assert asked(cdn, decided, "?originality").headers["Content-Type"] == "image/webp"


def test_jpe_is_a_picture_as_it_is_for_bitrix(shop: Shop, cdn: Cdn) -> None:
    path = f"{shop.directory()}/photo.jpe"
    shop.write(path, shop.photo(450, 300))
    picture = Picture(path, 0)
    assert asked(cdn, picture, Accept=OLD_BROWSER).headers["Content-Type"] == "image/jpeg"
    assert cdn.as_webp(picture).headers["Content-Type"] == "image/webp"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /upload/x.jpg HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /upload/x.jpg HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /upload/x.jpg HTTP/3.7\r\nHost: a\r\n\r\n", 505),
        (b"GET /upload/x.jpg HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501),
    ],
    ids=["two hosts", "no request", "long path", "long header", "version", "encoding"],
)
def test_errors_of_requests_that_cannot_be_read_say_nothing_of_the_server(
    cdn: Cdn, request_: bytes, status: int
) -> None:
    address = (cdn.remote.address, cdn.settings.nginx.http_port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert re.search(rb"(?i)content-type: text/plain", answer)
    assert b"nginx" not in answer.partition(b"\r\n\r\n")[2]
    assert b"nginx/" not in answer


def test_replaced_pictures_are_right_in_a_browser_within_a_minute(
    shop: Shop, cdn: Cdn, tmp_path: Path, figure: Figure
) -> None:
    pictures = {"original": shop.upload(), "resized": shop.resized()}
    old = {where: cdn.as_webp(picture).content for where, picture in pictures.items()}

    def visited(where: str, shot: str) -> bytes:
        """What a browser, which keeps what it may, shows of a picture, once it has asked for it."""
        picture, file = pictures[where], tmp_path / f"{where}-{shot}.png"
        address = f"http://{cdn.remote.address}:{cdn.settings.nginx.http_port}{picture.url_path}"
        with proxy() as seen:
            visit(address, seen, file, profile=tmp_path / f"{where}-profile")
        assert [loaded.path for loaded in seen.loaded] == [picture.url_path]
        return file.read_bytes()

    before = {where: visited(where, "old") for where in pictures}
    for picture in pictures.values():
        shop.site.rewrite(picture, shop.photo(1000, 700))
    replaced = time.monotonic()
    served: dict[str, float] = {}

    def asked_again() -> dict[str, float]:
        for where, picture in pictures.items():
            # Once more at the worst of times: what is kept now is kept from now on.
            if where not in served and cdn.get(picture).content != old[where]:
                served[where] = time.monotonic()
        return served

    wait_until(
        "the new pictures from the CDN host",
        asked_again,
        lambda served: len(served) == len(pictures),
        timeout=RIGHT_WITHIN - 25,
    )
    for where, since in served.items():
        time.sleep(max(0.0, since + 25 - time.monotonic()))
        assert visited(where, "new") != before[where]
        took = since - replaced
        figure(
            f"a replaced {where} picture: new from the CDN host after {took:.1f} s, in a browser 25 s later"
        )

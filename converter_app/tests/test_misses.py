"""The miss log: what nginx writes, and which file it means."""

from __future__ import annotations

import socket

import pytest

from webp_converter.events.misses import Miss, MissLog, Places, merged, parse
from webp_converter.variants.originals import canonical_url

PLACES = Places(b"/srv/resized", b"/srv/variants", frozenset({"jpg", "png", "webp"}))


@pytest.mark.parametrize(
    ("datagram", "miss"),
    [
        (b"<190>Nov 22 02:21:52 edge: pending /upload/a.jpg", Miss(b"/upload/a.jpg", True)),
        (b"<190>Nov  2 02:21:52 originals: webp /upload/a b: c.jpg", Miss(b"/upload/a b: c.jpg", False)),
        (b"<190>Nov 22 02:21:52 edge: pending /upload/\xff\n\xd0.jpg", Miss(b"/upload/\xff\n\xd0.jpg", True)),
        (b"", None),
        (b"<190>Nov 22 02:21:52 edge: pending", None),
        (b"<190>Nov 22 02:21:52 edge: pending upload/a.jpg", None),
        (b"pending /upload/a.jpg", None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_what_a_datagram_says(datagram: bytes, miss: Miss | None) -> None:
    assert parse(datagram) == miss


@pytest.mark.parametrize(
    ("request_path", "file"),
    [
        (b"/upload/resize_cache/iblock/1a2/1_1_1/a.jpg", b"/srv/resized/iblock/1a2/1_1_1/a.jpg"),
        (b"/upload/iblock/1a2/A.JPG", b"/srv/variants/iblock/1a2/A.JPG"),
        (b"/upload/\xff \n.png", b"/srv/variants/\xff \n.png"),
        (b"/upload/../../etc/passwd.jpg", None),
        (b"/upload/resize_cache/../x.jpg", None),
        (b"/upload/.hidden.jpg", None),
        (b"/upload/.git/a.jpg", None),
        (b"/upload//a.jpg", None),
        (b"/upload/a\0.jpg", None),
        (b"/upload/a.webp", b"/srv/variants/a.webp"),
        (b"/upload/a.jpg.webp", None),
        (b"/upload/a.php", None),
        (b"/upload/jpg", None),
        (b"/etc/a.jpg", None),
        (b"/", None),
    ],
)
def test_which_file_a_request_means(request_path: bytes, file: bytes | None) -> None:
    assert PLACES.of(request_path) == file


def test_a_picture_that_many_asked_for_comes_once() -> None:
    line = b"<190>Nov 22 02:21:52 originals: %s /upload/%s.jpg"
    misses = merged([line % (b"webp", b"a"), line % (b"pending", b"a"), b"noise", line % (b"webp", b"a")])
    assert misses == [Miss(b"/upload/a.jpg", True)]


def test_the_log_reads_what_is_there_and_waits_no_longer() -> None:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    log = MissLog(receiver)
    assert log.read(0.01) == []
    for name in (b"a", b"b", b"a"):
        sender.send(b"<190>Nov 22 02:21:52 edge: pending /upload/%s.jpg" % name)
    assert [miss.path for miss in log.read(1)] == [b"/upload/a.jpg", b"/upload/b.jpg"]
    log.close()
    sender.close()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (b"iblock/a b.jpg", "/upload/iblock/a%20b.jpg"),
        ("кот.jpg".encode(), "/upload/%D0%BA%D0%BE%D1%82.jpg"),
        (b"100%.jpg", "/upload/100%25.jpg"),
        (b"a?b#c.jpg", "/upload/a%3Fb%23c.jpg"),
        (b"!$&'()*+,:;=@[]~.jpg", "/upload/!$&'()*+,:;=@[]~.jpg"),
        (b'<>"\\^`{|}.jpg', "/upload/%3C%3E%22%5C%5E%60%7B%7C%7D.jpg"),
    ],
)
def test_an_address_is_spelled_as_nginx_spells_it(name: bytes, url: str) -> None:
    assert canonical_url(name) == url

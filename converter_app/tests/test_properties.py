"""What holds for any input at all: bytes from visitors, names from shops, pictures from anywhere."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webp_converter.base.bitrix import Box, box_of
from webp_converter.config import Config, Encoding
from webp_converter.config import Store as StoreConfig
from webp_converter.events.misses import Miss, Places, merged, parse
from webp_converter.picture.images import DamagedError, Keep, Variant, convert
from webp_converter.picture.predictor import score
from webp_converter.variants.originals import canonical_url
from webp_converter.variants.store import Mark, Store

EXTENSIONS = frozenset({"jpg", "png"})
PLACES = Places(b"/srv/resized", b"/srv/variants", EXTENSIONS)

names = st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & {0, ord("/")})
sizes = st.integers(0, 999_999)
paths = st.lists(names, min_size=1, max_size=5).map(b"/".join)


class TestBox:
    @given(
        sizes, sizes, st.integers(0, 9), st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)), paths
    )
    def test_every_directory_that_bitrix_names_is_read(
        self, width: int, height: int, resize_type: int, filters: bytes, above: bytes
    ) -> None:
        name = b"%d_%d_%d%s" % (width, height, resize_type, filters.hex().encode())
        assert box_of(b"/" + above + b"/" + name + b"/photo.jpg") == Box(width, height, resize_type)

    @given(st.one_of(st.binary(max_size=60), st.from_regex(rb"/[0-9]{1,7}_[0-9]{1,7}_[0-9a-f]{1,33}/a")))
    def test_only_a_directory_named_by_three_numbers_has_a_box(self, path: bytes) -> None:
        box = box_of(path)
        if box is not None:
            width, height, rest = path.split(b"/")[-2].split(b"_")
            assert box == Box(int(width), int(height), int(rest[:1]))
            assert len(rest) in (1, 33)

    @given(st.builds(Box, sizes, sizes, st.integers(0, 2)), st.integers(1, 10**6), st.integers(1, 10**6))
    def test_what_fits_still_fits_when_it_shrinks(self, box: Box, width: int, height: int) -> None:
        if box.holds(width, height):
            assert box.holds(math.ceil(width / 2), math.ceil(height / 2))
        if box.resize_type == 0:
            assert box.holds(width, height) == box.holds(height, width)


class TestMisses:
    @given(st.binary(max_size=200))
    @example(b"<190>Nov 22 00:00:00 edge: pending /")
    def test_any_datagram_is_a_path_or_nothing(self, datagram: bytes) -> None:
        miss = parse(datagram)
        assert miss is None or (miss.path.startswith(b"/") and datagram.endswith(miss.path))

    @given(st.binary(max_size=100).map(lambda path: b"/" + path), st.booleans())
    def test_what_nginx_writes_is_read(self, path: bytes, pending: bool) -> None:
        said = b"pending" if pending else b"webp"
        assert parse(b"<190>Nov 22 12:00:00 edge: %s %s" % (said, path)) == Miss(path, pending)

    @given(st.lists(st.tuples(st.sampled_from([b"/a", b"/b", b"/c"]), st.booleans())))
    def test_each_picture_comes_once_and_pending_wins(self, said: list[tuple[bytes, bool]]) -> None:
        line = b"<190>Nov 22 12:00:00 edge: %s %s"
        found = merged(line % (b"pending" if pending else b"webp", path) for path, pending in said)
        assert {miss.path: miss.pending for miss in found} == {
            path: any(pending for other, pending in said if other == path) for path, _ in said
        }
        assert len(found) == len({path for path, _ in said})

    @given(
        st.one_of(st.binary(max_size=100), paths),
        st.sampled_from([b"", b"/upload/", b"/upload/resize_cache/"]),
    )
    @example(b"../../../etc/passwd.jpg", b"/upload/")
    @example(b"a/../b.jpg", b"/upload/resize_cache/")
    def test_no_request_means_a_file_outside(self, path: bytes, prefix: bytes) -> None:
        file = PLACES.of(prefix + path)
        if file is None:
            return
        assert os.path.normpath(file) == file
        assert file.startswith((b"/srv/resized/", b"/srv/variants/"))
        assert b"\0" not in file
        assert file.rpartition(b".")[2].lower() in EXTENSIONS

    @given(paths)
    def test_every_picture_has_a_place(self, path: bytes) -> None:
        hidden = any(part.startswith(b".") for part in path.split(b"/"))
        expected = None if hidden else b"/srv/variants/" + path + b".jpg"
        if not path.startswith(b"resize_cache/"):
            assert PLACES.of(b"/upload/" + path + b".jpg") == expected
        if not hidden:
            file = PLACES.of(b"/upload/resize_cache/" + path + b".PNG")
            assert file == b"/srv/resized/" + path + b".PNG"

    @given(paths)
    def test_an_address_leads_back_to_its_name(self, name: bytes) -> None:
        url = canonical_url(name)
        assert url.isascii()
        assert not set(url) & set(' ?#"<>\n')
        assert unquote_to_bytes(url) == b"/upload/" + name


MAGICS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"BM"),
    *(b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x1cftypavif"),
)


class TestPictures:
    @settings(deadline=None)
    @given(st.sampled_from((b"", *MAGICS)), st.binary(max_size=300))
    def test_any_bytes_are_judged(self, magic: bytes, rest: bytes) -> None:
        data = magic + rest
        try:
            decision = convert(data, Encoding())
        except DamagedError:
            return
        assert isinstance(decision, Variant | Keep)

    @given(st.floats(-1, 1), st.floats(-1, 1))
    def test_a_higher_similarity_has_a_higher_score(self, one: float, other: float) -> None:
        assert one > other or score(one) <= score(other)


numbers = st.sampled_from([b"1", b"-1", b"9" * 30, b"x", b""])
verdicts = st.sampled_from([b"q80", b"no-saving", b"\xff", b""])
similarities = st.sampled_from([b"-", b"0.5", b"nan", b"inf", b"1e9", b"x"])


class TestMark:
    @given(st.tuples(numbers, numbers, verdicts, similarities, numbers, numbers))
    def test_any_words_are_a_mark_or_none(self, words: tuple[bytes, ...]) -> None:
        mark = Mark.parse(b" ".join([b"1", *words]))
        if mark is not None:
            again = Mark.parse(mark.pack())
            assert again is not None
            assert again[:3] == mark[:3]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        (root / "inner").mkdir(parents=True)
        (root / "inner" / "a.jpg").touch()
        (Path(directory) / "outside.jpg").write_bytes(b"secret")
        (root / "link").symlink_to(directory)
        config = Config(
            store=StoreConfig(root=root, temporary=Path(directory) / "tmp", owner="root", group="root")
        )
        yield Store(config, b"/nonexistent")


@given(
    st.lists(
        st.sampled_from([b"..", b".", b"", b"inner", b"link", b"outside.jpg", b"a.jpg", b"\xff"]), max_size=5
    )
)
@example([b"link", b"outside.jpg"])
@example([b"inner", b"..", b"..", b"outside.jpg"])
def test_no_path_leads_out_of_the_root(store: Store, parts: list[bytes]) -> None:
    path = b"/".join([store.root, *parts])
    try:
        original = store.read(path, 100)
    except ValueError:
        return
    if original is not None:
        assert os.path.realpath(path).startswith(os.path.realpath(store.root) + b"/")
        assert original.data == b""

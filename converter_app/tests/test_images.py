from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from converter_app.tests.samples import chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from tests.kit import pictures

from webp_converter.config import Encoding
from webp_converter.picture.images import (
    DamagedError,
    DecoderError,
    Header,
    Keep,
    Reason,
    Variant,
    convert,
    lowest_rung,
    opened,
)
from webp_converter.picture.inputs import Opened

DEFAULT = Encoding()


def converted(data: bytes, encoding: Encoding = DEFAULT) -> Variant:
    decision = convert(data, encoding)
    assert isinstance(decision, Variant), decision
    return decision


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of all samples, 0 to 255."""
    assert one.size == other.size
    assert one.mode == other.mode
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


class TestPolicies:
    @pytest.mark.parametrize("name", pictures.PHOTOGRAPHS)
    @pytest.mark.parametrize("side", [120, 300, 450])
    def test_ssim_takes_the_lowest_rung_that_reaches_the_target(self, name: str, side: int) -> None:
        data = pictures.jpeg(name, side)
        decision = convert(data, DEFAULT)
        if isinstance(decision, Keep):
            assert decision.reason in (Reason.NO_SAVING, Reason.SIMILARITY)
            return
        assert decision.quality in DEFAULT.ladder
        assert len(decision.data) <= 0.9 * len(data)
        assert pictures.ssim(data, decision.data) >= 0.95
        lower = DEFAULT.ladder[: DEFAULT.ladder.index(decision.quality)]
        if lower:
            worse = pictures.encoded(pictures.opened(data), "WEBP", quality=lower[-1], method=2)
            assert pictures.ssim(data, worse) < 0.95 + 0.005

    def test_fixed(self) -> None:
        decision = converted(pictures.jpeg(), Encoding(policy="fixed", quality=60))
        assert (decision.quality, decision.encodes) == (60, 1)

    @pytest.mark.parametrize(("limits", "quality"), [([10, 20], 30), ([10, 10**9], 50), ([10**8, 10**9], 70)])
    def test_size_rules(self, limits: list[int], quality: int) -> None:
        encoding = Encoding(policy="size-rules", size_limits=limits, size_qualities=[70, 50, 30])
        assert converted(pictures.jpeg(), encoding).quality == quality

    def test_too_little_saved(self) -> None:
        data = pictures.encoded(pictures.photograph(), quality=20)
        decision = convert(data, DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.NO_SAVING

    def test_no_rung_is_similar_enough(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
        data = pictures.encoded(Image.fromarray(noise), quality=100, subsampling=0)
        decision = convert(data, Encoding(ladder=[10]))
        assert decision == Keep(Reason.SIMILARITY, decision.detail)  # type: ignore[union-attr]


class TestLowestRung:
    @given(st.integers(1, 7), st.floats(0, 1), st.data())
    def test_finds_it_from_any_start_when_expectations_hold(
        self, rungs: int, slack: float, data: st.DataObject
    ) -> None:
        start = data.draw(st.integers(0, rungs - 1))
        lowest = data.draw(st.integers(0, rungs))
        gains = [float(rung) for rung in range(rungs)]
        tried: list[int] = []

        def measure(rung: int) -> tuple[float, bool]:
            tried.append(rung)
            return gains[rung], True

        found = lowest_rung(gains, start, lowest - 0.5, slack, measure)
        assert found == (lowest if lowest < rungs else None)
        assert len(tried) == len(set(tried)) <= 3

    @given(
        st.lists(st.floats(0, 5), min_size=1, max_size=7).map(sorted),
        st.lists(st.floats(0, 5), min_size=7, max_size=7),
        st.floats(0, 5),
        st.data(),
    )
    def test_what_it_finds_reaches_the_target_whatever_was_expected(
        self, gains: list[float], scores: list[float], target: float, data: st.DataObject
    ) -> None:
        start = data.draw(st.integers(0, len(gains) - 1))
        tried: list[int] = []

        def measure(rung: int) -> tuple[float, bool]:
            tried.append(rung)
            return scores[rung], True

        found = lowest_rung(gains, start, target, 0.1, measure)
        assert len(tried) == len(set(tried))
        if found is None:
            assert max(tried) == len(gains) - 1
            assert all(scores[rung] < target for rung in tried)
        else:
            assert found in tried
            assert scores[found] >= target

    def test_gives_up_when_no_higher_rung_is_worth_it(self) -> None:
        tried: list[int] = []

        def measure(rung: int) -> tuple[float, bool]:
            tried.append(rung)
            return 0, rung < 1

        assert lowest_rung([0, 1, 2, 3, 4], 0, 0.5, 0, measure) is None
        assert tried == [0, 1]


class TestPng:
    def test_a_photograph_is_stored_with_loss(self) -> None:
        data = pictures.encoded(pictures.photograph(), "PNG")
        decision = converted(data)
        assert decision.quality > 0
        assert len(decision.data) < len(data) / 3

    def test_a_drawing_is_stored_without_loss(self) -> None:
        drawing = Image.new("RGB", (300, 300), "white")
        for k in range(0, 300, 20):
            drawing.paste((k % 256, 90, 40), (k, 0, k + 7, 300))
        decision = converted(pictures.encoded(drawing, "PNG"))
        assert decision.quality == 0
        assert difference(pictures.opened(decision.data).convert("RGB"), drawing) == 0

    def test_alpha(self) -> None:
        image = pictures.photograph().convert("RGBA")
        alpha = Image.linear_gradient("L").resize(image.size)
        image.putalpha(alpha)
        variant = pictures.opened(converted(pictures.encoded(image, "PNG")).data)
        assert variant.mode == "RGBA"
        assert difference(variant.getchannel("A"), alpha) == 0
        ground = Image.new("RGBA", image.size, "white")
        seen = [Image.alpha_composite(ground, one).convert("RGB") for one in (image, variant)]
        assert difference(*seen) < 4

    def test_palette(self) -> None:
        image = pictures.photograph().quantize(64)
        variant = pictures.opened(converted(pictures.encoded(image, "PNG")).data)
        assert difference(variant.convert("RGB"), image.convert("RGB")) < 6

    def test_palette_with_transparency(self) -> None:
        image = pictures.photograph().quantize(16)
        data = pictures.encoded(image, "PNG", transparency=3)
        expected = pictures.opened(data).convert("RGBA")
        variant = pictures.opened(converted(data).data)
        assert difference(variant.getchannel("A"), expected.getchannel("A")) == 0

    def test_rgb_with_a_transparent_colour(self) -> None:
        image = Image.new("RGB", (64, 64), (10, 20, 30))
        image.paste((200, 100, 50), (16, 16, 48, 48))
        data = pictures.encoded(image, "PNG", transparency=(10, 20, 30), compress_level=0)
        variant = pictures.opened(converted(data).data)
        assert variant.getpixel((0, 0))[3] == 0  # type: ignore[index]
        assert variant.getpixel((32, 32)) == (200, 100, 50, 255)

    def test_16_bit_gray(self) -> None:
        gray = np.asarray(pictures.photograph().convert("L"))
        image = Image.fromarray(gray.astype(np.uint16) * 257)
        variant = pictures.opened(converted(pictures.encoded(image, "PNG")).data)
        assert difference(variant.convert("L"), Image.fromarray(gray)) < 4

    def test_16_bit_colour(self) -> None:
        photograph = np.asarray(pictures.photograph())
        height, width, _ = photograph.shape
        rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in photograph)
        header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        variant = pictures.opened(converted(data + chunk(b"IEND", b"")).data)
        assert difference(variant.convert("RGB"), pictures.photograph()) < 5

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_gray_with_a_transparent_level(self, depth: int) -> None:
        white = (1 << depth) - 1
        row = int("".join(format(v, f"0{depth}b") for v in [white] * 32 + [0] * 32), 2)
        rows = (b"\0" + row.to_bytes(8 * depth, "big")) * 64
        variant = pictures.opened(converted(png(depth, 0, rows, struct.pack(">H", white))).data)
        assert variant.getpixel((0, 0))[3] == 0  # type: ignore[index]
        assert variant.getpixel((63, 0)) == (0, 0, 0, 255)

    def test_16_bit_colour_with_a_transparent_one(self) -> None:
        clear, other = struct.pack(">HHH", 1000, 2000, 3000), struct.pack(">HHH", 60_000, 2000, 3000)
        variant = pictures.opened(converted(png(16, 2, (b"\0" + clear * 32 + other * 32) * 64, clear)).data)
        assert variant.getpixel((0, 0))[3] == 0  # type: ignore[index]
        assert variant.getpixel((63, 0)) == (234, 7, 11, 255)

    def test_16_bit_gray_with_a_transparent_level(self) -> None:
        values = np.full((64, 64), 30_000, np.uint16)
        values[16:48, 16:48] = 30_001
        data = pictures.encoded(Image.fromarray(values), "PNG", transparency=30_001, compress_level=0)
        variant = pictures.opened(converted(data).data)
        assert variant.getpixel((0, 0)) == (117, 117, 117, 255)
        assert variant.getpixel((30, 30))[3] == 0  # type: ignore[index]

    @pytest.mark.parametrize("mode", ["1", "L", "LA"])
    def test_gray_modes(self, mode: str) -> None:
        image = pictures.photograph().convert("L").convert(mode)
        data = pictures.encoded(image, "PNG", compress_level=0)
        variant = pictures.opened(converted(data).data)
        assert difference(variant.convert("L"), image.convert("L")) < 4


def png(depth: int, kind: int, rows: bytes, transparency: bytes) -> bytes:
    """A PNG of 64x64 pixels, not compressed."""
    header = struct.pack(">IIBBBBB", 64, 64, depth, kind, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", transparency), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


class TestJpeg:
    def test_orientation_is_baked_in(self) -> None:
        photograph = pictures.photograph("coffee.png")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        variant = pictures.opened(converted(pictures.encoded(photograph, exif=exif)).data)
        assert difference(variant, photograph.transpose(Image.Transpose.ROTATE_270)) < 5
        assert not variant.getexif()

    def test_cmyk(self) -> None:
        data = pictures.encoded(pictures.photograph().convert("CMYK"))
        variant = pictures.opened(converted(data).data)
        assert difference(variant.convert("RGB"), pictures.photograph()) < 6

    def test_gray(self) -> None:
        gray = pictures.photograph().convert("L")
        variant = pictures.opened(converted(pictures.encoded(gray)).data)
        assert difference(variant.convert("L"), gray) < 4

    @pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}])
    def test_kinds(self, options: dict[str, object]) -> None:
        data = pictures.encoded(pictures.photograph(), **options)
        assert pictures.ssim(data, converted(data).data) >= 0.95

    def test_an_embedded_profile_is_applied(self) -> None:
        """A profile whose red and blue are swapped: what is stored red is meant blue."""
        profile = swapped_profile()
        photograph = pictures.photograph("coffee.png")
        variant = pictures.opened(converted(pictures.encoded(photograph, icc_profile=profile)).data)
        red, green, blue = photograph.split()
        assert difference(variant, Image.merge("RGB", (blue, green, red))) < 6
        assert "icc_profile" not in variant.info

    def test_srgb_and_broken_profiles_change_nothing(self) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for profile in (srgb, b"no profile at all"):
            variant = converted(pictures.encoded(pictures.photograph(), icc_profile=profile))
            assert difference(pictures.opened(variant.data), pictures.photograph()) < 4

    def test_bytes_after_the_end_are_no_damage(self) -> None:
        assert converted(pictures.jpeg() + b"\0" * 100)

    def test_a_thumbnail_has_an_end_of_its_own(self) -> None:
        thumbnail = pictures.jpeg(side=64)
        app1 = b"Exif\0\0" + thumbnail
        segment = b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1
        data = pictures.jpeg()
        whole = data[:2] + segment + data[2:]
        assert converted(whole)
        with pytest.raises(DamagedError):
            convert(whole[:-200], DEFAULT)


@cache
def swapped_profile() -> bytes:
    """The sRGB profile with the names of its red and blue colorants exchanged; always the same, though it
    bears the time at which it was made."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)
    # Another description, or it would be taken for sRGB.
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


class TestAvif:
    ENCODING = Encoding(avif=True)

    @pytest.mark.parametrize("name", pictures.PHOTOGRAPHS)
    @pytest.mark.parametrize("side", [120, 300])
    def test_is_smaller_than_webp_and_reaches_the_target(self, name: str, side: int) -> None:
        data = pictures.jpeg(name, side)
        decision, without = convert(data, self.ENCODING), convert(data, DEFAULT)
        if isinstance(decision, Variant):
            assert isinstance(without, Variant)
            assert decision.data == without.data
        if decision.avif is None:
            return
        avif = decision.avif
        assert len(avif.data) < (len(decision.data) if isinstance(decision, Variant) else 0.9 * len(data))
        assert len(avif.data) <= 0.9 * len(data)
        assert avif.quality in DEFAULT.avif_ladder
        assert pictures.opened(avif.data).format == "AVIF"
        assert pictures.ssim(data, avif.data) >= 0.95
        lower = DEFAULT.avif_ladder[: DEFAULT.avif_ladder.index(avif.quality)]
        if lower:
            worse = pictures.encoded(pictures.opened(data), "AVIF", quality=lower[-1], speed=8)
            assert pictures.ssim(data, worse) < 0.95 + 0.005

    def test_there_is_one_of_a_usual_photograph(self) -> None:
        decision = converted(pictures.jpeg(), self.ENCODING)
        assert decision.avif is not None
        assert len(decision.avif.data) < 0.9 * len(decision.data)

    def test_beside_the_verdict_that_webp_is_no_better(self) -> None:
        """A ladder of which no rung saves enough, so that only AVIF does."""
        decision = convert(pictures.jpeg(), Encoding(avif=True, ladder=[100]))
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.NO_SAVING
        assert decision.avif is not None
        assert len(decision.avif.data) <= 0.9 * len(pictures.jpeg())

    def test_not_when_it_is_no_smaller(self) -> None:
        assert converted(pictures.jpeg(), Encoding(avif=True, avif_ladder=[100])).avif is None

    def test_not_of_what_is_too_large_for_it(self) -> None:
        assert converted(pictures.jpeg(), Encoding(avif=True, avif_maximum_pixels=100_000)).avif is None

    @pytest.mark.parametrize("policy", ["fixed", "size-rules"])
    def test_policies(self, policy: str) -> None:
        decision = converted(
            pictures.jpeg(), Encoding.model_validate({"avif": True, "policy": policy, "avif_quality": 40})
        )
        assert decision.avif is not None
        assert decision.avif.quality == 40

    def test_alpha(self) -> None:
        image = pictures.photograph().convert("RGBA")
        alpha = Image.linear_gradient("L").resize(image.size)
        image.putalpha(alpha)
        decision = converted(pictures.encoded(image, "PNG"), self.ENCODING)
        assert decision.avif is not None
        assert difference(pictures.opened(decision.avif.data).getchannel("A"), alpha) < 2

    def test_no_profile_but_that_of_its_pixels(self) -> None:
        """Pillow would embed the original's, which was applied."""
        data = pictures.encoded(pictures.photograph("coffee.png"), icc_profile=swapped_profile())
        decision = converted(data, self.ENCODING)
        assert decision.avif is not None
        variant = pictures.opened(decision.avif.data)
        assert "icc_profile" not in variant.info
        red, green, blue = pictures.photograph("coffee.png").split()
        assert difference(variant, Image.merge("RGB", (blue, green, red))) < 8


class TestMetadata:
    @pytest.fixture
    def data(self) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010F] = "maker"
        return pictures.encoded(
            pictures.photograph("coffee.png"), exif=exif, icc_profile=swapped_profile(), xmp=b"<x:xmpmeta/>"
        )

    @pytest.fixture(params=["WEBP", "AVIF"])
    def kept(self, request: pytest.FixtureRequest, data: bytes) -> Callable[[str], Image.Image]:
        def variant(policy: str) -> Image.Image:
            decision = converted(data, Encoding.model_validate({"avif": True, "metadata": policy}))
            assert decision.avif is not None
            return pictures.opened(decision.data if request.param == "WEBP" else decision.avif.data)

        return variant

    def test_none(self, kept: Callable[[str], Image.Image]) -> None:
        variant = kept("none")
        assert not {"icc_profile", "exif", "xmp"} & set(variant.info)
        assert difference(variant, self.turned(swapped=True)) < 8

    def test_icc(self, kept: Callable[[str], Image.Image]) -> None:
        variant = kept("icc")
        assert variant.info["icc_profile"] == swapped_profile()
        assert not {"exif", "xmp"} & set(variant.info)
        assert difference(variant, self.turned(swapped=False)) < 8

    def test_all(self, kept: Callable[[str], Image.Image]) -> None:
        variant = kept("all")
        assert variant.info["icc_profile"] == swapped_profile()
        assert b"xmpmeta" in variant.info["xmp"]
        exif = variant.getexif()
        assert exif[0x010F] == "maker"
        assert exif.get(0x0112, 1) == 1
        assert difference(variant, self.turned(swapped=False)) < 8

    def turned(self, swapped: bool) -> Image.Image:
        photograph = pictures.photograph("coffee.png").transpose(Image.Transpose.ROTATE_270)
        red, green, blue = photograph.split()
        return Image.merge("RGB", (blue, green, red) if swapped else (red, green, blue))

    @pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0\xff\0\0\0\x08\0\0"])
    def test_exif_that_can_t_be_read(self, exif: bytes) -> None:
        data = pictures.encoded(pictures.photograph(), exif=exif)
        decision = converted(data, Encoding(metadata="all", avif=True))
        assert decision.avif is not None
        for variant in (decision.data, decision.avif.data):
            assert "exif" not in pictures.opened(variant).info

    def test_srgb_and_what_is_no_profile_are_not_worth_their_bytes(self) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for profile in (srgb, b"no profile at all"):
            data = pictures.encoded(pictures.photograph(), icc_profile=profile)
            variant = pictures.opened(converted(data, Encoding(metadata="all")).data)
            assert "icc_profile" not in variant.info

    def test_lossless(self) -> None:
        drawing = Image.new("RGB", (300, 300), (200, 10, 10))
        data = pictures.encoded(drawing, "PNG", icc_profile=swapped_profile(), compress_level=0)
        decision = converted(data, Encoding(metadata="icc"))
        assert decision.quality == 0
        assert pictures.opened(decision.data).info["icc_profile"] == swapped_profile()
        assert pictures.opened(converted(data).data).convert("RGB").getpixel((9, 9)) == (10, 10, 200)


class TestRefused:
    @pytest.mark.parametrize("data", [b"", b"\0", bytes(70_000), bytes(4096) + pictures.jpeg()[4096:]])
    def test_no_bytes_or_zeros(self, data: bytes) -> None:
        """What a crash leaves."""
        with pytest.raises(DamagedError):
            convert(data, DEFAULT)

    @pytest.mark.parametrize("data", [b"<html>", b"PK\3\4", b"\xff\xd8"])
    def test_no_picture(self, data: bytes) -> None:
        assert convert(data, DEFAULT) == Keep(Reason.NO_PICTURE)

    # Behind the pixels of a PNG there are two checksums and the last chunk.
    @pytest.mark.parametrize(
        ("format", "options", "spare", "spare_hole"),
        [("JPEG", {}, 0, 0), ("JPEG", {"progressive": True}, 2, 2), ("PNG", {}, 21, 16)],
    )
    def test_any_cut_is_noticed(
        self, format: str, options: dict[str, object], spare: int, spare_hole: int
    ) -> None:
        data = pictures.encoded(pictures.photograph(side=120), format, **options)
        for length in (*range(12, len(data), 97), *range(len(data) - 40, len(data))):
            for tail in (b"", bytes(len(data) - length)):  # the rest missing, or a hole in the file
                if (data[:length] + tail).rstrip(b"\0") == data:
                    continue
                if length >= len(data) - (spare_hole if tail else spare):
                    assert converted(data[:length] + tail)
                    continue
                with pytest.raises(DamagedError):
                    convert(data[:length] + tail, DEFAULT)

    def test_a_progressive_jpeg_cut_between_scans(self) -> None:
        data = pictures.encoded(pictures.photograph(side=300), progressive=True)
        position = data.find(b"\xff\xda", data.find(b"\xff\xda") + 2)
        with pytest.raises(DamagedError):
            convert(data[:position], DEFAULT)

    def test_a_bomb_is_refused_before_it_is_decoded(self) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        assert convert(data, DEFAULT) == Keep(Reason.TOO_LARGE, "60000x60000")

    def test_a_side_too_long_for_webp(self) -> None:
        data = pictures.encoded(Image.new("L", (16384, 2)), "PNG")
        assert convert(data, DEFAULT) == Keep(Reason.TOO_LARGE, "16384x2")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_headers_are_read(format: str) -> None:
    picture = opened(pictures.encoded(Image.new("L", (7, 9)), format), DEFAULT)
    assert isinstance(picture, Opened)
    assert picture.header == Header(format.lower(), 7, 9, 1, 63)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (6, 300)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    image = pictures.photograph().resize(size)
    for data in (pictures.encoded(image), pictures.encoded(image, "PNG", compress_level=0)):
        decision = convert(data, DEFAULT)
        if isinstance(decision, Variant):
            assert pictures.opened(decision.data).size == size


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG"]), st.data())
def test_mutated_pictures_are_converted_kept_or_damaged(format: str, data: st.DataObject) -> None:
    picture = bytearray(pictures.encoded(pictures.photograph(side=48), format))
    for _ in range(data.draw(st.integers(1, 8))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    try:
        decision = convert(bytes(picture), DEFAULT)
    except DamagedError:
        return
    if isinstance(decision, Variant):
        Image.open(io.BytesIO(decision.data)).load()


# Made before a fixture breaks what it is made with.
_GOOD_JPEG = pictures.jpeg(side=120)


class TestBrokenDecoder:
    """What a decoder can't do says nothing about a picture: a damaged one is removed from the shop."""

    @pytest.fixture(params=["open", "load"])
    def broken(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise KeyError("JPEG")

        if request.param == "open":
            monkeypatch.setattr(Image, "OPEN", {})
        else:
            monkeypatch.setattr(Image.Image, "load", fail)
            monkeypatch.setattr(JpegImageFile, "load", fail)

    @pytest.mark.usefixtures("broken")
    def test_is_not_taken_for_a_damaged_picture(self) -> None:
        with pytest.raises(DecoderError, match="jpeg decoder is broken"):
            convert(_GOOD_JPEG, Encoding())

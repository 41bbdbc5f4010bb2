"""What comes in, by its pixels: each kind of picture is made here, converted, and looked at."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converter_app.tests import samples
from converter_app.tests.samples import BLUE, GREEN, RED, GifFrame, PngFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFile
from tests.kit import pictures

from webp_converter.config import Encoding
from webp_converter.picture.images import DamagedError, Keep, Reason, Variant, convert, opened
from webp_converter.picture.inputs import Opened, decoded

DEFAULT = Encoding()
# Drawings of a few pixels have no bytes to save.
ANY_SIZE = Encoding(minimum_saving=0)


def variant_of(data: bytes, encoding: Encoding = DEFAULT) -> Variant:
    decision = convert(data, encoding)
    assert isinstance(decision, Variant), decision
    return decision


def pixels_of(data: bytes, encoding: Encoding = DEFAULT) -> Image.Image:
    return pictures.opened(variant_of(data, encoding).data)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of all samples, 0 to 255."""
    assert (one.size, one.mode) == (other.size, other.mode)
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def near(colour: Any, expected: Sequence[int], tolerance: int = 12) -> bool:
    return len(colour) == len(expected) and all(
        abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True)
    )


def stripped(image: Image.Image) -> Image.Image:
    """Without the colour profile that a photograph may have."""
    copy = image.copy()
    copy.info = {}
    return copy


def as_avif(image: Image.Image, primaries: int = 1, transfer: int = 13, **options: Any) -> bytes:
    data = pictures.encoded(image, "AVIF", **options)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


class TestWebp:
    def test_a_thumbnail_as_bitrix_writes_it_becomes_smaller(self) -> None:
        photograph = stripped(pictures.photograph(side=300))
        data = pictures.encoded(photograph, "WEBP", quality=95)
        variant = variant_of(data)
        assert len(variant.data) <= 0.9 * len(data)
        assert pictures.ssim(data, variant.data) >= 0.95

    def test_one_that_is_small_already_is_kept(self) -> None:
        data = pictures.encoded(stripped(pictures.photograph(side=300)), "WEBP", quality=60)
        decision = convert(data, DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason in (Reason.NO_SAVING, Reason.SIMILARITY)

    def test_transparency_stays(self) -> None:
        image = stripped(pictures.photograph(side=120))
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        data = pictures.encoded(image, "WEBP", lossless=True)
        shown = pixels_of(data)
        assert shown.mode == "RGBA"
        assert difference(shown.getchannel("A"), pictures.opened(data).getchannel("A")) < 1

    def test_orientation_in_exif_is_not_applied_as_browsers_ignore_it(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.new("RGB", (60, 40), "red")
        assert pixels_of(pictures.encoded(image, "WEBP", exif=exif.tobytes()), ANY_SIZE).size == (60, 40)

    def test_animations_move_on(self) -> None:
        colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
        first, *others = [Image.new("RGB", (64, 64), colour) for colour in colours]
        noise = np.random.default_rng(1).integers(0, 40, (64, 64, 3), np.uint8)
        first, *others = [
            Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
            for image in (first, *others)
        ]
        data = pictures.encoded(
            first, "WEBP", save_all=True, append_images=others, duration=[40, 80, 120], loop=3, quality=100
        )
        made = Image.open(io.BytesIO(variant_of(data).data))
        assert (getattr(made, "n_frames", 1), made.info["loop"]) == (3, 3)
        shown = []
        for index, colour in enumerate(colours):
            made.seek(index)
            made.load()
            shown.append(made.info["duration"])
            average = np.asarray(made.convert("RGB")).mean(axis=(0, 1))
            assert np.abs(average - np.asarray(colour)).max() < 40
        assert shown == [40, 80, 120]

    @pytest.mark.parametrize("kept_share", [0.1, 0.5, 0.99])
    def test_cut_off_is_damaged(self, kept_share: float) -> None:
        data = pictures.encoded(stripped(pictures.photograph(side=120)), "WEBP")
        with pytest.raises(DamagedError):
            convert(data[: int(len(data) * kept_share)], DEFAULT)

    def test_what_the_decoder_refuses_for_another_reason_is_left_alone(self) -> None:
        data = bytearray(pictures.encoded(stripped(pictures.photograph(side=120)), "WEBP"))
        data[23:26] = b"\0\0\0"  # the start code of the key frame
        decision = convert(bytes(data), DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.FORMAT


class TestAvif:
    def test_one_that_can_be_smaller_becomes_webp(self) -> None:
        data = as_avif(stripped(pictures.photograph(side=300)), quality=98)
        variant = variant_of(data)
        assert len(variant.data) <= 0.9 * len(data)
        assert pictures.ssim(data, variant.data) >= 0.95
        assert variant.avif is None

    def test_of_a_small_one_webp_is_for_those_without_avif_alone(self) -> None:
        data = as_avif(stripped(pictures.photograph(side=300)), quality=50)
        variant = variant_of(data)
        assert pictures.ssim(data, variant.data) >= 0.95
        assert variant.avif is not None
        assert variant.avif.data == data

    def test_orientation_is_that_of_its_boxes(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.new("RGB", (60, 40), "red")
        image.paste("blue", (0, 0, 30, 40))
        shown = pixels_of(as_avif(image, exif=exif.tobytes()), ANY_SIZE)
        assert shown.size == (40, 60)
        assert near(shown.getpixel((20, 10)), (0, 0, 255), 40)

    def test_transparency_stays(self) -> None:
        image = stripped(pictures.photograph(side=120))
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        data = as_avif(image, quality=90)
        shown = pixels_of(data)
        assert difference(shown.getchannel("A"), pictures.opened(data).getchannel("A")) < 3

    @pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (1, 8)])
    def test_colours_that_the_decoder_does_not_convert_are_left_alone(
        self, primaries: int, transfer: int
    ) -> None:
        data = as_avif(stripped(pictures.photograph(side=120)), primaries, transfer)
        decision = convert(data, DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.FORMAT

    def test_a_moving_one_is_left_alone(self) -> None:
        frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green")]
        data = pictures.encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
        assert convert(data, DEFAULT) == Keep(Reason.FORMAT, "avif of several frames")

    def test_one_of_a_more_general_kind(self) -> None:
        data = bytearray(as_avif(stripped(pictures.photograph(side=120)), quality=98))
        data[8:12] = b"mif1"
        variant_of(bytes(data))

    @pytest.mark.parametrize("kept_share", [0.1, 0.5, 0.99])
    def test_cut_off_is_damaged(self, kept_share: float) -> None:
        data = as_avif(stripped(pictures.photograph(side=120)))
        with pytest.raises(DamagedError):
            convert(data[: int(len(data) * kept_share)], DEFAULT)


class TestBmp:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
    def test_modes(self, mode: str) -> None:
        image = stripped(pictures.photograph())
        image = image.quantize(64) if mode == "P" else image.convert(mode)
        shown = pixels_of(pictures.encoded(image, "BMP")).convert("RGB")
        assert difference(shown, image.convert("RGB")) < 6

    def test_a_drawing_is_stored_without_loss(self) -> None:
        drawing = Image.new("RGB", (300, 300), "white")
        drawing.paste((10, 200, 30), (20, 20, 90, 250))
        decision = variant_of(pictures.encoded(drawing, "BMP"))
        assert decision.quality == 0
        assert difference(pictures.opened(decision.data).convert("RGB"), drawing) == 0


class TestTiff:
    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
    @pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
    def test_compressions(self, mode: str, compression: str | None) -> None:
        image = stripped(pictures.photograph()).convert(mode)
        data = pictures.encoded(image, "TIFF", compression=compression)
        assert difference(pixels_of(data).convert("RGB"), image.convert("RGB")) < 7

    def test_16_bit_gray(self) -> None:
        gray = np.asarray(pictures.photograph().convert("L"))
        data = pictures.encoded(Image.fromarray(gray.astype(np.uint16) * 257), "TIFF")
        assert difference(pixels_of(data).convert("L"), Image.fromarray(gray)) < 4

    def test_alpha_and_palette(self) -> None:
        image = pictures.photograph().convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        shown = pixels_of(pictures.encoded(image, "TIFF"))
        assert difference(shown.getchannel("A"), image.getchannel("A")) == 0
        palette = stripped(pictures.photograph()).quantize(64)
        shown = pixels_of(pictures.encoded(palette, "TIFF"))
        assert difference(shown.convert("RGB"), palette.convert("RGB")) < 6

    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    def test_orientation_is_baked_in_once(self, compression: str | None) -> None:
        photograph = stripped(pictures.photograph("coffee.png"))
        data = pictures.encoded(photograph, "TIFF", compression=compression, tiffinfo={274: 6})
        expected = photograph.transpose(Image.Transpose.ROTATE_270)
        assert difference(pixels_of(data), expected) < 5

    def test_several_pages_are_left_alone(self) -> None:
        page = Image.new("L", (32, 32))
        data = pictures.encoded(page, "TIFF", save_all=True, append_images=[page])
        assert convert(data, DEFAULT) == Keep(Reason.FORMAT, "tiff of several pages")

    @pytest.mark.parametrize("mode", ["F", "I", "LAB"])
    def test_measurements_are_left_alone(self, mode: str) -> None:
        data = pictures.encoded(Image.new(mode, (32, 32)), "TIFF")
        assert convert(data, DEFAULT) == Keep(Reason.FORMAT, f"tiff of mode {mode}")


class TestCmyk:
    def test_as_adobe_writes_it(self) -> None:
        """Inverted, with Adobe's marker; Pillow writes and reads it so."""
        image = stripped(pictures.photograph()).convert("CMYK")
        data = pictures.encoded(image, quality=95)
        assert b"Adobe" in data[:100]
        assert difference(pixels_of(data), image.convert("RGB")) < 6

    def test_as_luma_chroma_and_black(self) -> None:
        """Adobe's YCCK: the three inks are stored like a colour JPEG."""
        image = stripped(pictures.photograph()).convert("CMYK")
        *inks, black = image.split()
        luma_chroma = Image.merge("RGB", inks).convert("YCbCr").split()
        stored = Image.merge("CMYK", (*(ImageChops.invert(band) for band in luma_chroma), black))
        data = bytearray(pictures.encoded(stored, quality=95))
        transform = data.index(b"Adobe") + 11
        assert data[transform] == 0
        data[transform] = 2
        assert difference(pixels_of(bytes(data)), image.convert("RGB")) < 7

    @pytest.mark.parametrize("format", ["JPEG", "TIFF"])
    def test_a_profile_is_applied(self, format: str) -> None:
        """One by which cyan ink is red and magenta ink is cyan."""
        image = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
        image.paste((0, 255, 0, 0), (32, 0, 64, 64))
        options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
        data = pictures.encoded(image, format, icc_profile=samples.cmyk_profile(), **options)
        for metadata in ("none", "icc", "all"):
            shown = pixels_of(data, Encoding(metadata=metadata, minimum_saving=0))
            assert near(shown.convert("RGB").getpixel((10, 30)), (252, 0, 8), 30)
            assert near(shown.convert("RGB").getpixel((53, 30)), (57, 255, 254), 30)
            assert "icc_profile" not in shown.info


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("metadata", ["none", "icc", "all"])
def test_a_profile_for_gray_is_applied(format: str, metadata: str) -> None:
    image = Image.new("L", (64, 64), 128)
    image.paste(30, (32, 0, 64, 64))
    data = pictures.encoded(image, format, icc_profile=samples.linear_gray_profile())
    encoding = Encoding.model_validate({"metadata": metadata, "minimum_saving": 0})
    shown = pixels_of(data, encoding).convert("RGB")
    # By the curve of sRGB (IEC 61966-2-1): 0.5 of the light is 188, 30/255 of it is 95.
    assert near(shown.getpixel((10, 30)), (188, 188, 188), 3)
    assert near(shown.getpixel((53, 30)), (95, 95, 95), 3)
    assert "icc_profile" not in shown.info


TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_baked_in(format: str, orientation: int) -> None:
    photograph = stripped(pictures.photograph("coffee.png", 120))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = pixels_of(pictures.encoded(photograph, format, exif=exif)).convert("RGB")
    expected = photograph.transpose(TURNED[orientation]) if orientation in TURNED else photograph
    assert difference(shown, expected) < 6
    assert not shown.getexif()


class TestGif:
    def test_a_photograph(self) -> None:
        image = stripped(pictures.photograph()).quantize(128)
        shown = pixels_of(pictures.encoded(image, "GIF"))
        assert shown.mode == "RGB"
        assert difference(shown, image.convert("RGB")) < 6

    def test_interlaced_and_gray(self) -> None:
        image = pictures.photograph().convert("L")
        for interlace in (0, 1):
            shown = pixels_of(pictures.encoded(image, "GIF", interlace=interlace))
            assert difference(shown.convert("L"), image) < 4

    def test_transparency(self) -> None:
        frame = GifFrame(RED, (0, 0, 64, 64), transparent=BLUE, hole=(8, 8, 16, 16))
        shown = pixels_of(samples.gif((64, 64), [frame]))
        assert shown.getpixel((10, 10))[3] == 0  # type: ignore[index]
        assert shown.getpixel((40, 40)) == (255, 0, 0, 255)

    def test_a_frame_smaller_than_the_screen_and_one_larger(self) -> None:
        shown = pixels_of(samples.gif((90, 80), [GifFrame(RED, (10, 20, 64, 32))]))
        assert shown.size == (90, 80)
        assert shown.getpixel((5, 5))[3] == 0  # type: ignore[index]
        assert shown.getpixel((12, 22)) == (255, 0, 0, 255)
        assert pixels_of(samples.gif((4, 4), [GifFrame(RED, (0, 0, 64, 64))])).size == (64, 64)

    def test_the_signature_decides_not_the_name(self) -> None:
        """As Bitrix has them: the name says JPEG. What is converted never learns of the name."""
        assert isinstance(opened(pictures.encoded(Image.new("P", (8, 8)), "GIF"), DEFAULT), Opened)


class Shown:
    """An animated WebP as it is shown."""

    def __init__(self, data: bytes) -> None:
        image = Image.open(io.BytesIO(data))
        self.size = image.size
        self.loop = image.info["loop"]
        self.background = image.info["background"]
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            self.frames.append(image.convert("RGBA"))
            self.durations.append(image.info["duration"])

    def colours(self, *place: int) -> list[Any]:
        return [frame.getpixel((place[0], place[1])) for frame in self.frames]


CLEAR = (0, 0, 0, 0)


class TestAnimatedGif:
    FRAMES = (
        GifFrame(RED, (0, 0, 80, 60), centiseconds=7),
        GifFrame(GREEN, (10, 10, 20, 20), centiseconds=30),
        GifFrame(BLUE, (40, 10, 20, 20), centiseconds=0),
        GifFrame(GREEN, (40, 40, 20, 20), centiseconds=123),
    )

    def shown(self, *frames: GifFrame, encoding: Encoding = ANY_SIZE, **options: Any) -> Shown:
        return Shown(variant_of(samples.gif((80, 60), frames or self.FRAMES, **options), encoding).data)

    @pytest.mark.parametrize("lossless", [True, False])
    def test_frames_colours_and_times(self, lossless: bool) -> None:
        shown = self.shown(encoding=Encoding(minimum_saving=0, lossless=lossless, ssim_target=0.9))
        # Browsers show a frame that wants no time for a tenth of a second.
        assert shown.durations == [70, 300, 100, 1230]
        assert shown.size == (80, 60)
        red, green, blue = ((*samples.PALETTE[index], 255) for index in (RED, GREEN, BLUE))
        for place, expected in {
            (20, 20): [red, green, green, green],
            (50, 20): [red, red, blue, blue],
            (50, 50): [red, red, red, green],
        }.items():
            for colour, wanted in zip(shown.colours(*place), expected, strict=True):
                assert near(colour, wanted, 0 if lossless else 30), place

    @pytest.mark.parametrize(("repeats", "loop"), [(None, 1), (0, 0), (1, 2), (3, 4), (65535, 65535)])
    def test_the_count_of_repeats_becomes_one_of_plays(self, repeats: int | None, loop: int) -> None:
        assert self.shown(repeats=repeats).loop == loop

    def test_the_background_is_transparent_whatever_the_gif_says(self) -> None:
        assert self.shown().background == CLEAR

    def test_what_becomes_of_a_frame_afterwards(self) -> None:
        shown = self.shown(
            GifFrame(RED, (0, 0, 80, 60)),
            GifFrame(GREEN, (0, 0, 20, 20), disposal=2),
            GifFrame(BLUE, (30, 0, 20, 20), disposal=3),
            GifFrame(GREEN, (60, 40, 20, 20)),
        )
        red, green, blue = ((*samples.PALETTE[index], 255) for index in (RED, GREEN, BLUE))
        assert [near(colour, CLEAR, 0) for colour in shown.colours(5, 5)] == [False, False, True, True]
        assert shown.colours(5, 5)[:2] == [red, green]
        assert shown.colours(35, 5) == [red, red, blue, red]
        assert shown.colours(70, 50) == [red, red, red, green]

    def test_a_first_frame_that_is_taken_back(self) -> None:
        shown = self.shown(
            GifFrame(RED, (0, 0, 80, 60), disposal=3), GifFrame(GREEN, (0, 0, 20, 20)), repeats=0
        )
        assert shown.colours(50, 50)[0] == (255, 0, 0, 255)
        assert shown.colours(50, 50)[1] == CLEAR

    def test_what_shows_through(self) -> None:
        shown = self.shown(
            GifFrame(RED, (0, 0, 80, 60)),
            GifFrame(GREEN, (0, 0, 60, 60), transparent=BLUE, hole=(10, 10, 20, 20)),
        )
        assert shown.colours(15, 15) == [(255, 0, 0, 255)] * 2
        assert shown.colours(50, 15)[1] == (0, 160, 0, 255)

    def test_frames_that_lie_outside_of_the_screen(self) -> None:
        frames = [
            GifFrame(RED, (0, 0, 80, 60)),
            GifFrame(GREEN, (70, 50, 30, 30), disposal=2),
            GifFrame(BLUE, (500, 500, 10, 10), disposal=2),
            GifFrame(GREEN, (0, 0, 10, 10)),
        ]
        shown = self.shown(*frames)
        assert shown.size == (80, 60)
        assert shown.colours(75, 55)[1] == (0, 160, 0, 255)
        assert shown.colours(75, 55)[-1] == CLEAR

    def test_a_film_is_stored_with_loss_that_is_not_seen(self) -> None:
        photograph = stripped(pictures.photograph("coffee.png"))
        frames = [photograph.crop((4 * k, 2 * k, 4 * k + 200, 2 * k + 150)) for k in range(12)]
        data = pictures.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80)
        decision = variant_of(data)
        assert decision.quality in DEFAULT.ladder
        assert decision.similarity >= 0.951
        assert len(decision.data) <= 0.9 * len(data)
        shown, image = Shown(decision.data), Image.open(io.BytesIO(data))
        assert (len(shown.frames), set(shown.durations)) == (12, {80})
        for index, frame in enumerate(shown.frames):
            image.seek(index)
            both = [pictures.encoded(one.convert("RGB"), "PNG") for one in (image, frame)]
            assert pictures.ssim(*both) >= 0.945

    def test_policies(self) -> None:
        data = samples.gif((80, 60), self.FRAMES)
        fixed = variant_of(data, Encoding(policy="fixed", quality=40, lossless=False, minimum_saving=0))
        assert fixed.quality == 40
        rules = Encoding(policy="size-rules", size_qualities=[33, 22, 11], lossless=False, minimum_saving=0)
        assert variant_of(data, rules).quality == 33

    def test_no_avif(self) -> None:
        data = samples.gif((80, 60), self.FRAMES)
        assert variant_of(data, Encoding(avif=True, minimum_saving=0)).avif is None

    def test_never_larger_than_the_original_less_the_saving(self) -> None:
        data = samples.gif((80, 60), self.FRAMES)
        small = samples.gif((80, 60), [frame._replace(box=(0, 0, 2, 2)) for frame in self.FRAMES])
        assert len(variant_of(data).data) < 0.9 * len(data)
        assert convert(small, DEFAULT) == Keep(Reason.NO_SAVING)


class TestAnimatedPng:
    FRAMES = (
        PngFrame((255, 0, 0, 255), (0, 0, 80, 60), delay=(1, 4)),
        PngFrame((0, 0, 255, 128), (0, 0, 20, 20), delay=(3, 0), over=True),
        PngFrame((0, 0, 255, 128), (40, 0, 20, 20), delay=(1, 3)),
        PngFrame((0, 160, 0, 255), (60, 40, 20, 20), delay=(0, 1)),
    )

    def test_frames_colours_and_times(self) -> None:
        shown = Shown(variant_of(samples.apng((80, 60), self.FRAMES, plays=3)).data)
        assert shown.durations == [250, 30, 333, 100]
        assert shown.loop == 3
        red, green = (255, 0, 0, 255), (0, 160, 0, 255)
        assert near(shown.colours(5, 5)[1], (127, 0, 128, 255), 1)
        assert shown.colours(45, 5) == [red, red, (0, 0, 255, 128), (0, 0, 255, 128)]
        assert shown.colours(70, 50) == [red, red, red, green]

    def test_the_default_image_is_no_frame(self) -> None:
        shown = Shown(variant_of(samples.apng((80, 60), self.FRAMES, default=(1, 2, 3, 255))).data)
        assert len(shown.frames) == 4
        assert shown.colours(79, 0)[0] == (255, 0, 0, 255)
        assert shown.loop == 0

    def test_of_a_single_frame_it_is_a_still_picture(self) -> None:
        data = samples.apng((80, 60), self.FRAMES[:1], default=(1, 2, 3, 255))
        shown = pictures.opened(variant_of(data).data)
        assert getattr(shown, "n_frames", 1) == 1
        assert shown.convert("RGB").getpixel((5, 5)) == (255, 0, 0)

    def test_what_becomes_of_a_frame_afterwards(self) -> None:
        frames = [
            PngFrame((255, 0, 0, 255), (0, 0, 80, 60)),
            PngFrame((0, 160, 0, 255), (0, 0, 20, 20), disposal=1),
            PngFrame((0, 0, 255, 255), (30, 0, 20, 20), disposal=2),
            PngFrame((0, 160, 0, 255), (60, 40, 20, 20)),
        ]
        shown = Shown(variant_of(samples.apng((80, 60), frames)).data)
        red, green, blue = (255, 0, 0, 255), (0, 160, 0, 255), (0, 0, 255, 255)
        assert shown.colours(5, 5) == [red, green, CLEAR, CLEAR]
        assert shown.colours(35, 5) == [red, red, blue, red]

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (samples.apng((80, 60), FRAMES, announced=9), "png of 4 frames instead of 9"),
            (
                samples.apng((80, 60), [*FRAMES[:1], PngFrame((1, 1, 1, 1), (70, 50, 20, 20))]),
                "png with a frame outside of the canvas",
            ),
            (
                samples.apng((80, 60), [*FRAMES[:1], PngFrame((1, 1, 1, 1), (4_000_000_000, 0, 20, 20))]),
                "png with a frame outside of the canvas",
            ),
            (
                samples.apng((80, 60), [FRAMES[0]._replace(delay=(65_535, 1))] * 200),
                "animation of more than 24 days",
            ),
        ],
    )
    def test_what_is_not_as_it_says_is_left_alone(self, data: bytes, detail: str) -> None:
        assert convert(data, DEFAULT) == Keep(Reason.FORMAT, detail)

    def test_a_long_one_plays_as_long(self) -> None:
        frames = [frame._replace(delay=(10_000, 1)) for frame in self.FRAMES[:2]]
        shown = Shown(variant_of(samples.apng((80, 60), frames)).data)
        assert shown.durations == [10_000_000] * 2


SMALL = stripped(pictures.photograph(side=60))


class TestDamaged:
    """What is cut off at any place is no picture to publish."""

    CUTS = (
        ("gif", pictures.encoded(SMALL, "GIF"), True),
        ("animated gif", samples.gif((80, 60), TestAnimatedGif.FRAMES), True),
        ("animated png", samples.apng((80, 60), TestAnimatedPng.FRAMES), True),
        # Their last samples may be zero; who would know a hole?
        ("bmp", pictures.encoded(SMALL, "BMP"), False),
    )

    @pytest.mark.parametrize(("data", "holes"), [cut[1:] for cut in CUTS], ids=[cut[0] for cut in CUTS])
    def test_any_cut_is_noticed(self, data: bytes, holes: bool) -> None:
        # Browsers show the frames that are there; where one ends, nothing shows that there should be more.
        frames = TestAnimatedGif.FRAMES
        whole = [samples.gif((80, 60), frames[:count], end=b"") for count in range(1, 5)]
        # The last bytes of the last frame, too, tell of no pixel.
        spare = 12 if data.startswith(samples.PNG) else 3
        whole = [each[: len(each) - lacking] for each in (*whole, data) for lacking in range(spare + 1)]
        lengths = (*range(60, len(data), len(data) // 40), *range(len(data) - 20, len(data)))
        for length in lengths:
            for tail in (b"", bytes(len(data) - length)) if holes else (b"",):
                cut = data[:length] + tail
                if data.startswith(samples.PNG) and length >= len(data) - spare:
                    continue
                if cut != data and cut not in whole:
                    with pytest.raises(DamagedError):
                        convert(cut, ANY_SIZE)

    @pytest.mark.parametrize("compression", [None, "tiff_deflate", "jpeg"])
    def test_a_tiff_that_is_not_understood_is_left_alone(self, compression: str | None) -> None:
        """It may be cut off, or of a kind that the decoder doesn't know; it is never removed."""
        data = pictures.encoded(SMALL, "TIFF", compression=compression)
        for length in (*range(12, len(data), len(data) // 40), *range(len(data) - 20, len(data))):
            decision = convert(data[:length], ANY_SIZE)
            assert isinstance(decision, Keep)
            assert decision.reason is Reason.FORMAT

    def test_a_tiff_whose_tags_are_of_the_wrong_type_is_left_alone(self) -> None:
        number, text = (struct.pack("<HHI", 322, kind, 1) for kind in (4, 2))
        decision = convert(tiff(16, 16, t322=65, t323=16).replace(number, text), DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.FORMAT

    def test_a_bmp_of_an_unknown_kind_is_left_alone(self) -> None:
        data = bytearray(pictures.encoded(SMALL, "BMP"))
        data[30] = 4  # holds a JPEG
        decision = convert(bytes(data), DEFAULT)
        assert isinstance(decision, Keep)
        assert decision.reason is Reason.FORMAT

    @pytest.mark.parametrize("end", [b"", b";", b";" + bytes(100), b"garbage", b";garbage"])
    def test_the_end_of_a_gif_is_where_browsers_see_it(self, end: bytes) -> None:
        data = samples.gif((80, 60), TestAnimatedGif.FRAMES, end=end)
        assert len(Shown(variant_of(data, ANY_SIZE).data).frames) == 4

    def test_bytes_after_the_end_are_no_damage(self) -> None:
        assert variant_of(samples.gif((80, 60), TestAnimatedGif.FRAMES) + bytes(100), ANY_SIZE)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(width: int, height: int, **tags: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 278: height, 273: 300, 279: 10}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in sorted(entries.items()):
        data += struct.pack("<HHII", tag, 4, 1, value)
    return data.ljust(400, b"\0")


BOMBS = {
    "bmp": (bmp(60_000, 60_000), "60000x60000"),
    "tiff": (tiff(60_000, 60_000), "60000x60000"),
    "tiff of small size with a large tile": (
        tiff(16, 16, t322=65_536, t323=65_536, t324=300, t325=10),
        "16x16",
    ),
    "gif whose screen is large": (
        samples.gif((65_535, 65_535), [GifFrame(RED, (0, 0, 1, 1))]),
        "65535x65535",
    ),
    "gif whose frame is large": (
        samples.gif((9, 9), [GifFrame(RED, (0, 0, 9, 9))] * 2)[:-1]
        + b"!\xf9\x04\x08\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
        "9x9, 3 frames",
    ),
    "gif of many large frames": (
        samples.gif((5000, 5000), [GifFrame(RED, (0, 0, 1, 1), disposal=2)] * 400),
        "5000x5000, 400 frames",
    ),
    "gif of many frames": (
        samples.gif((9, 9), [GifFrame(RED, (0, 0, 1, 1))] * 1001),
        "more than 1000 frames",
    ),
    "animated png of many large frames": (
        samples.apng((9000, 9000), [PngFrame((0, 0, 0, 0), (0, 0, 1, 1))] * 3),
        "9000x9000, 3 frames",
    ),
}


class TestBombs:
    @pytest.mark.parametrize("name", BOMBS)
    def test_are_refused_before_they_are_decoded(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(*_: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr(ImageFile.ImageFile, "load", load)
        data, detail = BOMBS[name]
        assert convert(data, DEFAULT) == Keep(Reason.TOO_LARGE, detail)

    def test_and_without_memory(self) -> None:
        """A process that may take 64 MiB more than it has refuses all of them."""
        program = """
import resource, sys
from converter_app.tests.test_inputs import BOMBS, DEFAULT, convert
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
print(*(convert(data, DEFAULT).reason for data, _ in BOMBS.values()))
"""
        here = Path(__file__).parents[2]
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=False
        )
        assert result.stdout.split() == ["too-large"] * len(BOMBS), result.stderr

    def test_limits_are_settings(self) -> None:
        data = samples.gif((80, 60), TestAnimatedGif.FRAMES)
        assert convert(data, Encoding(maximum_frames=3)) == Keep(Reason.TOO_LARGE, "more than 3 frames")
        few = Encoding(maximum_pixels=10_000)
        assert convert(data, few) == Keep(Reason.TOO_LARGE, "80x60, 4 frames")


def decoded_frames(data: bytes) -> list[Image.Image]:
    picture = opened(data, DEFAULT)
    assert isinstance(picture, Opened)
    return decoded(picture, "none")[0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            GifFrame,
            st.integers(0, 3),
            st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)),
            st.integers(0, 65535),
            st.integers(0, 3),
            st.sampled_from([None, 0, 3]),
            st.none(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_frames_are_laid_over_each_other_by_the_rules(frames: list[GifFrame]) -> None:
    """Against an array of colours that is filled by hand."""
    size = (12, 10)
    shown = decoded_frames(samples.gif(size, frames))
    assert len(shown) == len(frames)
    width, height = (max(size[axis], frames[0].box[2 + axis]) for axis in (0, 1))
    canvas = np.zeros((height, width, 4), np.uint8)
    for frame, image in zip(frames, shown, strict=True):
        left, top, across, down = frame.box
        place = (slice(top, top + down), slice(left, left + across))
        before = canvas.copy()
        if frame.colour != frame.transparent:
            canvas[place] = (*samples.PALETTE[frame.colour], 255)
        assert np.array_equal(np.asarray(image.convert("RGBA")), canvas)
        if frame.disposal == 2:
            canvas[place] = 0
        elif frame.disposal == 3:
            canvas = before


MUTATED = {
    "GIF": samples.gif((80, 60), TestAnimatedGif.FRAMES),
    "APNG": samples.apng((80, 60), TestAnimatedPng.FRAMES),
    "BMP": pictures.encoded(SMALL, "BMP"),
    "TIFF": pictures.encoded(SMALL, "TIFF"),
    "WEBP": pictures.encoded(SMALL, "WEBP"),
    "animated WEBP": pictures.encoded(SMALL, "WEBP", save_all=True, append_images=[ImageChops.invert(SMALL)]),
    "AVIF": pictures.encoded(SMALL, "AVIF"),
    "TIFF LZW": pictures.encoded(SMALL, "TIFF", compression="tiff_lzw"),
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MUTATED)), st.data())
def test_mutated_pictures_are_converted_kept_or_damaged(name: str, data: st.DataObject) -> None:
    picture = bytearray(MUTATED[name])
    # Headers are where it hurts.
    places = st.one_of(st.integers(0, len(picture) - 1), st.integers(0, min(200, len(picture) - 1)))
    for _ in range(data.draw(st.integers(1, 8))):
        picture[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        decision = convert(bytes(picture), Encoding(maximum_pixels=100_000))
    except DamagedError:
        return
    if isinstance(decision, Variant):
        pictures.opened(decision.data)

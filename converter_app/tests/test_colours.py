"""What is said of a picture's colours and orientation, and what may be wrong beside its pixels. What is
expected follows from a formula, or was seen in Chromium 156. The last test asks the browser that is here."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from converter_app.tests import chromium, samples
from converter_app.tests import colours as c
from converter_app.tests.samples import chunk
from numpy.typing import NDArray
from PIL import Image
from tests.kit.pictures import encoded

from webp_converter.config import Encoding
from webp_converter.picture.images import DamagedError, Keep, Reason, Variant, convert

ENCODING = Encoding(minimum_saving=0)
SCENE = c.scene()
GRAY = SCENE.mean(2, keepdims=True)
RAMP = np.tile(np.linspace(0, 1, SCENE.shape[1])[None, :, None], (len(SCENE), 1, 1))

LINEAR = c.rgb_profile(c.SRGB, c.curve(1.0))
WIDE = c.rgb_profile(c.P3, c.SRGB_CURVE, version=4)
SWAPPED = c.rgb_profile(c.SRGB, c.SRGB_CURVE, "gbr", version=4)
LINEAR_GRAY = c.gray_profile(c.curve(1.0))
S_RGB = (b"sRGB", b"\0")


def shown(data: bytes) -> NDArray[np.int16]:
    """The variant of a picture as it is seen on white."""
    decision = convert(data, ENCODING)
    assert isinstance(decision, Variant), decision
    image = Image.open(io.BytesIO(decision.data)).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return np.asarray(ground.convert("RGB"), np.int16)


def error(data: bytes, expected: NDArray[np.uint8]) -> float:
    found = shown(data)
    assert found.shape == expected.shape
    return float(np.abs(found - expected.astype(np.int16)).mean())


def srgb_light(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def jpeg(values: NDArray[np.float64] = SCENE, icc: bytes = b"") -> bytes:
    samples_ = np.rint(values.squeeze() * 255).astype(np.uint8)
    return c.with_segments(encoded(Image.fromarray(samples_), quality=95), *c.icc_segments(icc))


AS_IT_IS = np.rint(SCENE * 255).astype(np.uint8)
AS_LINEAR = c.as_srgb(SCENE, 1, c.SRGB)
AS_WIDE = c.as_srgb(srgb_light(SCENE), 1, c.P3)
GRAY_LINEAR = c.as_srgb(GRAY.repeat(3, 2), 1, c.SRGB)
GRAY_AS_IT_IS = np.rint(GRAY.repeat(3, 2) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("icc", "expected"),
    [
        (LINEAR, AS_LINEAR),
        (c.rgb_profile(c.SRGB, c.parametric(1.0), version=4), AS_LINEAR),
        (WIDE, AS_WIDE),
        (SWAPPED, AS_IT_IS[:, :, [2, 0, 1]]),
        (c.rgb_profile(c.ADOBE, c.curve(2.2)), c.as_srgb(SCENE, 2.2, c.ADOBE)),
        (c.rgb_profile(c.PROPHOTO, c.curve(1.8)), c.as_srgb(SCENE, 1.8, c.PROPHOTO)),
        (c.rgb_profile(c.REC2020, c.parametric(2.4), version=4), c.as_srgb(SCENE, 2.4, c.REC2020)),
        (
            c.rgb_profile(c.SRGB, c.curve_of((i / 255) ** 1.8 for i in range(256))),
            c.as_srgb(SCENE, 1.8, c.SRGB),
        ),
        # Of no use, and ignored by browsers: cut off, for another kind of picture, of a version to come.
        (LINEAR[:-3], AS_IT_IS),
        (LINEAR_GRAY, AS_IT_IS),
        (samples.cmyk_profile(), AS_IT_IS),
        (LINEAR[:8] + b"\5" + LINEAR[9:], AS_IT_IS),
        (LINEAR[:68] + bytes(12) + LINEAR[80:], AS_IT_IS),
        # What a profile is for isn't asked.
        (LINEAR[:12] + b"link" + LINEAR[16:], AS_LINEAR),
    ],
)
def test_a_profile_is_judged_by_what_it_does(icc: bytes, expected: NDArray[np.uint8]) -> None:
    """All of them say that they are sRGB."""
    assert error(jpeg(icc=icc), expected) < 6
    assert error(c.png(SCENE, 2, c.iccp(icc)), expected) < 6


def test_a_profile_of_many_segments() -> None:
    segments = c.icc_segments(LINEAR, 100)
    plain = jpeg()
    assert error(c.with_segments(plain, *segments[::-1]), AS_LINEAR) < 6
    assert error(c.with_segments(plain, *segments[:-1]), AS_IT_IS) < 6
    # The first of each number counts.
    assert error(c.with_segments(plain, *c.icc_segments(LINEAR), *c.icc_segments(WIDE)), AS_LINEAR) < 6


@pytest.mark.parametrize(
    "icc", [c.table_profile(), c.table_profile(tag=b"A2B1"), c.table_profile(space=b"XYZ ")]
)
def test_tables_that_are_read_in_different_ways_are_left_alone(icc: bytes) -> None:
    decision = convert(jpeg(icc=icc), ENCODING)
    assert isinstance(decision, Keep)
    assert decision.reason is Reason.FORMAT


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([c.gama(1)], AS_LINEAR),
        ([c.gama(1 / 2.2)], AS_IT_IS),
        ([c.gama(1 / 1.8)], c.as_srgb(SCENE, 1.8, c.SRGB)),
        ([c.gama(0)], AS_IT_IS),
        ([c.gama(1), S_RGB], AS_IT_IS),
        ([c.chrm(c.P3)], AS_IT_IS),
        ([c.chrm(c.P3), c.gama(1)], c.as_srgb(SCENE, 1, c.P3)),
        ([c.chrm(c.ADOBE), c.gama(1 / 2.2)], c.as_srgb(SCENE, 2.2, c.ADOBE)),
        ([c.chrm([0] * 8), c.gama(1)], AS_IT_IS),
        ([(b"cHRM", bytes(31)), c.gama(1)], AS_LINEAR),
        ([c.iccp(LINEAR), S_RGB], AS_LINEAR),
        ([S_RGB, c.iccp(LINEAR)], AS_LINEAR),
        ([c.iccp(LINEAR), c.iccp(WIDE)], AS_LINEAR),
        ([c.iccp(LINEAR[:-3]), c.gama(1)], AS_LINEAR),
        ([(b"iCCP", b"name\0\0garbage")], AS_IT_IS),
        ([c.iccp(LINEAR + bytes(1_200_000))], AS_LINEAR),
        ([c.iccp(LINEAR), c.cicp(12, 13)], AS_WIDE),
        ([c.cicp(12, 13), c.gama(1)], AS_WIDE),
        ([c.cicp(1, 8)], AS_LINEAR),
        ([c.cicp(1, 1)], c.as_srgb(SCENE, 2.4, c.SRGB)),
        ([c.cicp(9, 14)], c.as_srgb(SCENE, 2.4, c.REC2020)),
        ([c.cicp(12, 13, full=0), c.iccp(LINEAR)], AS_LINEAR),
        ([c.cicp(99, 13), c.iccp(LINEAR)], AS_LINEAR),
        ([c.cicp(2, 2)], AS_IT_IS),
    ],
)
def test_what_the_chunks_of_a_png_say(chunks: list[tuple[bytes, bytes]], expected: NDArray[np.uint8]) -> None:
    assert error(c.png(SCENE, 2, *chunks), expected) < 6


@pytest.mark.parametrize(
    "said", [c.cicp(9, 16), c.cicp(9, 18), c.cicp(5, 6), c.cicp(1, 13, matrix=1), c.cicp(1, 13, 2)]
)
def test_other_colours_of_cicp_are_left_alone(said: tuple[bytes, bytes]) -> None:
    """Bright ones, and what browsers don't show at all."""
    decision = convert(c.png(SCENE, 2, said), ENCODING)
    assert isinstance(decision, Keep)
    assert decision.reason is Reason.FORMAT


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("said", [c.iccp(LINEAR_GRAY), c.iccp(LINEAR), c.gama(1)])
def test_gray_of_a_png(depth: int, said: tuple[bytes, bytes]) -> None:
    assert error(c.png(GRAY, 0, said, depth=depth), GRAY_LINEAR) < 3
    key = (b"tRNS", struct.pack(">H", 1))
    assert error(c.png(GRAY, 0, said, key, depth=depth), GRAY_LINEAR) < 3


def test_gray_of_16_bits_keeps_its_dark_steps() -> None:
    dark = np.tile(np.linspace(0, 0.02, 200)[None, :, None], (40, 1, 1))
    expected = c.as_srgb(dark.repeat(3, 2), 1, c.SRGB)
    assert error(c.png(dark, 0, c.iccp(LINEAR_GRAY), depth=16), expected) < 1.5


def test_gray_with_alpha() -> None:
    picture = np.dstack((GRAY, RAMP))
    expected = c.as_srgb(GRAY.repeat(3, 2), 1.8, c.SRGB) * RAMP + 255 * (1 - RAMP)
    for depth in (8, 16):
        data = c.png(picture, 4, c.iccp(c.gray_profile(c.curve(1.8))), depth=depth)
        assert error(data, np.rint(expected).astype(np.uint8)) < 3


@pytest.mark.parametrize(
    ("icc", "expected"),
    [
        (LINEAR_GRAY, GRAY_LINEAR),
        (LINEAR, GRAY_LINEAR),
        (SWAPPED, GRAY_AS_IT_IS),
        (samples.cmyk_profile(), GRAY_AS_IT_IS),
        (c.gray_profile(c.curve(1.0), b"Lab "), GRAY_AS_IT_IS),
        (
            c.gray_profile(c.curve_of((i / 255) ** 1.8 for i in range(256))),
            c.as_srgb(GRAY.repeat(3, 2), 1.8, c.SRGB),
        ),
    ],
)
def test_gray_of_a_jpeg(icc: bytes, expected: NDArray[np.uint8]) -> None:
    assert error(jpeg(GRAY, icc), expected) < 4


@pytest.mark.parametrize(
    ("kind", "picture"), [(2, SCENE), (6, np.dstack((SCENE, RAMP))), (4, np.dstack((GRAY, RAMP)))]
)
def test_dark_colours_that_need_16_bits_are_left_alone(kind: int, picture: NDArray[np.float64]) -> None:
    decision = convert(c.png(picture, kind, c.gama(1), depth=16), ENCODING)
    assert decision == Keep(Reason.FORMAT, "png of 16 bits, in colours that need them")
    assert isinstance(convert(c.png(picture, kind, c.gama(0.55), depth=16), ENCODING), Variant)


def test_a_palette() -> None:
    indices = np.rint(GRAY * 255).astype(np.uint8)
    colours = np.stack((np.arange(256), np.arange(256) // 2, 255 - np.arange(256)), 1)
    expected = c.as_srgb(colours[indices[:, :, 0]] / 255, 1, c.SRGB)
    palette = (b"PLTE", colours.astype(np.uint8).tobytes())
    assert error(c.png(indices, 3, c.gama(1), palette), expected) < 3
    assert error(c.png(indices, 3, palette, c.iccp(LINEAR)), expected) < 3


def moving(*before: tuple[bytes, bytes]) -> bytes:
    """Two equal frames."""
    data = c.png(SCENE, 2, *before)
    at = data.index(b"IDAT") - 4
    pixels = data[at + 8 : at + 8 + struct.unpack(">I", data[at : at + 4])[0]]
    height, width = SCENE.shape[:2]
    controls = [
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 1, 0, 0))
        for number in (0, 1)
    ]
    parts = (chunk(b"acTL", struct.pack(">II", 2, 0)), controls[0], chunk(b"IDAT", pixels), controls[1])
    return b"".join((data[:at], *parts, chunk(b"fdAT", struct.pack(">I", 2) + pixels), chunk(b"IEND", b"")))


def test_an_animated_png() -> None:
    assert error(moving(c.gama(1)), AS_LINEAR) < 6
    assert error(moving(c.iccp(LINEAR), c.cicp(12, 13)), AS_WIDE) < 6
    assert error(moving((b"eXIf", c.exif(c.orientation(6)))), np.rot90(AS_IT_IS, -1)) < 6
    assert error(moving((b"eXIf", c.exif(c.orientation(6, kind=4)))), AS_IT_IS) < 6
    whole = moving()
    for data in (
        whole[:-12],
        whole[:-4] + b"abcd",
        whole[:33] + chunk(b"tEXt", b"a\0b")[:-1] + b"!" + whole[33:],
    ):
        assert error(data, AS_IT_IS) < 6


OTHER = (0x0100, 3, 1, b"\5\0\0\0")


@pytest.mark.parametrize(
    ("exif", "turns"),
    [
        (c.exif(c.orientation(6)), -1),
        (c.exif(c.orientation(6, ">"), order=">"), -1),
        (c.exif(c.orientation(8)), 1),
        (c.exif(c.orientation(0)), 0),
        (c.exif(c.orientation(9)), 0),
        (c.exif(c.orientation(9), c.orientation(6)), -1),
        (c.exif(c.orientation(6, kind=4)), 0),
        (c.exif(c.orientation(6, kind=1)), 0),
        (c.exif(c.orientation(6, count=2)), 0),
        (c.exif(c.orientation(6, count=0)), 0),
        (c.exif(OTHER, second=[c.orientation(6)]), 0),
        (c.exif(c.orientation(6))[:-6], 0),
        (b"XX" + c.exif(c.orientation(6))[2:], 0),
        (b"", 0),
    ],
)
def test_orientation_is_read_where_browsers_read_it(exif: bytes, turns: int) -> None:
    expected = np.rot90(AS_IT_IS, turns)
    assert error(c.with_segments(jpeg(), b"\xe1Exif\0\0" + exif), expected) < 6
    assert error(c.png(SCENE, 2, (b"eXIf", exif)), expected) < 6


def test_orientation_is_not_read_elsewhere() -> None:
    six = c.exif(c.orientation(6))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    raw = b"\nexif\n" + f"{len(six) + 6:8}\n{(b'Exif' + bytes(2) + six).hex()}\n".encode()
    plain = jpeg()
    for data in (
        c.with_segments(plain, b"\xe1http://ns.adobe.com/xap/1.0/\0" + xmp),
        c.with_segments(plain, b"\xe1Exif\0\0" + c.exif(OTHER), b"\xe1Exif\0\0" + six),
        c.with_segments(plain, b"\xe2Exif\0\0" + six),
        plain[:-2] + c.with_segments(plain[:2], b"\xe1Exif\0\0" + six)[2:] + plain[-2:],
        c.png(SCENE, 2, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        c.png(SCENE, 2, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw))),
        c.png(SCENE, 2, (b"eXIf", b"Exif\0\0" + six)),
        c.png(SCENE, 2, after=[(b"eXIf", six)]),
    ):
        assert error(data, AS_IT_IS) < 6


def blemished() -> dict[str, bytes]:
    """Pictures that browsers show whole."""
    whole = c.png(SCENE, 2)
    at = whole.index(b"IDAT") - 4
    pixels = whole[at + 8 : -16]
    text = chunk(b"tEXt", b"a\0b")
    big = zlib.compress(bytes(3_000_000))

    def with_pixels(*contents: bytes) -> bytes:
        return whole[:at] + b"".join(chunk(b"IDAT", content) for content in contents) + whole[-12:]

    def behind_header(added: bytes) -> bytes:
        return whole[:33] + added + whole[33:]

    photo = jpeg()
    noise = b"zz" * 99
    restarts = encoded(Image.fromarray(AS_IT_IS), quality=95, restart_marker_blocks=3)
    restart = restarts.index(b"\xff\xd1", 400)
    return {
        "a wrong checksum of a text": behind_header(text[:-1] + b"!"),
        "a wrong checksum of a profile": behind_header(chunk(*c.iccp(LINEAR))[:-1] + b"!"),
        "a wrong checksum of the end": whole[:-1] + b"!",
        "a wrong checksum of the pixels": whole[:-13] + b"!" + whole[-12:],
        "a wrong sum of the pixels": with_pixels(pixels[:-4] + b"abcd"),
        "no sum of the pixels": with_pixels(pixels[:-4]),
        "no end": whole[:-12],
        "half an end": whole[:-5],
        "no checksum": whole[:-16],
        "cut within the sum": whole[: at + 8 + len(pixels) - 2],
        "bytes behind the end": whole + noise,
        "bytes behind the pixels": with_pixels(pixels + noise),
        "empty pixels around": with_pixels(b"", pixels, b""),
        "text behind the pixels": whole[:-12] + chunk(b"zTXt", b"a\0\0" + big) + whole[-12:],
        "a long text": behind_header(chunk(b"zTXt", b"a\0\0" + big)),
        "a long international text": behind_header(chunk(b"iTXt", b"a\0\1\0\0\0" + big)),
        "broken text": behind_header(chunk(b"zTXt", b"a\0\0no")),
        "an unknown chunk": behind_header(chunk(b"abCd", b"xx")),
        "a chunk without a name": behind_header(chunk(b"1\0xx", b"xx")),
        "a wrong key": behind_header(chunk(b"tRNS", b"a")),
        "a wrong palette": behind_header(chunk(b"PLTE", bytes(4))),
        "garbage between segments": photo[:20] + b"garbage" + photo[20:],
        "filling between segments": photo[:20] + b"\xff\xff\xff" + photo[20:],
        "an escape between segments": photo[:20] + b"\xff\0" + photo[20:],
        "a comment without a length": photo[:20] + b"\xff\xfe\0\0" + photo[20:],
        "a broken segment of Photoshop": c.with_segments(photo, b"\xedPhotoshop 3.0\0" + b"8BIM\4"),
        "a broken segment of more pictures": c.with_segments(photo, b"\xe2MPF\0II*\0abc"),
        "a short segment of JFIF": c.with_segments(photo, b"\xe0JF"),
        "a restart out of order": restarts[:restart] + b"\xff\xd5" + restarts[restart + 2 :],
        "zeros in place of the end": photo[:-2] + bytes(300),
        "bytes in place of the end": photo[:-2] + noise,
        "bytes behind a jpeg": photo + noise,
        "a progressive one without an end": encoded(Image.fromarray(AS_IT_IS), quality=95, progressive=True)[
            :-2
        ],
    }


@pytest.mark.parametrize("name", blemished())
def test_whole_pictures_are_never_called_damaged(name: str) -> None:
    assert error(blemished()[name], AS_IT_IS) < 6


@pytest.mark.parametrize("lacking", [1, 2, 3])
def test_a_gif_without_an_end_is_whole(lacking: int) -> None:
    image = Image.fromarray(AS_IT_IS).quantize(64)
    assert error(encoded(image, "GIF")[:-lacking], np.asarray(image.convert("RGB"))) < 6


def test_what_nothing_proves_is_neither_converted_nor_removed() -> None:
    whole = c.png(SCENE, 2)
    data = whole[:-20] + b"abcdefgh" + whole[-12:]
    assert convert(data, ENCODING) == Keep(Reason.FORMAT, "png with two wrong checksums")
    # But without an end it was cut off, and the rest is a hole.
    with pytest.raises(DamagedError):
        convert(whole[:-20] + bytes(20), ENCODING)


def drawn(browser: chromium.Browser, data: bytes) -> NDArray[np.uint8]:
    """What a browser draws of a picture, on white."""
    mime = "image/png" if data.startswith(samples.PNG) else "image/jpeg"
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    browser.value(
        "(url => { window.drawn = ''; const image = new Image(); image.onload = () => {"
        " const canvas = document.createElement('canvas');"
        " canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;"
        " const context = canvas.getContext('2d'); context.fillStyle = 'white';"
        " context.fillRect(0, 0, canvas.width, canvas.height); context.drawImage(image, 0, 0);"
        " window.drawn = canvas.toDataURL() }; image.src = url;"
        f" document.body.replaceChildren(image) }})({json.dumps(url)})"
    )
    browser.wait_for("window.drawn")
    encoded_ = str(browser.value("window.drawn")).partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded_))).convert("RGB"))


def test_variants_look_as_a_browser_draws_the_originals() -> None:
    assert shutil.which("chromium"), "chromium is not installed"
    both: Callable[[bytes], list[bytes]] = lambda icc: [jpeg(icc=icc), c.png(SCENE, 2, c.iccp(icc))]  # noqa: E731
    originals = [
        *both(LINEAR),
        *both(WIDE),
        *both(SWAPPED),
        *both(c.rgb_profile(c.PROPHOTO, c.curve(1.8))),
        jpeg(GRAY, LINEAR),
        jpeg(GRAY, LINEAR_GRAY),
        c.png(GRAY, 0, c.iccp(LINEAR_GRAY), depth=16),
        c.png(SCENE, 2, c.gama(1)),
        c.png(SCENE, 2, c.chrm(c.P3), c.gama(1 / 2.2)),
        c.png(SCENE, 2, c.cicp(9, 14)),
        c.png(np.dstack((GRAY, RAMP)), 4, c.iccp(c.gray_profile(c.curve(1.8))), depth=16),
        c.png(SCENE, 2, (b"eXIf", c.exif(c.orientation(6)))),
        moving(c.cicp(12, 13), (b"eXIf", c.exif(c.orientation(3)))),
        *blemished().values(),
    ]
    with chromium.browser() as browser:
        browser.open("about:blank")
        errors = [error(data, drawn(browser, data)) for data in originals]
    assert max(errors) < 9, errors

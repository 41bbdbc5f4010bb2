"""Pictures as they come in: what their first bytes prove, what their header says, and the pixels as a browser
shows them. Hostile input: nothing is decoded before its size was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from webp_converter import animation, modern
from webp_converter.animation import Animation, UnsupportedError

# Our own limit is checked before anything is decoded, and refuses instead of warning.
Image.MAX_IMAGE_PIXELS = None


class DamagedError(Exception):
    """A picture by its signature that can't be decoded whole; or no bytes at all."""


class DecoderError(Exception):
    """A decoder that refuses even a picture known to be good: nothing is said about the one at hand."""


_SIGNATURES = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("webp", 8, b"WEBP"),
    ("bmp", 0, b"BM"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
)

_DECODED = {
    "jpeg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "bmp": "BMP",
    "tiff": "TIFF",
    "webp": "WEBP",
    "avif": "AVIF",
}

_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_DEPTH_16 = {"I;16", "I;16B", "I;16L", "I;16N"}
"""Gray, which PNG and TIFF have; samples of 16 bits in colour are cut to 8 by Pillow's decoders."""

_PNG_DEPTH = 24
"""Offset of the bits of a sample in a PNG."""

_TILE_SIDES = (322, 323)
"""TIFF's tags for the sides of its tiles; each tile is decoded into memory of its own."""

_DECODER_BYTES = 16
"""What a decoder needs for a pixel at most: in a progressive JPEG all coefficients are kept to the end."""


def signature(data: bytes) -> str | None:
    """The format that the first bytes prove, or None."""
    for name, offset, magic in _SIGNATURES:
        if data.startswith(magic, offset):
            return name
    return "avif" if modern.is_avif(data) else None


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before it is decoded."""

    format: str
    """`jpeg`, `png`, `gif`, `bmp`, `tiff`, `webp`, `avif`."""

    width: int
    """Pixels. Of all formats but TIFF as stored: orientation is not applied."""

    height: int
    """Pixels, like `width`."""

    frames: int = 1
    """More than one: it moves."""

    pixels: int = 0
    """What is decoded: of an animation, all of its frames."""


class Opened(NamedTuple):
    """A picture whose header was read."""

    header: Header
    data: bytes
    source: Image.Image | Animation
    """Not decoded yet."""


class Metadata(NamedTuple):
    """What goes into a variant besides its pixels."""

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    def options(self) -> dict[str, bytes]:
        """As Pillow's encoders take them. Always given: the one for AVIF would else embed the profile of the
        original, which is no longer that of the pixels."""
        return {"icc_profile": self.icc, "exif": self.exif, "xmp": self.xmp}


def is_decoded(name: str) -> bool:
    """Whether pictures of this format are converted; the others are left alone."""
    return name in _DECODED


def opened(data: bytes, name: str, maximum_frames: int) -> Opened:
    """Reads the header of a picture of the format that its signature proves. In an animation, at most one
    frame more than `maximum_frames` is looked for.

    Raises DamagedError, DecoderError, UnsupportedError.
    """
    if name in ("webp", "avif") and (what := modern.cut_off(data)):
        raise DamagedError(f"{name}: {what}")
    if name == "gif":  # Pillow would allocate what it claims to be when it opens it
        with _guarded(name):
            return _animation(data, name, animation.parse_gif(data, maximum_frames))
    with _guarded(name):
        image = Image.open(BytesIO(data), formats=[_DECODED[name]])
        if name == "png" and getattr(image, "is_animated", False):
            return _animation(data, name, animation.parse_apng(data, maximum_frames))
        if name == "avif":
            modern.check_avif(data, getattr(image, "n_frames", 1))
        if name == "webp" and getattr(image, "is_animated", False):
            return _animation(data, name, modern.parse_webp(image, data, maximum_frames))
        if image.mode not in _MODES and image.mode not in _DEPTH_16:
            raise UnsupportedError(f"{name} of mode {image.mode}")
        pixels = image.width * image.height
        if name == "tiff":
            if getattr(image, "is_animated", False):
                raise UnsupportedError("tiff of several pages")
            tags = getattr(image, "tag_v2", {})
            tile_width, tile_height = (int(tags.get(tag, 0)) for tag in _TILE_SIDES)
            pixels = max(pixels, tile_width * tile_height)
    return Opened(Header(name, image.width, image.height, 1, pixels), data, image)


def _animation(data: bytes, name: str, found: Animation) -> Opened:
    return Opened(Header(name, found.width, found.height, len(found.frames), found.pixels), data, found)


def decoded(picture: Opened, metadata: Literal["none", "icc", "all"]) -> tuple[list[Image.Image], Metadata]:
    """The picture as a browser shows it: 8 bits, RGB or RGBA, sRGB, upright; of an animation, one frame after
    the other. `metadata` says what else is kept of it: with a colour profile, colours stay what they are.

    Raises DamagedError when it can't be decoded whole, UnsupportedError, DecoderError, MemoryError.
    """
    if isinstance(picture.source, Animation):
        return _frames(picture.source, picture.header, picture.data, metadata)
    image, header, data = picture.source, picture.header, picture.data
    with _guarded(header.format, header.pixels):
        image.load()
    # Decoders are content when the last rows are there. A file may still lack its end, or have a hole for it.
    if header.format == "jpeg" and b"\xff\xd9" not in data[_first_scan(data) :]:
        raise DamagedError("jpeg: no end of image")
    if header.format == "png" and data.rfind(b"IEND\xae\x42\x60\x82") < data.find(b"IDAT"):
        raise DamagedError("png: no IEND chunk")
    canonical, kept = _canonical(image, data, metadata)
    return [canonical], kept


def _frames(
    source: Animation, header: Header, data: bytes, metadata: Literal["none", "icc", "all"]
) -> tuple[list[Image.Image], Metadata]:
    kept = Metadata()

    def parts() -> Iterator[Image.Image]:
        nonlocal kept
        if header.format == "webp":
            with _guarded(header.format, header.pixels):
                for canvas in modern.frames_of_webp(data, len(source.frames)):
                    part, kept = _canonical(canvas, data, metadata)
                    yield part
            return
        for frame in source.frames:
            with _guarded(header.format, frame.width * frame.height):
                image: Image.Image = Image.open(BytesIO(frame.file), formats=[_DECODED[header.format]])
                image.load()
            part, kept = _canonical(image, frame.file, metadata)
            yield part

    shown = list(animation.composed(source, parts()))
    if all(image.getchannel("A").getextrema() == (255, 255) for image in shown):
        shown = [image.convert("RGB") for image in shown]
    return shown, kept


@contextmanager
def _guarded(name: str, pixels: int = 0) -> Iterator[None]:
    """Tells damaged pictures from other causes of a decoder's failure. A decoder given hostile bytes raises
    anything, and one without memory may speak of broken data. A TIFF may be of kinds that the decoder doesn't
    know, and so may the header of a BMP: what isn't understood may well be whole."""
    try:
        yield
    except (MemoryError, UnsupportedError):
        raise
    except Exception as error:
        np.empty(_DECODER_BYTES * pixels, np.uint8)
        _require_decoder(name)
        if name in ("tiff", "webp", "avif") or (name == "bmp" and not pixels):
            raise UnsupportedError(f"{name}: {error}") from error
        raise DamagedError(f"{name}: {error}") from error


def _sample(form: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), "gray").save(file, form)
    return file.getvalue()


# Made when this module is imported, which loads Pillow's plugins before any picture is looked at.
_SAMPLES = {name: _sample(form) for name, form in _DECODED.items()}


def _require_decoder(name: str) -> None:
    """Proves that a decoder still decodes, before a picture that it refuses is called damaged.

    A damaged picture is removed. A plugin that can't be loaded or a library that was replaced under a running
    process refuses every picture, and must not cost one of them.

    Raises DecoderError.
    """
    try:
        Image.open(BytesIO(_SAMPLES[name]), formats=[_DECODED[name]]).load()
    except MemoryError:
        raise
    except Exception as error:
        raise DecoderError(f"the {name} decoder is broken: {type(error).__name__}: {error}") from error


def _first_scan(data: bytes) -> int:
    """Offset of a JPEG's first start-of-scan segment: an EXIF thumbnail before it has an end of its own."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)


def _canonical(
    image: Image.Image, data: bytes, metadata: Literal["none", "icc", "all"]
) -> tuple[Image.Image, Metadata]:
    profile = image.info.get("icc_profile")
    turned = image.format != "WEBP"  # Browsers don't look into the EXIF of a WebP.
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _transparency(image, depth=data[_PNG_DEPTH])
    if image.mode in _DEPTH_16:
        image = _from_16_bits(image)
        profile = None
    elif image.mode == "P" or (image.mode in ("1", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    kept = b""
    if profile:
        transform = _srgb_transform(profile, "RGB" if image.mode == "RGBA" else image.mode)
        if transform and metadata != "none" and image.mode in ("RGB", "RGBA"):
            kept = profile
        elif transform:
            image = _to_srgb(image, transform)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    try:
        if turned:
            ImageOps.exif_transpose(image, in_place=True)
        if metadata == "all":
            Image.Exif().load(_bytes(image.info.get("exif")))
    except MemoryError:
        raise
    except Exception:  # an unreadable EXIF block says nothing about orientation, and is worth nothing
        image.info.pop("exif", None)
    if metadata != "all":
        return image, Metadata(kept)
    return image, Metadata(kept, *(_bytes(image.info.get(key)) for key in ("exif", "xmp")))


def _transparency(image: Image.Image, depth: int) -> Any:
    """The transparent colour of a PNG on the scale of the decoded samples. Pillow leaves it on that of the
    file, where nothing equals it."""
    value = image.info["transparency"]
    if image.mode == "L" and depth in (2, 4):
        return value * 255 // ((1 << depth) - 1)
    if image.mode == "RGB" and depth == 16:
        return tuple(sample >> 8 for sample in value)
    return value


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits as gray of 8; `convert("L")` would clip instead of scale."""
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8), "L")
    gray.info = dict(image.info)
    transparency = gray.info.pop("transparency", None)
    if transparency is None:
        return gray
    alpha = Image.fromarray(np.where(values == transparency, 0, 255).astype(np.uint8), "L")
    return Image.merge("RGBA", (gray, gray, gray, alpha))


def _to_srgb(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    colour = image.convert("RGB") if image.mode == "RGBA" else image
    result = ImageCms.applyTransform(colour, transform)
    if result is None:
        return image
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    result.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return result


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From an embedded profile to sRGB; None where nothing is to be done, or where the profile is of no use
    for such a picture: browsers ignore it too."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None

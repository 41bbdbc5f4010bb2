"""Pictures as they come in: what their first bytes prove, what their header says, and the pixels as a browser
shows them. Hostile input: nothing is decoded before its size was asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from webp_converter.picture import animation, colour, jpeg, modern, png
from webp_converter.picture.animation import Animation, UnsupportedError

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

_PNG_HEADER = slice(16, 29)
"""Where a PNG has the content of its first chunk."""

_PNG_GRAY_ALPHA = 4

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


class Metadata(NamedTuple):
    """What goes into a variant besides its pixels."""

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    def options(self) -> dict[str, bytes]:
        """As Pillow's encoders take them. Always given: the one for AVIF would else embed the profile of the
        original, which is no longer that of the pixels."""
        return {"icc_profile": self.icc, "exif": self.exif, "xmp": self.xmp}


class Opened(NamedTuple):
    """A picture whose header was read."""

    header: Header
    data: bytes
    source: Image.Image | Animation
    """Not decoded yet."""

    said: Metadata = Metadata()
    """Of an animation: what holds for all of its frames."""

    png: png.Png | None = None
    jpeg: jpeg.Jpeg | None = None


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
    said = Metadata()
    read_png, read_jpeg = None, None
    file = data
    with _guarded(name):
        if name == "png":
            read_png, said = _read_png(data)
            if read_png.is_animated:
                moving = animation.parse_apng(read_png, maximum_frames)
                return _animation(data, name, moving)._replace(said=said)
            file = read_png.still()
        elif name == "jpeg":
            read_jpeg = jpeg.read(data)
            file, said = read_jpeg.file, Metadata(read_jpeg.icc, read_jpeg.exif, read_jpeg.xmp)
        elif name == "bmp" and _has_own_colours(data):
            raise UnsupportedError("bmp in colours of its own")
        image = Image.open(BytesIO(file), formats=[_DECODED[name]])
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
    header = Header(name, image.width, image.height, 1, pixels)
    return Opened(header, data, image, said, read_png, read_jpeg)


def _read_png(data: bytes) -> tuple[png.Png, Metadata]:
    try:
        found = png.read(data)
        exif = found.said.get(b"eXIf", b"")
        return found, Metadata(found.profile(), exif, found.xmp())
    except png.UnknownError as error:
        raise UnsupportedError(str(error)) from error
    except colour.UnconvertedError as error:
        raise UnsupportedError(f"png in the colours of {error}") from error


def _has_own_colours(data: bytes) -> bool:
    """Whether the header of a BMP, of version 4 or 5, says that the colours aren't those of a screen."""
    header = struct.unpack_from("<I", data, 14)[0] if len(data) > 74 else 0
    return header >= 108 and data[70:74][::-1] not in (b"sRGB", b"Win ")


def _animation(data: bytes, name: str, found: Animation) -> Opened:
    return Opened(Header(name, found.width, found.height, len(found.frames), found.pixels), data, found)


def decoded(picture: Opened, metadata: Literal["none", "icc", "all"]) -> tuple[list[Image.Image], Metadata]:
    """The picture as a browser shows it: 8 bits, RGB or RGBA, sRGB, upright; of an animation, one frame after
    the other. `metadata` says what else is kept of it: with a colour profile, colours stay what they are.

    Raises DamagedError when it can't be decoded whole, UnsupportedError, DecoderError, MemoryError.
    """
    if isinstance(picture.source, Animation):
        return _frames(picture, picture.source, metadata)
    image, header = picture.source, picture.header
    with _guarded(header.format, header.pixels):
        if picture.png:
            image = _rows_of(picture.png, image)
        elif picture.jpeg:
            image = _scans_of(picture.jpeg, image)
        else:
            image.load()
    if picture.png or picture.jpeg:
        image.info |= {"icc_profile": picture.said.icc, "exif": picture.said.exif, "xmp": picture.said.xmp}
    canonical, kept = _canonical(image, picture.png.header if picture.png else b"", metadata)
    turn = _TURNS.get(orientation(picture.said.exif))
    return [canonical.transpose(turn) if turn is not None else canonical], kept


def _rows_of(found: png.Png, image: Image.Image) -> Image.Image:
    """The decoded picture; when only its last checksums are wrong, too."""
    if not all(found.checked[:-1]):  # where browsers stop
        raise DamagedError("png: a wrong checksum among the pixels")
    try:
        if not all(found.checked):
            raise DamagedError("png: a wrong checksum of the pixels")
        image.load()
    except MemoryError:
        raise
    except Exception:
        try:
            file = png.mended(found)
        except png.UnknownError as error:
            raise UnsupportedError(str(error)) from error
        if not file:
            raise
        image = Image.open(BytesIO(file), formats=["PNG"])
        image.load()
    return image


def _scans_of(found: jpeg.Jpeg, image: Image.Image) -> Image.Image:
    """The decoded picture; when only its end is missing, too.

    Where something is missing in front of the end, what follows is taken for it: then the picture depends on
    what that is.
    """
    if b"\xff\xd9" in found.file[found.scan :]:
        image.load()
        return image
    body = jpeg.without_end(found.file, found.scan)
    if not body:
        raise DamagedError("jpeg: cut off")
    whole, *others = [
        Image.open(BytesIO(body + end), formats=["JPEG"])
        for end in (b"\xff\xd9", b"\x5a\xc3\x96" * 40 + b"\xff\xd9", b"\0" * 120 + b"\xff\xd9")
    ]
    if any(other.tobytes() != whole.tobytes() for other in others):
        raise DamagedError("jpeg: cut off")
    return whole


def _frames(
    picture: Opened, source: Animation, metadata: Literal["none", "icc", "all"]
) -> tuple[list[Image.Image], Metadata]:
    header, said = picture.header, picture.said
    kept = Metadata()
    said_by_png = header.format == "png"

    def parts() -> Iterator[Image.Image]:
        nonlocal kept
        if header.format == "webp":
            with _guarded(header.format, header.pixels):
                for canvas in modern.frames_of_webp(picture.data, len(source.frames)):
                    part, kept = _canonical(canvas, b"", metadata)
                    yield part
            return
        for frame in source.frames:
            with _guarded(header.format, frame.width * frame.height):
                image: Image.Image = Image.open(BytesIO(frame.file), formats=[_DECODED[header.format]])
                if said_by_png:
                    image = _rows_of(png.of_frame(frame.file), image)
                    image.info |= {"icc_profile": said.icc, "exif": said.exif, "xmp": said.xmp}
                image.load()
            part, kept = _canonical(image, frame.file[_PNG_HEADER] if said_by_png else b"", metadata)
            yield part

    shown = list(animation.composed(source, parts()))
    if all(image.getchannel("A").getextrema() == (255, 255) for image in shown):
        shown = [image.convert("RGB") for image in shown]
    turn = _TURNS.get(orientation(said.exif))
    return [image.transpose(turn) for image in shown] if turn is not None else shown, kept


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _SHORT = 0x0112, 3


def orientation(exif: bytes) -> int:
    """How a picture is to be turned, 1 to 8, by what begins with a TIFF header. Read as browsers do: only in
    the first directory, only a single short number; whatever is wrong with it, 1."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if not order or len(exif) < 8:
        return 1
    start = struct.unpack_from(order + "I", exif, 4)[0]
    if start + 2 > len(exif):
        return 1
    for number in range(struct.unpack_from(order + "H", exif, start)[0]):
        entry = start + 2 + 12 * number
        if entry + 12 > len(exif):
            return 1
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, entry)
        if (tag, kind, count) == (_ORIENTATION, _SHORT, 1) and 1 <= value <= 8:
            return int(value)
    return 1


@contextmanager
def _guarded(name: str, pixels: int = 0) -> Iterator[None]:
    """Tells damaged pictures from other causes of a decoder's failure. A decoder given hostile bytes raises
    anything, and one without memory may speak of broken data. A TIFF may be of kinds that the decoder doesn't
    know, and so may the header of a BMP: what isn't understood may well be whole. One that lacks a module, or
    was refused something by the system, says nothing of the picture: Pillow's own errors bear no number."""
    try:
        yield
    except (MemoryError, UnsupportedError, DamagedError):
        raise
    except Exception as error:
        np.empty(_DECODER_BYTES * pixels, np.uint8)
        _require_decoder(name)
        if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno):
            raise DecoderError(f"the {name} decoder lacks something: {error}") from error
        if name in ("tiff", "webp", "avif") or (name == "bmp" and not pixels):
            raise UnsupportedError(f"{name}: {error}") from error
        raise DamagedError(f"{name}: {error}") from error


def _sample(form: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), "gray").save(file, form)
    return file.getvalue()


# Made when this module is imported, which loads Pillow's plugins before any picture is looked at.
SAMPLES = {name: _sample(form) for name, form in _DECODED.items()}


def _require_decoder(name: str) -> None:
    """Proves that a decoder still decodes, before a picture that it refuses is called damaged.

    A damaged picture is removed. A plugin that can't be loaded or a library that was replaced under a running
    process refuses every picture, and must not cost one of them.

    Raises DecoderError.
    """
    try:
        Image.open(BytesIO(SAMPLES[name]), formats=[_DECODED[name]]).load()
    except MemoryError:
        raise
    except Exception as error:
        raise DecoderError(f"the {name} decoder is broken: {type(error).__name__}: {error}") from error


def _canonical(
    image: Image.Image, header: bytes, metadata: Literal["none", "icc", "all"]
) -> tuple[Image.Image, Metadata]:
    """`header`: of a PNG."""
    depth, kind = header[8:10] if header else (8, -1)
    is_avif = image.format == "AVIF"
    profile = _bytes(image.info.get("icc_profile"))
    exif, xmp = (_bytes(image.info.get(key)) for key in ("exif", "xmp"))
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _transparency(image, depth)
    if kind == _PNG_GRAY_ALPHA and image.mode == "RGBA":  # of 16 bits
        image = image.convert("LA")
    is_gray = image.mode in ("1", "L", "LA", "La") or image.mode in _DEPTH_16
    space = "L" if is_gray else "CMYK" if image.mode == "CMYK" else "RGB"
    try:
        conversion = colour.conversion(profile, space) if profile else None
    except colour.UnconvertedError as error:
        raise UnsupportedError(str(error)) from error
    if conversion and conversion.is_steep and depth == 16 and image.mode not in _DEPTH_16:
        raise UnsupportedError("png of 16 bits, in colours that need them")
    kept = b""
    if is_gray and (conversion or image.mode in _DEPTH_16):
        image = _from_gray(image, conversion)
        conversion = None
    elif image.mode == "P" or (image.mode in ("1", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    if conversion and metadata != "none" and image.mode in ("RGB", "RGBA"):
        kept = profile
    elif conversion:
        image = _to_srgb(image, conversion.transform)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    if is_avif:  # whose decoder hands on by EXIF how it is turned
        turn = _TURNS.get(orientation(exif.removeprefix(b"Exif\0\0")))
        image = image.transpose(turn) if turn is not None else image
    if metadata != "all":
        return image, Metadata(kept)
    return image, Metadata(kept, _upright(exif), xmp)


def _upright(exif: bytes) -> bytes:
    """EXIF without the orientation; what can't be read is worth nothing."""
    try:
        found = Image.Exif()
        found.load(exif)
        found.pop(_ORIENTATION, None)
        return found.tobytes() if exif else b""
    except MemoryError:
        raise
    except Exception:
        return b""


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


def _from_gray(image: Image.Image, conversion: colour.Conversion | None) -> Image.Image:
    """Gray as sRGB: its profile is applied before its 16 bits are made 8; `convert("L")` would clip them."""
    alpha: Image.Image | None = None
    transparency = image.info.get("transparency")
    if image.mode in ("LA", "La"):
        alpha = image.convert("LA").getchannel("A")
        image = image.convert("LA").getchannel("L")
    elif image.mode == "1":
        image = image.convert("L")
    values = np.asarray(image)
    if transparency is not None:
        alpha = Image.fromarray(np.where(values == transparency, 0, 255).astype(np.uint8), "L")
    if conversion:
        levels = np.arange(256) if values.dtype == np.uint8 else np.arange(256) * 257
        shades = [np.interp(values, levels, conversion.ramp[:, band]) for band in range(3)]
    else:
        shades = [values / (1 if values.dtype == np.uint8 else 257)]
    bands = [Image.fromarray(np.rint(shade).astype(np.uint8), "L") for shade in shades]
    return Image.merge("RGBA" if alpha else "RGB", (*(bands * 3)[:3], *((alpha,) if alpha else ())))


def _to_srgb(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    colour = image.convert("RGB") if image.mode == "RGBA" else image
    result = ImageCms.applyTransform(colour, transform)
    if result is None:
        return image
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result

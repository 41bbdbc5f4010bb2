"""Pictures: inspect, choose the encoding, encode, judge. Bytes in, a decision out; no I/O."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from webp_converter import predictor
from webp_converter.config import Encoding
from webp_converter.similarity import Luma, Reference

# Our own limit is checked before anything is decoded, and refuses instead of warning.
Image.MAX_IMAGE_PIXELS = None

WEBP_MAXIMUM_SIDE = 16383
"""Pixels; the format stores width and height in 14 bits."""

SIMILARITY_MARGIN = 0.001
"""Added to the target, since the similarity is sampled."""

_DECODER_PIXEL_BYTES = 8
"""What a decoder keeps beside the picture, at most: the coefficients of a progressive JPEG, two bytes of each
of four components."""

_LOSSLESS_PROSPECT = 2.0
"""A quick lossless trial larger than this many times the lossy variant is not worth a thorough one."""


class Reason(StrEnum):
    """Why an original is best as it is. At most 12 bytes: it has its place in the mark."""

    NO_SAVING = "no-saving"
    """No variant saves enough."""

    SIMILARITY = "similarity"
    """No variant is similar enough."""

    NO_PICTURE = "no-picture"
    """The signature is no picture's."""

    FORMAT = "format"
    """A picture, but of a format that is left alone."""

    ANIMATED = "animated"
    """More than one frame."""

    TOO_LARGE = "too-large"
    """Beyond the limits on bytes, pixels or sides."""

    DAMAGED = "damaged"
    """Can't be decoded whole, and isn't Bitrix's to make again."""

    FAILED = "failed"
    """Workers failed on it; the dead letter tells how."""


class DamagedError(Exception):
    """A picture by its signature that can't be decoded whole; or no bytes at all."""


class DecoderError(Exception):
    """A decoder that refuses even a picture known to be good: nothing is said about the one at hand."""


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before it is decoded."""

    format: str
    """`jpeg`, `png`."""

    width: int
    """Pixels, as stored: orientation is not applied."""

    height: int
    """Pixels, as stored: orientation is not applied."""

    animated: bool


class Variant(NamedTuple):
    """An encoded variant that is better than its original."""

    data: bytes
    quality: int
    """WebP quality, 1 to 100; 0: lossless."""

    similarity: float
    """To the original; 1.0 when lossless, NaN when the policy doesn't ask."""

    encodes: int
    """How many encodings it took."""


@dataclass(frozen=True)
class Keep:
    """The verdict that the original is best."""

    reason: Reason
    detail: str = ""


_SIGNATURES = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("webp", 8, b"WEBP"),
    ("avif", 4, b"ftypavif"),
    ("avif", 4, b"ftypavis"),
    ("bmp", 0, b"BM"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
)

_DECODED = {"jpeg": "JPEG", "png": "PNG"}


def signature(data: bytes) -> str | None:
    """The format that the first bytes prove, or None."""
    for name, offset, magic in _SIGNATURES:
        if data.startswith(magic, offset):
            return name
    return None


def inspect(data: bytes) -> Header | Keep:
    """Reads the header of a JPEG or PNG; the verdict for anything else.

    Raises DamagedError when there are no bytes, or when the signature is fine and the header isn't.
    """
    opened = _open(data)
    return opened if isinstance(opened, Keep) else opened[0]


def _open(data: bytes) -> tuple[Header, Image.Image] | Keep:
    if not data:
        raise DamagedError("no bytes")
    name = signature(data)
    if name is None:
        return Keep(Reason.NO_PICTURE)
    if name not in _DECODED:
        return Keep(Reason.FORMAT, name)
    try:
        image = Image.open(BytesIO(data), formats=[_DECODED[name]])
        animated = name == "png" and bool(getattr(image, "is_animated", False))
    except MemoryError:
        raise
    except Exception as error:  # a decoder given hostile bytes raises anything
        _require_decoder(name)
        raise DamagedError(f"{name} header: {error}") from error
    return Header(name, image.width, image.height, animated), image


def convert(data: bytes, encoding: Encoding) -> Variant | Keep:
    """Chooses the best WebP variant of a JPEG or PNG, or the verdict that the original is best.

    Raises DamagedError when the picture can't be decoded whole, MemoryError when it doesn't fit.
    """
    opened = _open(data)
    if isinstance(opened, Keep):
        return opened
    header, image = opened
    if header.animated:
        return Keep(Reason.ANIMATED)
    if header.width * header.height > encoding.maximum_pixels:
        return Keep(Reason.TOO_LARGE, f"{header.width}x{header.height}")
    if max(header.width, header.height) > WEBP_MAXIMUM_SIDE:
        return Keep(Reason.TOO_LARGE, f"{header.width}x{header.height}")

    picture = _canonical(_decoded(data, header, image))
    limit = math.floor(len(data) * (1 - encoding.minimum_saving))
    best = _lossy(picture, len(data), limit, header.format == "jpeg", encoding)
    if header.format == "png" and encoding.lossless:
        lossy_bytes = len(best.data) if isinstance(best, Variant) else limit
        best = _lossless(picture, lossy_bytes, best)
    if isinstance(best, Variant) and len(best.data) > limit:
        return Keep(Reason.NO_SAVING)
    return best


def _decoded(data: bytes, header: Header, image: Image.Image) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # a decoder given hostile bytes raises anything
        _require_decoder(header.format)
        _require_memory(header)
        raise DamagedError(f"{header.format}: {error}") from error
    # Decoders are content when the last rows are there. A file may still lack its end, or have a hole for it.
    if header.format == "jpeg" and b"\xff\xd9" not in data[_first_scan(data) :]:
        raise DamagedError("jpeg: no end of image")
    if header.format == "png" and data.rfind(b"IEND\xae\x42\x60\x82") < data.find(b"IDAT"):
        raise DamagedError("png: no IEND chunk")
    return image


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
    except Exception as error:
        raise DecoderError(f"the {name} decoder is broken: {type(error).__name__}: {error}") from error


def _require_memory(header: Header) -> None:
    """Proves that a decoder could have had what it needs, before a picture that it refuses is called damaged:
    to libjpeg, out of memory is but another reason to give up.

    Raises MemoryError.
    """
    try:
        mmap.mmap(-1, max(1, _DECODER_PIXEL_BYTES * header.width * header.height)).close()
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{header.width}x{header.height} pixels") from error


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


def _canonical(image: Image.Image) -> Image.Image:
    """The picture as a browser shows it: 8 bits, RGB or RGBA, sRGB, upright."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16-bit gray; convert("L") would clip instead of scale
        values = np.asarray(image, dtype=np.int64) >> 8
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8), "L")
        profile = None
    elif image.mode == "P" or (image.mode in ("1", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    if profile:
        image = _to_srgb(image, profile)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # an unreadable EXIF block says nothing about orientation
        return image


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Applies an embedded colour profile; one that can't be applied is ignored, as browsers do."""
    colour = image.convert("RGB") if image.mode == "RGBA" else image
    transform = _srgb_transform(profile, colour.mode)
    if transform is None:
        return image
    result = ImageCms.applyTransform(colour, transform)
    if result is None:
        return image
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    result.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return result


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Calls libwebp's lack of memory by its name: VP8_ENC_ERROR_OUT_OF_MEMORY and
    VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY."""
    try:
        yield
    except ValueError as error:
        if str(error) in ("encoding error 1", "encoding error 2"):
            raise MemoryError(f"libwebp: {error}") from error
        raise


def _encode(image: Image.Image, encoding: Encoding, quality: int) -> bytes:
    output = BytesIO()
    with _memory_errors():
        image.save(output, "WEBP", quality=quality, method=encoding.method)
    return output.getvalue()


def _encode_lossless(image: Image.Image, effort: int, method: int) -> bytes:
    output = BytesIO()
    with _memory_errors():
        image.save(output, "WEBP", lossless=True, quality=effort, method=method)
    return output.getvalue()


def _lumas(image: Image.Image) -> list[Luma]:
    """The luma as seen; a picture with transparency is seen on white and on black."""
    if image.mode != "RGBA":
        return [np.asarray(image.convert("L"))]
    lumas = []
    for background in ("white", "black"):
        ground = Image.new("RGBA", image.size, background)
        lumas.append(np.asarray(Image.alpha_composite(ground, image).convert("L")))
    return lumas


def _lossy(
    picture: Image.Image, original_bytes: int, limit: int, is_jpeg: bool, encoding: Encoding
) -> Variant | Keep:
    if encoding.policy != "ssim":
        quality = encoding.quality
        if encoding.policy == "size-rules":
            below = sum(original_bytes >= limit for limit in encoding.size_limits)
            quality = encoding.size_qualities[below]
        return Variant(_encode(picture, encoding, quality), quality, math.nan, 1)

    references = [Reference(luma) for luma in _lumas(picture)]
    tried: dict[int, Variant] = {}

    def measure(rung: int) -> tuple[float, bool]:
        quality = encoding.ladder[rung]
        data = _encode(picture, encoding, quality)
        variant: Image.Image = Image.open(BytesIO(data), formats=["WEBP"])
        if variant.mode != picture.mode:  # an opaque RGBA picture comes back as RGB
            variant = variant.convert(picture.mode)
        similarity = min(
            reference.similarity(luma) for reference, luma in zip(references, _lumas(variant), strict=True)
        )
        tried[rung] = Variant(data, quality, similarity, len(tried) + 1)
        return predictor.score(similarity), len(data) <= limit

    prediction = predictor.fitted()
    target = predictor.score(encoding.ssim_target + SIMILARITY_MARGIN)
    gains = [prediction.gain(quality) for quality in encoding.ladder]
    start = 0
    if is_jpeg:  # the prediction is fitted to sizes of JPEG
        size = picture.width * picture.height
        expected = prediction.score(predictor.features(references[0].variances(), original_bytes, size))
        start = next((rung for rung, gain in enumerate(gains) if expected + gain >= target), len(gains) - 1)
    chosen = lowest_rung(gains, start, target, prediction.gain_deviation, measure)
    if chosen is not None:
        return tried[chosen]._replace(encodes=len(tried))
    highest = tried[max(tried)]
    reason = Reason.NO_SAVING if len(highest.data) > limit else Reason.SIMILARITY
    return Keep(reason, f"ssim {highest.similarity:.4f}")


def lowest_rung(
    gains: Sequence[float],
    start: int,
    target: float,
    slack: float,
    measure: Callable[[int], tuple[float, bool]],
) -> int | None:
    """The lowest rung whose score reaches the target, searched from `start`; None when none does.

    `gains` tells by how much the expected score of each rung exceeds a common base. `measure` tells a rung's
    score, and whether a higher one is worth a trial. A lower rung is tried only when its expected score comes
    within `slack` of the target, so what is returned may be too high by a rung, never too low.
    """
    low, high = 0, len(gains) - 1
    found: int | None = None
    rung = start
    while True:
        score, worth_more = measure(rung)
        if score >= target:
            found, high = rung, rung - 1
        elif found is None and not worth_more:
            return None
        else:
            low = rung + 1
        lacking = target - score + gains[rung] - (slack if found is not None else 0)
        hopeful = (other for other in range(low, high + 1) if gains[other] >= lacking)
        following = next(hopeful, None)
        if following is None:
            if found is not None or low > high:
                return found
            following = high
        rung = following


def _lossless(picture: Image.Image, lossy_bytes: int, best: Variant | Keep) -> Variant | Keep:
    """The lossless variant if it is smaller than the lossy one (or than the limit when there is none)."""
    data = _encode_lossless(picture, effort=0, method=0)
    encodes = best.encodes if isinstance(best, Variant) else 0
    if len(data) > _LOSSLESS_PROSPECT * lossy_bytes:
        return best
    data = min(data, _encode_lossless(picture, effort=75, method=4), key=len)
    return Variant(data, 0, 1.0, encodes + 2) if len(data) <= lossy_bytes else best

"""Pictures: choose the encoding, encode, judge. Bytes in, a decision out; no I/O."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from io import BytesIO
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from PIL import AvifImagePlugin, Image

from webp_converter.config import Encoding
from webp_converter.picture import animation, inputs, predictor
from webp_converter.picture.animation import Animation, UnsupportedError
from webp_converter.picture.inputs import DamagedError, DecoderError, Header, Metadata, Opened
from webp_converter.picture.similarity import Luma, Reference

__all__ = [
    "DamagedError",
    "DecoderError",
    "Header",
    "Keep",
    "Opened",
    "Reason",
    "Variant",
    "convert",
    "lowest_rung",
    "opened",
]

# There is a worker for each core already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

WEBP_MAXIMUM_SIDE = 16383
"""Pixels; the format stores width and height in 14 bits."""

SIMILARITY_MARGIN = 0.001
"""Added to the target, since the similarity is sampled."""

_ZEROS = 512
"""Bytes that no picture begins with."""

_LOSSLESS_PROSPECT = 2.0
"""A quick lossless trial larger than this many times the lossy variant is not worth a thorough one."""

_JUDGED_FRAMES = 8
"""Of an animation, spread over it: the least similar of them counts."""

# How AVIF's score grows with the quality, from quality 60 on; how much that varies from rung to rung; how the
# score there follows from that of WebP at quality 75. Least squares over 48 photographs of 120 and 300
# pixels, JPEG quality 90, libaom at speed 8. A wrong guess costs time, never quality.
_AVIF_QUALITIES = (45, 50, 55, 60, 65, 70, 75, 80, 85)
_AVIF_GAINS = (-0.81, -0.58, -0.34, 0.0, 0.29, 0.93, 1.23, 1.56, 1.88)
_AVIF_DEVIATION = 0.08
_AVIF_FROM_WEBP = (2.134, 0.341)


class Reason(StrEnum):
    """Why an original is best as it is. At most 12 bytes: it has its place in the mark."""

    NO_SAVING = "no-saving"
    """No variant saves enough."""

    SIMILARITY = "similarity"
    """No variant is similar enough."""

    NO_PICTURE = "no-picture"
    """The signature is no picture's."""

    FORMAT = "format"
    """A picture, but of a format or kind that is left alone."""

    TOO_LARGE = "too-large"
    """Beyond the limits on bytes, pixels, frames or sides."""

    DAMAGED = "damaged"
    """Can't be decoded whole, and isn't Bitrix's to make again."""


class Variant(NamedTuple):
    """An encoded variant that is better than its original."""

    data: bytes
    quality: int
    """1 to 100 on the format's own scale; 0: lossless."""

    similarity: float
    """To the original; 1.0 when lossless, NaN when the policy doesn't ask."""

    encodes: int
    """How many encodings it took."""

    avif: Variant | None = None
    """What is to lie beside it: an AVIF variant that is smaller."""


@dataclass(frozen=True)
class Keep:
    """The verdict that the original is best, or that nothing but AVIF is better."""

    reason: Reason
    detail: str = ""
    avif: Variant | None = None
    """What is to lie beside the verdict."""


def opened(data: bytes, encoding: Encoding) -> Opened | Keep:
    """Reads the header of a picture that can be converted; the verdict for anything else.

    Raises DecoderError, and DamagedError when there are no bytes, or when the signature is fine and the
    header isn't.
    """
    if not data:
        raise DamagedError("no bytes")
    name = inputs.signature(data)
    if name is None and not data[:_ZEROS].strip(b"\0"):
        raise DamagedError("nothing but zeros")  # what a crash leaves of a file
    if name is None:
        return Keep(Reason.NO_PICTURE)
    if not inputs.is_decoded(name):
        return Keep(Reason.FORMAT, name)
    try:
        return inputs.opened(data, name, encoding.maximum_frames)
    except UnsupportedError as error:
        return Keep(Reason.FORMAT, str(error))


def convert(picture: bytes | Opened, encoding: Encoding) -> Variant | Keep:
    """Chooses the best variants of a picture, or the verdict that the original is best.

    Raises DamagedError when it can't be decoded whole, DecoderError, MemoryError when it doesn't fit.
    """
    if isinstance(picture, bytes):
        found = opened(picture, encoding)
        if isinstance(found, Keep):
            return found
        picture = found
    header = picture.header
    if excess := _excess(header, encoding):
        return Keep(Reason.TOO_LARGE, excess)
    try:
        frames, metadata = inputs.decoded(picture, encoding.metadata)
    except UnsupportedError as error:
        return Keep(Reason.FORMAT, str(error))
    size = len(picture.data)
    limit = math.floor(size * (1 - encoding.minimum_saving))
    subject: _Still | _Moving
    if isinstance(picture.source, Animation) and len(frames) > 1:
        subject = _Moving(frames, metadata, picture.source)
    else:
        subject = _Still(frames[0], metadata)
    best = _lossy(subject, size, limit, header.format == "jpeg", encoding)
    if header.format != "jpeg" and encoding.lossless:
        lossy_bytes = len(best.data) if isinstance(best, Variant) else limit
        best = _lossless(subject, lossy_bytes, best)
    if isinstance(best, Variant) and len(best.data) > limit:
        best = Keep(Reason.NO_SAVING)
    if encoding.avif and isinstance(subject, _Still) and header.pixels <= encoding.avif_maximum_pixels:
        best = _with_avif(subject, best, limit, encoding)
    if header.format == "avif" and isinstance(best, Keep):
        return _for_those_without(subject, picture.data, best, encoding)
    return best


def _excess(header: Header, encoding: Encoding) -> str:
    """What of a picture is beyond the limits; empty: nothing."""
    if header.frames > encoding.maximum_frames:
        return f"more than {encoding.maximum_frames} frames"
    if header.pixels > encoding.maximum_pixels or max(header.width, header.height) > WEBP_MAXIMUM_SIDE:
        return f"{header.width}x{header.height}" + (f", {header.frames} frames" if header.frames > 1 else "")
    return ""


class _Still:
    """A picture, to be encoded in several ways that are judged by its likeness to them."""

    thorough = (75, 4)
    """Effort and method of a lossless encoding that is meant."""

    def __init__(self, image: Image.Image, metadata: Metadata) -> None:
        self.image = image
        self._metadata = metadata.options()

    @cached_property
    def references(self) -> list[Reference]:
        return [Reference(luma) for luma in _lumas(self.image)]

    def lossy(self, quality: int, encoding: Encoding) -> bytes:
        return self._saved("WEBP", quality=quality, method=encoding.method)

    def lossless(self, effort: int, method: int) -> bytes:
        return self._saved("WEBP", lossless=True, quality=effort, method=method)

    def avif(self, quality: int, encoding: Encoding) -> bytes:
        return self._saved("AVIF", quality=quality, speed=encoding.avif_speed)

    def _saved(self, form: str, **options: object) -> bytes:
        output = BytesIO()
        with _memory_errors():
            self.image.save(output, form, **self._metadata, **options)
        return output.getvalue()

    def similarity(self, data: bytes) -> float:
        variant = Image.open(BytesIO(data), formats=["WEBP", "AVIF"])
        return _similarity(self.references, self.image.mode, variant)


class _Moving:
    """An animation, the same way."""

    thorough = (30, 2)

    def __init__(self, frames: list[Image.Image], metadata: Metadata, source: Animation) -> None:
        self._frames = frames
        self._options = metadata.options() | animation.save_options(source)
        count = min(_JUDGED_FRAMES, len(frames))
        self._judged = [index * (len(frames) - 1) // max(1, count - 1) for index in range(count)]
        starts_ms = [0.0, *accumulate(source.durations_ms)]
        self._times_ms = [round(starts_ms[index]) for index in self._judged]

    @cached_property
    def references(self) -> list[list[Reference]]:
        return [[Reference(luma) for luma in _lumas(self._frames[index])] for index in self._judged]

    def lossy(self, quality: int, encoding: Encoding) -> bytes:
        # Mixed: each frame may be without loss where that is smaller.
        return self._saved(quality=quality, method=encoding.method, allow_mixed=encoding.lossless)

    def lossless(self, effort: int, method: int) -> bytes:
        return self._saved(lossless=True, quality=effort, method=method)

    def _saved(self, **options: object) -> bytes:
        output = BytesIO()
        first, *others = self._frames
        with _memory_errors():
            first.save(output, "WEBP", append_images=others, **self._options, **options)
        return animation.with_alpha(output.getvalue()) if first.mode == "RGBA" else output.getvalue()

    def similarity(self, data: bytes) -> float:
        shown = animation.shown_at(data, self._times_ms)
        mode = self._frames[0].mode
        return min(
            _similarity(references, mode, frame)
            for references, frame in zip(self.references, shown, strict=True)
        )


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


def _similarity(references: list[Reference], mode: str, variant: Image.Image) -> float:
    if variant.mode != mode:  # an opaque RGBA picture comes back as RGB
        variant = variant.convert(mode)
    lumas = _lumas(variant)
    return min(reference.similarity(luma) for reference, luma in zip(references, lumas, strict=True))


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
    subject: _Still | _Moving, original_bytes: int, limit: int, is_jpeg: bool, encoding: Encoding
) -> Variant | Keep:
    if encoding.policy != "ssim":
        quality = encoding.quality
        if encoding.policy == "size-rules":
            below = sum(original_bytes >= limit for limit in encoding.size_limits)
            quality = encoding.size_qualities[below]
        return Variant(subject.lossy(quality, encoding), quality, math.nan, 1)
    prediction = predictor.fitted()
    expected = None
    if is_jpeg and isinstance(subject, _Still):  # the prediction is fitted to sizes of JPEG
        size = subject.image.width * subject.image.height
        variances = subject.references[0].variances()
        expected = prediction.score(predictor.features(variances, original_bytes, size))
    gains = [prediction.gain(quality) for quality in encoding.ladder]
    rungs = _Rungs(encoding.ladder, gains, prediction.gain_deviation, expected)
    return _lowest(rungs, limit, encoding, subject.lossy, subject.similarity)


class _Rungs(NamedTuple):
    """A ladder of qualities, and what is expected of it."""

    qualities: Sequence[int]
    gains: Sequence[float]
    """By how much the expected score of each exceeds that of a common base."""

    deviation: float
    """How much that varies from one to the next."""

    base: float | None = None
    """The score to expect there; None: nothing is known."""


def _lowest(
    rungs: _Rungs,
    limit: int,
    encoding: Encoding,
    encode: Callable[[int, Encoding], bytes],
    similarity: Callable[[bytes], float],
) -> Variant | Keep:
    """The variant of the lowest quality that reaches the target, of at most `limit` bytes or it is none."""
    tried: dict[int, Variant] = {}

    def measure(rung: int) -> tuple[float, bool]:
        quality = rungs.qualities[rung]
        data = encode(quality, encoding)
        tried[rung] = Variant(data, quality, similarity(data), len(tried) + 1)
        return predictor.score(tried[rung].similarity), len(data) <= limit

    target = predictor.score(encoding.ssim_target + SIMILARITY_MARGIN)
    start = 0
    if rungs.base is not None:
        reaching = (rung for rung, gain in enumerate(rungs.gains) if rungs.base + gain >= target)
        start = next(reaching, len(rungs.gains) - 1)
    chosen = lowest_rung(rungs.gains, start, target, rungs.deviation, measure)
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


def _lossless(subject: _Still | _Moving, lossy_bytes: int, best: Variant | Keep) -> Variant | Keep:
    """The lossless variant if it is smaller than the lossy one (or than the limit when there is none)."""
    data = subject.lossless(effort=0, method=0)
    encodes = best.encodes if isinstance(best, Variant) else 0
    if len(data) > _LOSSLESS_PROSPECT * lossy_bytes:
        return best
    data = min(data, subject.lossless(*subject.thorough), key=len)
    return Variant(data, 0, 1.0, encodes + 2) if len(data) <= lossy_bytes else best


def _for_those_without(subject: _Still | _Moving, data: bytes, best: Keep, encoding: Encoding) -> Variant:
    """The WebP of an AVIF original for browsers that can't show it, however large; all others get what lies
    beside it, at worst the original's own bytes."""
    found = _lossy(subject, len(data), sys.maxsize, False, encoding)
    if isinstance(found, Keep):
        quality = max(encoding.ladder)
        webp = subject.lossy(quality, encoding)
        found = Variant(webp, quality, subject.similarity(webp), len(encoding.ladder) + 1)
    return found._replace(avif=best.avif or Variant(data, 0, 1.0, 0))


def _with_avif(subject: _Still, best: Variant | Keep, limit: int, encoding: Encoding) -> Variant | Keep:
    """Adds the AVIF variant to a decision, if it is smaller than the WebP one and saves enough."""
    below = min(limit, len(best.data) - 1) if isinstance(best, Variant) else limit
    found: Variant | Keep
    if encoding.policy != "ssim":
        quality = encoding.avif_quality
        found = Variant(subject.avif(quality, encoding), quality, math.nan, 1)
    else:
        gains = np.interp(encoding.avif_ladder, _AVIF_QUALITIES, _AVIF_GAINS).tolist()
        base = None
        if isinstance(best, Variant) and best.quality:
            gain = predictor.fitted().gain(best.quality)
            offset, slope = _AVIF_FROM_WEBP
            base = offset + slope * (predictor.score(best.similarity) - gain)
        rungs = _Rungs(encoding.avif_ladder, gains, _AVIF_DEVIATION, base)
        found = _lowest(rungs, below, encoding, subject.avif, subject.similarity)
    if isinstance(found, Keep) or len(found.data) > below:
        return best
    return best._replace(avif=found) if isinstance(best, Variant) else replace(best, avif=found)

"""WebP and AVIF as sources: what of them isn't there, what has to be left alone, and the frames of a WebP.

What their decoders refuse isn't called damaged: they are younger and stricter than browsers. Only what a file
says of its own length proves that its end is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import Image

from webp_converter.picture.animation import Animation, Disposal, Frame, UnsupportedError, playable, shown_ms

_RIFF_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_AVIF_BRANDS = (b"avif", b"avis")
_SRGB_PRIMARIES = (1, 2)
"""BT.709, unspecified: https://www.itu.int/rec/T-REC-H.273, as the next."""
_SRGB_TRANSFER = (1, 2, 6, 13, 14, 15)
"""Those that Chromium takes for sRGB: BT.709, unspecified, BT.601, sRGB, BT.2020 of 10 and of 12 bits."""


def is_avif(data: bytes) -> bool:
    """Whether a file says that it is AVIF, as its own kind or as one that it is compatible with."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4]), 256)
    brands = data[8:12] + data[16:end]
    return any(brands[at : at + 4] in _AVIF_BRANDS for at in range(0, len(brands), 4))


def cut_off(data: bytes) -> str:
    """Which part of a WebP or AVIF goes beyond its end; empty: none that has to do with its pixels."""
    return _webp_cut_off(data) if data.startswith(b"RIFF") else _avif_cut_off(data)


def _webp_cut_off(data: bytes) -> str:
    if len(data) < 20:
        return f"{len(data)} bytes"
    at, there = 12, False
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in _RIFF_PIXELS:
            if at + 8 + length > len(data):
                return f"cut off in {kind.decode('ascii').strip()}"
            there = True
        at += 8 + length + length % 2
    return "" if there else "cut off before any pixels"


def _avif_cut_off(data: bytes) -> str:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16])
        if not length:  # to the end of the file
            return ""
        if kind in (b"ftyp", b"meta", b"moov", b"mdat") and at + length > len(data):
            return f"cut off in {kind.decode('ascii')}"
        at += max(8, length)
    return ""


def check_avif(data: bytes, frames: int) -> None:
    """Raises UnsupportedError for an AVIF that moves, and for one whose colours aren't those of sRGB, which
    browsers convert and the decoder doesn't."""
    if frames > 1:
        raise UnsupportedError("avif of several frames")
    at = data.find(b"colrnclx")
    if at < 0:
        return
    primaries, transfer = struct.unpack_from(">HH", data, at + 8)
    if primaries not in _SRGB_PRIMARIES or transfer not in _SRGB_TRANSFER:
        raise UnsupportedError(f"avif with colour primaries {primaries}, transfer {transfer}")


def parse_webp(image: Image.Image, data: bytes, maximum_frames: int) -> Animation:
    """The frames of an animated WebP, one more than `maximum_frames` at most; each is the whole canvas.

    Raises UnsupportedError.
    """
    width, height = image.size
    durations_ms: list[int] = []
    at = 12
    while at + 8 <= len(data) and len(durations_ms) <= maximum_frames:
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            durations_ms.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        at += 8 + length + length % 2
    frames = [
        Frame(b"", 0, 0, width, height, shown_ms(duration_ms), Disposal.LEAVE, blended=False)
        for duration_ms in durations_ms
    ]
    return playable(Animation(width, height, frames, int(image.info.get("loop", 0))))


def frames_of_webp(data: bytes, count: int) -> Iterator[Image.Image]:
    """The canvas of an animated WebP at each of its frames."""
    image = Image.open(BytesIO(data), formats=["WEBP"])
    for index in range(count):
        image.seek(index)
        image.load()
        frame = image.copy()
        frame.format = image.format
        yield frame

"""Pictures of the kinds that Pillow doesn't write, byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PALETTE = ((255, 0, 0), (0, 160, 0), (0, 0, 255), (250, 250, 250))
RED, GREEN, BLUE, WHITE = range(4)


class GifFrame(NamedTuple):
    """A frame of one colour of the palette."""

    colour: int
    box: tuple[int, int, int, int]
    """Left, top, width, height."""

    centiseconds: int = 10
    disposal: int = 1
    transparent: int | None = None
    """Index of the colour that lets through what is below."""

    hole: tuple[int, int, int, int] | None = None
    """A part of the frame that has the transparent colour."""


def gif(
    size: tuple[int, int],
    frames: Sequence[GifFrame],
    repeats: int | None = None,
    end: bytes = b";",
) -> bytes:
    """A GIF over `PALETTE`; its background colour is green, which no browser shows."""
    palette = b"".join(bytes(colour) for colour in PALETTE)
    parts = [b"GIF89a", struct.pack("<HHBBB", *size, 0x81, GREEN, 0), palette]
    if repeats is not None:
        parts.append(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", repeats) + b"\0")
    for frame in frames:
        left, top, width, height = frame.box
        pixels = np.full((height, width), frame.colour, np.uint8)
        if frame.hole:
            x, y, w, h = frame.hole
            pixels[y : y + h, x : x + w] = frame.transparent
        flags = frame.disposal << 2 | (frame.transparent is not None)
        parts.append(
            b"!\xf9\x04" + struct.pack("<BHBB", flags, frame.centiseconds, frame.transparent or 0, 0)
        )
        parts.append(b"," + struct.pack("<HHHHB", left, top, width, height, 0))
        parts.append(_lzw(pixels))
    return b"".join((*parts, end))


def _lzw(pixels: NDArray[np.uint8]) -> bytes:
    """Two bits a pixel, the table cleared before it can grow the codes."""
    codes = []
    for index, pixel in enumerate(pixels.ravel().tolist()):
        codes += [4, pixel] if index % 2 == 0 else [pixel]
    bits = 0
    for position, code in enumerate([*codes, 5]):
        bits |= code << 3 * position
    data = bits.to_bytes((3 * (len(codes) + 1) + 7) // 8, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"\x89PNG\r\n\x1a\n"


class PngFrame(NamedTuple):
    """A frame of one RGBA colour."""

    colour: tuple[int, int, int, int]
    box: tuple[int, int, int, int]
    delay: tuple[int, int] = (1, 10)
    """Numerator and denominator of the seconds."""

    disposal: int = 0
    over: bool = False


def apng(
    size: tuple[int, int],
    frames: Sequence[PngFrame],
    plays: int = 0,
    default: tuple[int, int, int, int] | None = None,
    announced: int | None = None,
) -> bytes:
    """An animated PNG; with `default`, a default image that is no frame."""
    parts = [PNG, chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0))]
    parts.append(chunk(b"acTL", struct.pack(">II", len(frames) if announced is None else announced, plays)))
    if default is not None:
        parts.append(chunk(b"IDAT", _rows(default, *size)))
    sequence = 0
    for index, frame in enumerate(frames):
        left, top, width, height = frame.box
        control = struct.pack(
            ">IIIIIHHBB", sequence, width, height, left, top, *frame.delay, frame.disposal, frame.over
        )
        parts.append(chunk(b"fcTL", control))
        sequence += 1
        rows = _rows(frame.colour, width, height)
        if index == 0 and default is None:
            parts.append(chunk(b"IDAT", rows))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", sequence) + rows))
            sequence += 1
    return b"".join((*parts, chunk(b"IEND", b"")))


def _rows(colour: tuple[int, ...], width: int, height: int) -> bytes:
    # Not compressed: else no variant of such pictures could be smaller.
    return zlib.compress((b"\0" + bytes(colour) * width) * height, 0)


def cmyk_profile() -> bytes:
    """A colour profile for CMYK, of the smallest kind there is, by which cyan ink prints red and magenta ink
    cyan: a decoder that ignores it gets the colours wrong."""
    white, black = (255, 128, 128), (0, 128, 128)
    nodes = bytearray()
    for node in range(16):  # two points for each ink, the last one's fastest: cyan, magenta, yellow, black
        cyan, magenta, yellow, key = (node >> shift & 1 for shift in (3, 2, 1, 0))
        if key or cyan + magenta + yellow > 1:
            lab = black
        elif cyan:
            lab = (136, 208, 195)  # red
        elif magenta:
            lab = (232, 80, 114)  # cyan
        elif yellow:
            lab = (248, 106, 223)
        else:
            lab = white
        nodes += bytes(lab)
    identity = bytes(range(256))
    matrix = b"".join(struct.pack(">i", value << 16) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + 4 * identity + bytes(nodes) + 3 * identity
    return _profile(b"prtrCMYKLab ", (b"A2B0", table))


def linear_gray_profile() -> bytes:
    """A colour profile for gray whose samples are proportional to the light: half of them is a light gray."""
    return _profile(b"mntrGRAYXYZ ", (b"kTRC", b"curv" + bytes(8)))


def _profile(kind: bytes, *tags: tuple[bytes, bytes]) -> bytes:
    """An ICC profile of version 2, with what each has to have (https://www.color.org/icc32.pdf)."""
    white = struct.pack(">iii", 63190, 65536, 54061)
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = (
        (b"desc", description),
        (b"wtpt", b"XYZ \0\0\0\0" + white),
        (b"cprt", b"text\0\0\0\0none\0"),
        *tags,
    )
    directory, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        directory += name + struct.pack(">II", start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    header = bytearray(128)
    struct.pack_into(">I", header, 0, start + len(content))
    header[8:12] = b"\x02\x40\0\0"
    header[12:24] = kind
    header[36:40] = b"acsp"
    header[68:80] = white
    return bytes(header) + directory + content

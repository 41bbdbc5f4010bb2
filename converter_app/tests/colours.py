"""Pictures whose colours are said to be others than sRGB, byte by byte: profiles, chunks, segments."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from converter_app.tests.samples import PNG, chunk
from numpy.typing import NDArray

# Chromaticities of white, red, green, blue: x and y of each.
D65 = (0.3127, 0.3290)
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
REC2020 = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def to_xyz(primaries: Sequence[float]) -> NDArray[np.float64]:
    """From linear RGB to XYZ under D50 (http://www.brucelindbloom.com/Eqn_RGB_XYZ_Matrix.html)."""
    white, *rest = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(*[iter(primaries)] * 2, strict=True)
    )
    columns = np.array(rest).T
    matrix = columns * np.linalg.solve(columns, white)
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    return np.asarray(np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix)


def srgb_encoded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """From linear light to samples of 0 to 1 (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def as_srgb(samples: NDArray[np.float64], gamma: float, primaries: Sequence[float]) -> NDArray[np.uint8]:
    """What samples of 0 to 1 (height, width, RGB) look like, by the formulas."""
    linear = samples**gamma @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    return np.rint(255 * srgb_encoded(linear)).astype(np.uint8)


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma: float) -> bytes:
    """As version 2 of ICC has it."""
    return b"curv\0\0\0\0" + struct.pack(">I", 1) + struct.pack(">H", round(gamma * 256))


def curve_of(values: Iterable[float]) -> bytes:
    points = [round(65535 * value) for value in values]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(points)}H", len(points), *points)


def parametric(*values: float) -> bytes:
    """As version 4 has it, of the kind that has so many parameters."""
    kind = {1: 0, 3: 1, 4: 2, 5: 3, 7: 4}[len(values)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*values)


SRGB_CURVE = parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(
    kind: bytes, tags: dict[bytes, bytes], version: int = 2, description: str = "sRGB built-in"
) -> bytes:
    """An ICC profile (https://www.color.org/icc32.pdf); `kind` is its class, its colours and its space, of
    four bytes each."""
    if version == 2:
        text = description.encode() + b"\0"
        said = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
        rights = b"text\0\0\0\0none\0"
    else:
        text = description.encode("utf-16-be")
        said = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
        rights = said
    tags = {b"desc": said, b"cprt": rights, b"wtpt": b"XYZ \0\0\0\0" + fixed(*_D50)} | tags
    directory, content = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, data in tags.items():
        directory += name + struct.pack(">II", start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    header = bytearray(128)
    struct.pack_into(">I", header, 0, start + len(content))
    header[8:10] = bytes((version, 0x40 if version == 2 else 0x20))
    header[12:24] = kind
    header[36:40] = b"acsp"
    header[68:80] = fixed(*_D50)
    return bytes(header) + directory + content


def rgb_profile(primaries: Sequence[float], trc: bytes, order: str = "rgb", **options: object) -> bytes:
    """One of primaries and a curve; `order` is which of them each channel has."""
    columns = to_xyz(primaries).T
    tags = {}
    for channel, colour in zip(b"rgb", order, strict=True):
        tags[bytes([channel]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*columns["rgb".index(colour)])
        tags[bytes([channel]) + b"TRC"] = trc
    return profile(b"mntrRGB XYZ ", tags, **options)  # type: ignore[arg-type]


def gray_profile(trc: bytes, space: bytes = b"XYZ ", **options: object) -> bytes:
    return profile(b"mntrGRAY" + space, {b"kTRC": trc}, **options)  # type: ignore[arg-type]


def table_profile(order: str = "gbr", space: bytes = b"Lab ", tag: bytes = b"A2B0") -> bytes:
    """One of a table with two points a channel, and no curves: the corners of the cube in Lab, gamma 1."""
    nodes = b""
    xyz = to_xyz(SRGB)
    for node in range(8):
        corner = np.array([node >> shift & 1 for shift in (2, 1, 0)], float)
        light = xyz @ np.array([corner[order.index(colour)] for colour in "rgb"])
        if space == b"XYZ ":
            nodes += struct.pack(">HHH", *(round(32768 * min(value, 1.99)) for value in light))
            continue
        cubes = np.cbrt(light / _D50)
        cubes = np.where(light / _D50 > 0.008856, cubes, (903.3 * light / _D50 + 16) / 116)
        lightness = 116 * cubes[1] - 16
        a, b = 500 * (cubes[0] - cubes[1]), 200 * (cubes[1] - cubes[2])
        values = (lightness * 652.8, (a + 128) * 256, (b + 128) * 256)
        nodes += struct.pack(">HHH", *(min(65535, max(0, round(value))) for value in values))
    straight = struct.pack(">HH", 0, 65535)
    table = b"mft2\0\0\0\0" + bytes((3, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += struct.pack(">HH", 2, 2) + 3 * straight + nodes + 3 * straight
    return profile(b"scnrRGB " + space, {tag: table})


def scene(width: int = 96, height: int = 72) -> NDArray[np.float64]:
    """Samples of 0 to 1 (height, width, RGB): soft colours and grays, light and dark, and no strong edges."""
    x = np.linspace(0, 1, width)[None, :, None]
    y = np.linspace(0, 1, height)[:, None, None]
    hue = np.array([0.0, 2.1, 4.2])[None, None, :]
    wave = 0.5 + 0.5 * np.cos(6.28 * x + hue)
    return np.asarray(np.clip(y * (0.25 + 0.75 * x * wave + 0.0 * y) + 0.02, 0, 1))


def iccp(icc: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"name\0\0" + zlib.compress(icc)


def gama(gamma: float) -> tuple[bytes, bytes]:
    """`gamma` is that of the samples: 1 / 2.2 is as screens have it."""
    return b"gAMA", struct.pack(">I", round(100_000 * gamma))


def chrm(primaries: Sequence[float]) -> tuple[bytes, bytes]:
    return b"cHRM", b"".join(struct.pack(">I", round(100_000 * value)) for value in primaries)


def cicp(primaries: int, transfer: int, full: int = 1, matrix: int = 0) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, transfer, matrix, full))


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png(
    samples: NDArray[np.float64] | NDArray[np.uint8],
    kind: int,
    *before: tuple[bytes, bytes],
    depth: int = 8,
    after: Sequence[tuple[bytes, bytes]] = (),
    level: int = 0,
) -> bytes:
    """A PNG (https://www.w3.org/TR/png-3/) of samples of 0 to 1, or of indices for a palette: height, width,
    channels. `before` and `after` are the chunks around its pixels. Not compressed: else no variant of such
    pictures could be smaller."""
    height, width = samples.shape[:2]
    values: NDArray[Any] = samples.reshape(height, -1)
    if kind != 3:
        values = np.rint(values * ((1 << depth) - 1)).astype(np.uint16)
    assert values.shape[1] == width * _CHANNELS[kind]
    if depth == 16:
        packed = values.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = values.astype(np.uint8)
    else:
        bits = (values[..., None].astype(np.uint8) >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)), *before]
    parts += [(b"IDAT", zlib.compress(rows, level)), *after, (b"IEND", b"")]
    return PNG + b"".join(chunk(*part) for part in parts)


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments (marker and content) in front of all others."""
    parts = (b"\xff" + each[:1] + struct.pack(">H", len(each) + 1) + each[1:] for each in segments)
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def icc_segments(icc: bytes, size: int = 60_000) -> list[bytes]:
    parts = [icc[start : start + size] for start in range(0, len(icc), size)]
    return [b"\xe2ICC_PROFILE\0" + bytes((number, len(parts))) + part for number, part in enumerate(parts, 1)]


def exif(
    *entries: tuple[int, int, int, bytes],
    order: str = "<",
    second: Sequence[tuple[int, int, int, bytes]] = (),
) -> bytes:
    """A TIFF header and its directory of tags: number, type, count, and the four bytes of the value; `second`
    is in the one that follows."""

    def directory(found: Sequence[tuple[int, int, int, bytes]], following: int) -> bytes:
        body = b"".join(struct.pack(order + "HHI", *head) + value for *head, value in found)
        return struct.pack(order + "H", len(found)) + body + struct.pack(order + "I", following)

    magic = b"II*\0" if order == "<" else b"MM\0*"
    following = 8 + 6 + 12 * len(entries) if second else 0
    made = magic + struct.pack(order + "I", 8) + directory(entries, following)
    return made + directory(second, 0) if second else made


def orientation(value: int, order: str = "<", kind: int = 3, count: int = 1) -> tuple[int, int, int, bytes]:
    """The tag of the orientation."""
    form = {1: "Bxxx", 3: "Hxx", 4: "I"}[kind]
    return 0x0112, kind, count, struct.pack(order + form, value)

"""Colours: what is said of them, and how sRGB is made of that, as browsers do it.

A profile is judged by what it does to a few colours, never by its description.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""x and y of white, red, green and blue."""

_TOLERANCE = 3
"""Samples that a profile may change, of 255, and still be sRGB."""

_STEEP = 4
"""From 0 to 1 of 255: a profile that does more has to be given more than 8 bits."""

_FEW_POINTS = 5
"""Of a table, along each side."""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

# Of ISO/IEC 23091-2, those that are converted. Chromium 156 draws BT.709's curve as a gamma of 2.4.
_CICP_PRIMARIES = {
    1: SRGB_PRIMARIES,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CICP_CURVES: dict[int, Sequence[float]] = {
    **dict.fromkeys((1, 6, 11, 14, 15), (2.4,)),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
}
# What Chromium knows besides: film, old television, and the brightness of PQ and HLG.
_CICP_OTHER_PRIMARIES = {4, 5, 6, 7, 8, 10, 11, 22}
_CICP_OTHER_CURVES = {7, 16, 17, 18}


class UnconvertedError(Exception):
    """Colours of a kind that isn't converted: which."""


class Conversion(NamedTuple):
    """How samples become sRGB."""

    transform: ImageCms.ImageCmsTransform
    ramp: NDArray[np.float64]
    """What 0 to 255 become when all channels have that sample: 256 rows of RGB. Of gray, all there is."""

    @property
    def is_steep(self) -> bool:
        """Whether 8 bits are too few for the dark colours."""
        return bool((np.abs(self.ramp[1] - self.ramp[0]) > _STEEP).any())


@lru_cache(maxsize=16)
def conversion(profile: bytes, space: str) -> Conversion | None:
    """From a profile to sRGB, for samples that are `RGB`, `L` or `CMYK`; None where nothing is to be done, or
    where the profile is of no use for such a picture: browsers ignore it too.

    Raises UnconvertedError for tables that browsers read otherwise than this library.
    """
    profile = _usable(profile, space)
    if not profile:
        return None
    if space == "RGB":
        _require_table_of_agreement(profile)
    mode = "L" if profile[16:20] == b"GRAY" else "CMYK" if space == "CMYK" else "RGB"
    # A ramp is all there is of gray, and has to be exact; the shortcuts are for the many colours of others.
    flags = ImageCms.Flags.NOOPTIMIZE if space == "L" else ImageCms.Flags.NONE
    for intent in (ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(source, srgb, mode, "RGB", intent, flags)
            break
        except (ImageCms.PyCMSError, OSError, ValueError):
            continue
    else:
        return None
    levels = np.arange(256, dtype=np.uint8)
    ramp = _applied(transform, np.tile(levels[:, None], (1, 1 if mode == "L" else len(mode))), mode)
    probe, seen = np.tile(levels[:, None], (1, 3)), ramp
    if mode == "RGB" and space == "RGB":
        steps = np.array([0, 16, 48, 96, 144, 192, 224, 255], np.uint8)
        probe = np.concatenate((probe, np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)))
        seen = _applied(transform, probe, mode)
    if mode != "CMYK" and np.abs(seen - probe).max() <= _TOLERANCE:
        return None
    return Conversion(transform, ramp)


def _applied(
    transform: ImageCms.ImageCmsTransform, samples: NDArray[np.uint8], mode: str
) -> NDArray[np.float64]:
    image = Image.frombytes(mode, (len(samples), 1), samples.tobytes())
    shown = ImageCms.applyTransform(image, transform)
    assert shown is not None
    return np.asarray(np.asarray(shown)[0], np.float64)


def _usable(profile: bytes, space: str) -> bytes:
    """A profile as far as it goes, if browsers would look at it; else nothing."""
    if len(profile) < 132 or profile[36:40] != b"acsp" or profile[8] > 4:
        return b""
    size, count = struct.unpack_from(">I", profile)[0], struct.unpack_from(">I", profile, 128)[0]
    white = np.array(struct.unpack_from(">iii", profile, 68)) / 65536
    if not 132 + 12 * count <= size <= len(profile) or np.abs(white - _D50).max() > 0.01:
        return b""
    spaces = {"RGB": (b"RGB ",), "L": (b"GRAY", b"RGB "), "CMYK": (b"CMYK",)}[space]
    connection = profile[20:24]
    if profile[16:20] not in spaces or connection not in (b"XYZ ", b"Lab "):
        return b""
    if profile[16:20] == b"GRAY" and connection != b"XYZ ":
        return b""
    # Browsers don't ask what a profile is for; this library does.
    return profile[:12] + b"mntr" + profile[16:size]


def _require_table_of_agreement(profile: bytes) -> None:
    """A table in XYZ, or of few points, is drawn otherwise by Chromium 156, by 17 levels and more."""
    for number in range(int.from_bytes(profile[128:132], "big")):
        tag, start = struct.unpack_from(">4sI", profile, 132 + 12 * number)
        table = profile[start : start + 12]
        is_coarse = table[:3] == b"mft" and len(table) == 12 and table[10] < _FEW_POINTS
        if tag in (b"A2B0", b"A2B1") and (is_coarse or profile[20:24] == b"XYZ "):
            raise UnconvertedError("a profile with a table that is read in different ways")


def of_cicp(content: bytes) -> bytes:
    """A profile of what a PNG's cICP chunk says; empty where browsers ignore it.

    Raises UnconvertedError.
    """
    primaries, transfer, matrix, full = content
    if matrix or full > 1:
        raise UnconvertedError(f"cICP, matrix {matrix}, range {full}")
    known = primaries in _CICP_PRIMARIES.keys() | _CICP_OTHER_PRIMARIES
    if not full or not known or transfer not in _CICP_CURVES.keys() | _CICP_OTHER_CURVES:
        return b""
    if primaries in _CICP_OTHER_PRIMARIES or transfer in _CICP_OTHER_CURVES:
        raise UnconvertedError(f"cICP, primaries {primaries}, transfer {transfer}")
    return _profile(_CICP_PRIMARIES[primaries], _CICP_CURVES[transfer])


def of_gamma(gamma: int, primaries: Sequence[int] | None) -> bytes:
    """A profile of what a PNG's gAMA and cHRM chunks say, in units of 0.00001; empty for what is sRGB, or
    nonsense."""
    if not gamma or (primaries is None and abs(gamma - 45455) < 50):
        return b""
    try:
        return _profile(
            SRGB_PRIMARIES if primaries is None else [value / 100_000 for value in primaries],
            (min(100_000 / gamma, 1000.0),),
        )
    except (ZeroDivisionError, np.linalg.LinAlgError, struct.error, ValueError):
        return b""


@lru_cache(maxsize=16)
def _profile_of(primaries: tuple[float, ...], curve: tuple[float, ...]) -> bytes:
    """An ICC profile (https://www.color.org/specification/ICC.1-2022-05.pdf) of primaries and of a
    parametric curve."""
    white, *rest = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(*[iter(primaries)] * 2, strict=True)
    )
    columns = np.array(rest).T
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ (columns * np.linalg.solve(columns, white))
    kind = {1: 0, 5: 3}[len(curve)]
    tone = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(curve)
    tags = {
        channel + b"XYZ": b"XYZ \0\0\0\0" + _fixed(adapted[:, i])
        for i, channel in enumerate((b"r", b"g", b"b"))
    }
    tags |= {channel + b"TRC": tone for channel in (b"r", b"g", b"b")}
    directory, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        directory += name + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(data))
        content += data
    header = bytearray(128)
    struct.pack_into(">I", header, 0, 128 + len(directory) + len(content))
    header[8:10] = b"\x04\x20"
    header[12:24] = b"mntrRGB XYZ "
    header[36:40] = b"acsp"
    header[68:80] = _fixed(_D50)
    return bytes(header) + directory + content


def _profile(primaries: Sequence[float], curve: Sequence[float]) -> bytes:
    return _profile_of(tuple(primaries), tuple(curve))


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)

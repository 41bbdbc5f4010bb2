"""JPEG, segment by segment: what browsers need of a header, and nothing that a decoder could stumble over.

What was tried in Chromium 156 decides. https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

from __future__ import annotations

from typing import NamedTuple

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ADOBE, _JFIF, _APP1, _APP2, _COMMENT = 0xEE, 0xE0, 0xE1, 0xE2, 0xFE
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_LOOKED_AHEAD = 32
"""Bytes."""

_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length."""

_EXIF, _ICC, _XMP = b"Exif\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0"


class Jpeg(NamedTuple):
    """What a file has."""

    file: bytes
    """With the segments that decoding needs."""

    scan: int
    """Offset of the first scan in it."""

    icc: bytes
    exif: bytes
    """A TIFF header and what follows it."""

    xmp: bytes


def read(data: bytes) -> Jpeg:
    """Reads the header of a JPEG. What isn't understood is left to the decoder."""
    kept = [data[:2]]
    profile: dict[int, bytes] = {}
    count = 0
    exif = xmp = b""
    position = 2
    while True:
        marker_at = data.find(b"\xff", position)
        while 0 <= marker_at < len(data) - 1 and data[marker_at + 1] == 0xFF:
            marker_at += 1
        if marker_at < 0 or marker_at + 4 > len(data):
            return Jpeg(data, len(data), b"", b"", b"")
        marker = data[marker_at + 1]
        position = marker_at + 2
        if marker == 0 or marker in _ALONE:
            continue
        if marker in (_SOS, _EOI, _SOI):
            break
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + max(2, length)
        content = data[position + 2 : end]
        if marker == _APP1 and content.startswith(_EXIF):
            exif = exif or content[len(_EXIF) + 1 :]
        elif marker == _APP1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > 14:
            count = count or content[13]
            profile.setdefault(content[12], content[14:])
        elif marker in (_ADOBE, _JFIF) or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[marker_at:end])
        position = end
    icc = (
        b"".join(profile[number] for number in range(1, count + 1))
        if set(profile) == {*range(1, count + 1)}
        else b""
    )
    head = b"".join(kept)
    return Jpeg(head + data[marker_at:], len(head), icc, exif, xmp)


def without_end(file: bytes, scan: int) -> bytes:
    """A file that lacks its end, as far as it may hold pixels; empty where it can't be whole.

    Of a picture in one scan, browsers show the last rows only when something follows them.
    """
    if not _has_all_scans(file, scan):
        return b""
    is_progressive = any(b"\xff" + bytes([marker]) in file[:scan] for marker in _PROGRESSIVE)
    body = file.rstrip(b"\0")  # a hole, or what somebody filled a sector with
    if body.endswith(b"\xff"):  # half a marker, or a sample of which the zero is the second half
        body = body + b"\0" if len(body) < len(file) else body[:-1]
    if is_progressive or len(file) - len(body) >= _LOOKED_AHEAD:
        return body
    return file[:-_LOOKED_AHEAD]


def _has_all_scans(file: bytes, scan: int) -> bool:
    """Whether each colour has a scan of its highest frequencies to the last bit: progressive
    pictures have many."""
    complete: set[int] = set()
    colours: set[int] = set()
    position = scan
    while (position := file.find(b"\xff\xda", position)) >= 0:
        count = file[position + 4] if position + 4 < len(file) else 0
        named = file[position + 5 : position + 5 + 2 * count : 2]
        ends = file[position + 5 + 2 * count : position + 8 + 2 * count]
        colours |= set(named)
        if len(ends) == 3 and ends[1] == 63 and not ends[2] & 15:
            complete |= set(named)
        position += 2
    return bool(colours) and colours == complete

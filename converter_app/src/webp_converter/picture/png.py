"""PNG, chunk by chunk: what browsers need of a file, and nothing that a decoder could stumble over.

What was tried in Chromium 156 decides: a chunk beside the pixels whose checksum is wrong isn't there, nor is
one that comes after them, and a picture is whole when all of its rows are. https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import NamedTuple

from webp_converter.picture import colour

SIGNATURE = b"\x89PNG\r\n\x1a\n"

PIXELS = {b"IDAT", b"fdAT"}
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_MOVING = {b"acTL", b"fcTL", b"fdAT"}
_BEFORE_PALETTE = {b"cICP"}
_SAYING = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"iTXt"}
_TRANSPARENT_BYTES = {0: 2, 2: 6}
"""Of the tRNS chunk, by the colour type; a palette's has any."""

_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_PROFILE_BYTES = 16 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced picture: where each begins, and its steps."""


class UnknownError(Exception):
    """A chunk without which the picture isn't understood: which."""


class Png(NamedTuple):
    """What a file has."""

    header: bytes
    """Of the IHDR chunk."""

    shared: list[bytes]
    """Whole chunks that each frame of an animation needs."""

    parts: list[tuple[bytes, bytes, bool]]
    """Chunks of pixels and of the animation: kind, content, and whether its checksum is right."""

    said: dict[bytes, bytes]
    """What is said beside the pixels, each the first of its kind."""

    has_end: bool
    """Whether the file says where it ends."""

    is_short: bool
    """Whether its last chunk goes beyond it."""

    @property
    def is_animated(self) -> bool:
        return any(kind == b"acTL" for kind, _, _ in self.parts)

    @property
    def checked(self) -> list[bool]:
        """Whether the checksum of each chunk of pixels is right."""
        return [is_right for kind, _, is_right in self.parts if kind == b"IDAT"]

    def still(self) -> bytes:
        """A file of the pixels alone."""
        content = b"".join(content for kind, content, _ in self.parts if kind == b"IDAT")
        return still(self.header, self.shared, content)

    def profile(self) -> bytes:
        """The ICC profile of the colours, or one of what is said of them otherwise; empty: sRGB.

        Raises colour.UnconvertedError.
        """
        content = self.said.get(b"cICP", b"")
        if len(content) == 4 and (found := colour.of_cicp(content)):
            return found
        if found := _unpacked(self.said.get(b"iCCP", b"")):
            return found
        primaries, gamma = self.said.get(b"cHRM", b""), self.said.get(b"gAMA", b"")
        if b"sRGB" in self.said or len(gamma) != 4:
            return b""
        return colour.of_gamma(
            int.from_bytes(gamma, "big"), struct.unpack(">8I", primaries) if len(primaries) == 32 else None
        )

    def xmp(self) -> bytes:
        text = self.said.get(b"iTXt", b"")
        return text[len(_XMP) :] if text.startswith(_XMP) else b""


def _unpacked(content: bytes) -> bytes:
    """The profile in an iCCP chunk; empty where browsers see none. It may be followed by anything."""
    name, _, packed = content.partition(b"\0")
    if not 1 <= len(name) <= 79 or packed[:1] != b"\0":
        return b""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(packed[1:], _PROFILE_BYTES)
    except zlib.error:
        return b""
    if not unpacker.eof or len(found) < 132:
        return b""
    size = int.from_bytes(found[:4], "big")
    return found[:size] if 132 <= size <= len(found) and found[36:40] == b"acsp" else b""


def read(data: bytes) -> Png:
    """Reads the chunks of a PNG.

    Raises EOFError when it ends before its pixels, ValueError when its header or palette is wrong,
    UnknownError.
    """
    view = memoryview(data)
    position = len(SIGNATURE)
    header = b""
    shared: list[bytes] = []
    parts: list[tuple[bytes, bytes, bool]] = []
    said: dict[bytes, bytes] = {}
    has_pixels = has_palette = ended = False
    while not ended and position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = bytes(view[position + 8 : position + 8 + length])
        following = position + 12 + length
        stored = data[position + 8 + length : following]
        is_right = stored == checksum(kind, content)
        position = following
        if kind[:1].isupper() and kind.isalpha() and kind not in _CRITICAL:
            raise UnknownError(f"png with a chunk {kind.decode()}")
        if not header:
            if kind != b"IHDR" or length != 13 or not is_right:
                raise ValueError("no header" if kind != b"IHDR" else "a wrong header")
            header = content
        elif kind == b"IHDR" or (kind == b"PLTE" and not is_right):
            raise ValueError(f"a wrong {kind.decode()} chunk")
        elif kind == b"IEND":
            ended = True
        elif kind in PIXELS or kind in _MOVING:
            has_pixels |= kind == b"IDAT"
            parts.append((kind, content, is_right))
        elif kind == b"PLTE":
            has_palette = True
            if header[9] == 3:
                shared.append(chunk(kind, content))
        elif has_pixels:
            parts.append((b"", b"", True))  # pixels behind it are none
        elif not is_right:
            continue
        elif kind == b"tRNS":
            wanted = _TRANSPARENT_BYTES.get(header[9], len(content) if header[9] == 3 else -1)
            if len(content) == wanted:
                shared.append(chunk(kind, content))
        elif kind == b"iTXt" and not content.startswith(_XMP):
            continue
        elif kind in _SAYING and not (kind in _BEFORE_PALETTE and has_palette):
            said.setdefault(kind, content)
    if not has_pixels:
        raise EOFError("no pixels")
    parts = _in_a_row(parts)
    return Png(header, shared, parts, said, has_end=ended, is_short=position > len(data))


def _in_a_row(parts: list[tuple[bytes, bytes, bool]]) -> list[tuple[bytes, bytes, bool]]:
    """Without pixels of the first picture that come after another chunk: browsers don't look for them."""
    kept: list[tuple[bytes, bytes, bool]] = []
    before = b"IDAT"
    has_pixels = False
    for part in parts:
        if part[0] == b"IDAT" and has_pixels and before != b"IDAT":
            continue
        has_pixels |= part[0] == b"IDAT"
        before = part[0]
        if before:
            kept.append(part)
    return kept


def still(header: bytes, shared: list[bytes], pixels: bytes) -> bytes:
    """A file of a picture that doesn't move. Its pixels bear no checksum: the decoder doesn't ask for it, and
    to add it up takes as long as a tenth of decoding."""
    parts = (struct.pack(">I", len(pixels)), b"IDAT", pixels, bytes(4), chunk(b"IEND", b""))
    return b"".join((SIGNATURE, chunk(b"IHDR", header), *shared, *parts))


def mended(found: Png) -> bytes:
    """A file of the same rows with checksums that are right, where all rows are there; else nothing. Behind a
    hole, too, there are rows; so one of two checksums has to be right, or the file to end before the second.

    Raises UnknownError when both are wrong, and nothing else.
    """
    pixels = b"".join(content for kind, content, _ in found.parts if kind == b"IDAT")
    wanted = _row_bytes(found.header)
    if int.from_bytes(pixels[:2], "big") % 31 or pixels[0] & 0x0F != zlib.DEFLATED:
        return b""
    unpacker = zlib.decompressobj(-15)
    try:
        rows = unpacker.decompress(pixels[2:], wanted)
    except zlib.error:
        return b""
    if len(rows) < wanted:
        return b""
    with contextlib.suppress(zlib.error):
        unpacker.decompress(unpacker.unconsumed_tail, 1 << 16)  # to the end of what is packed
    summed = unpacker.unused_data[:4] == struct.pack(">I", zlib.adler32(rows))
    if not summed and not found.is_short and not all(found.checked):
        if found.has_end:
            raise UnknownError("png with two wrong checksums")
        return b""
    return still(found.header, found.shared, zlib.compress(rows, 0))


def of_frame(file: bytes) -> Png:
    """What a frame has, as a file that was made here: its checksums were right where it was."""
    found = read(file)
    return found._replace(parts=[(kind, content, True) for kind, content, _ in found.parts])


def _row_bytes(header: bytes) -> int:
    """What the rows of a picture take when they are unpacked."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS.get(kind, 4)
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk as a file has it."""
    return struct.pack(">I", len(content)) + kind + content + checksum(kind, content)


def checksum(kind: bytes, content: bytes) -> bytes:
    """What ends a chunk."""
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))

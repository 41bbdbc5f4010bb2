"""Animations: the frames of a GIF or an animated PNG, found without decoding and shown as browsers do.

Each frame is cut out as a file of its own, which the decoder of still pictures decodes. What becomes of the
canvas between two frames is decided here, by the rules of browsers: to dispose of a frame is to make its
place transparent, whatever background colour a GIF names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from webp_converter.picture import png

_FOREVER = 0
_SHORTEST_MS = 10
_SHORTEST_SHOWN_MS = 100
"""Browsers show a frame of at most 10 ms for 100 ms."""

_MAXIMUM_PLAYS = 65535
"""WebP counts them in 16 bits."""

_MAXIMUM_MS = (1 << 24) - 1
"""WebP counts the milliseconds of a frame in 24 bits."""

_MAXIMUM_TOTAL_MS = (1 << 31) - 1
"""libwebp counts those of all frames in 31."""

# https://developers.google.com/speed/webp/docs/riff_container#extended_file_format
_WEBP_FLAGS = 20
_WEBP_ALPHA = 0x10


class UnsupportedError(Exception):
    """A picture of a kind that is left alone: which."""


class Disposal(Enum):
    """What becomes of a frame's place before the next one."""

    LEAVE = auto()
    CLEAR = auto()
    RESTORE = auto()
    """As it was before the frame."""


class Frame(NamedTuple):
    """One frame, not decoded."""

    file: bytes
    """A GIF or PNG of its own."""

    left: int
    top: int
    width: int
    height: int
    """Pixels: its place on the canvas; a part of it may lie outside."""

    duration_ms: float
    disposal: Disposal
    blended: bool
    """Whether what it lies on shows through; else it replaces that."""


class Animation(NamedTuple):
    """A GIF, or an animated PNG."""

    width: int
    height: int
    """Pixels of the canvas."""

    frames: list[Frame]
    plays: int
    """How often it is shown (1 to 65535); 0: for ever."""

    @property
    def pixels(self) -> int:
        """What decoding all frames makes."""
        canvas = self.width * self.height
        return sum(max(canvas, frame.width * frame.height) for frame in self.frames)

    @property
    def durations_ms(self) -> list[float]:
        return [frame.duration_ms for frame in self.frames]


def composed(animation: Animation, parts: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """The canvas as it is shown at each frame, RGBA; `parts` are the decoded frames."""
    canvas = Image.new("RGBA", (animation.width, animation.height))
    for frame, part in zip(animation.frames, parts, strict=True):
        before = canvas.copy() if frame.disposal is Disposal.RESTORE else None
        place = (frame.left, frame.top)
        width = min(frame.width, canvas.width - frame.left)
        height = min(frame.height, canvas.height - frame.top)
        if width <= 0 or height <= 0:  # wholly outside
            yield canvas.copy()
            continue
        part = part.convert("RGBA").crop((0, 0, width, height))
        if frame.blended:
            canvas.alpha_composite(part, place)
        else:
            canvas.paste(part, place)
        yield canvas.copy()
        if before:
            canvas = before
        elif frame.disposal is Disposal.CLEAR:
            canvas.paste((0, 0, 0, 0), (*place, frame.left + width, frame.top + height))


def save_options(animation: Animation) -> dict[str, object]:
    """What Pillow's WebP encoder has to be told of an animation; it guesses each of these wrong.

    Without a list it gives all frames the time of the first, it takes a GIF's background colour for the
    canvas's, and it plays for ever. Key frames are of use only to players that seek.
    """
    return {
        "save_all": True,
        "duration": animation.durations_ms,
        "loop": animation.plays,
        "background": (0, 0, 0, 0),
        "kmin": 0,
        "kmax": 0,
    }


def with_alpha(data: bytes) -> bytes:
    """Makes an animated WebP say that parts of it are transparent. libwebp says so only of what is
    transparent within a frame, not of what is left where a frame was disposed of."""
    if data[12:16] != b"VP8X":
        return data
    return data[:_WEBP_FLAGS] + bytes([data[_WEBP_FLAGS] | _WEBP_ALPHA]) + data[_WEBP_FLAGS + 1 :]


def shown_at(data: bytes, times_ms: Sequence[float]) -> Iterator[Image.Image]:
    """The frames of an animated WebP that are shown at given times (rising), from its beginning on. Equal
    frames in a row may have become one."""
    variant: Image.Image = Image.open(BytesIO(data), formats=["WEBP"])
    end_ms = 0.0
    index = -1
    for time_ms in times_ms:
        while end_ms <= time_ms and index + 1 < getattr(variant, "n_frames", 1):
            index += 1
            variant.seek(index)
            variant.load()
            end_ms += variant.info.get("duration", 0)
        yield variant


def shown_ms(duration_ms: float) -> float:
    """How long browsers show a frame."""
    return _SHORTEST_SHOWN_MS if duration_ms <= _SHORTEST_MS else min(duration_ms, _MAXIMUM_MS)


def playable(animation: Animation) -> Animation:
    """Raises UnsupportedError for one that is longer than WebP can count."""
    if sum(animation.durations_ms) > _MAXIMUM_TOTAL_MS:
        raise UnsupportedError("animation of more than 24 days")
    return animation


class _Reader:
    """Bytes in their order. Raises EOFError behind the last."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        start = self.position
        if start + count > len(self.data):
            raise EOFError(f"cut off after {len(self.data)} bytes")
        self.position = start + count
        return self.data[start : self.position]

    def byte(self) -> int:
        return self.take(1)[0]


# GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt

_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_CONTROL, _GIF_APPLICATION = 0xF9, 0xFF
_GIF_OF_FRAMES = (_GIF_CONTROL, _GIF_APPLICATION)
_GIF_HAS_COLOURS = 0x80


def parse_gif(data: bytes, maximum_frames: int) -> Animation:
    """The frames of a GIF, one more than `maximum_frames` at most; a still GIF has one.

    Raises EOFError when it is cut off within a frame, ValueError when it has none, UnsupportedError.
    """
    reader = _Reader(data)
    reader.take(6)
    width, height, flags, _, _ = screen = struct.unpack("<HHBBB", reader.take(7))
    colours = reader.take(_colour_bytes(flags))
    frames: list[Frame] = []
    control, plays = bytes(4), 1
    while len(frames) <= maximum_frames:
        kind = reader.byte() if reader.left or not frames else _GIF_END
        if kind == _GIF_EXTENSION:
            label = reader.byte()
            if label not in _GIF_OF_FRAMES and frames and not _is_whole(reader):
                break
            blocks = _blocks(reader)
            if label == _GIF_CONTROL and len(blocks[1:5]) == 4:
                control = blocks[1:5]
            elif label == _GIF_APPLICATION and blocks[1:12] in (b"NETSCAPE2.0", b"ANIMEXTS1.0"):
                plays = _gif_plays(blocks[12:], plays)
        elif kind == _GIF_IMAGE:
            left, top, frame_width, frame_height, image_flags = struct.unpack("<HHHHB", reader.take(9))
            if not frames:  # encoders that leave the screen too small are believed by browsers
                width, height = max(width, frame_width), max(height, frame_height)
            image = bytes([image_flags]) + reader.take(_colour_bytes(image_flags) + 1) + _pixels(reader)
            size = struct.pack("<HH", frame_width, frame_height)
            file = b"".join(
                (
                    b"GIF89a" + size + bytes(screen[2:]) + colours,
                    bytes((_GIF_EXTENSION, _GIF_CONTROL, 4)) + control + b"\0",
                    bytes((_GIF_IMAGE, 0, 0, 0, 0)) + size + image,
                    bytes((_GIF_END,)),
                )
            )
            disposal = {2: Disposal.CLEAR, 3: Disposal.RESTORE}.get(control[0] >> 2 & 7, Disposal.LEAVE)
            duration_ms = shown_ms(10 * int.from_bytes(control[1:3], "little"))
            frames.append(Frame(file, left, top, frame_width, frame_height, duration_ms, disposal, True))
            control = bytes(4)
        elif not kind and not data[reader.position :].strip(b"\0"):
            raise EOFError("zeros instead of an end")
        else:  # browsers take what they don't know, and no end at all, for the end
            break
    if not frames or not width or not height:
        raise ValueError("no frame")
    return playable(Animation(width, height, frames, plays))


def _colour_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _GIF_HAS_COLOURS else 0


def _blocks(reader: _Reader) -> bytes:
    """A row of data blocks, lengths and terminator included."""
    start = reader.position
    while length := reader.byte():
        reader.take(length)
    return reader.data[start : reader.position]


def _is_whole(reader: _Reader) -> bool:
    """Whether the row of data blocks that comes has its end."""
    position = reader.position
    while position < len(reader.data) and reader.data[position]:
        position += 1 + reader.data[position]
    return position < len(reader.data)


def _pixels(reader: _Reader) -> bytes:
    """The data blocks of a frame. Where they are cut off, as many as there are: its decoder knows whether
    something is missing of its pixels."""
    if _is_whole(reader):
        return _blocks(reader)
    found = b""
    while reader.left > 1:
        length = min(reader.byte(), reader.left)
        found += bytes([length]) + reader.take(length)
    reader.position = len(reader.data)
    return found + b"\0"


def _gif_plays(blocks: bytes, plays: int) -> int:
    """How often a GIF is shown: it says how often it is *repeated*, 0 meaning for ever."""
    if len(blocks) < 4 or blocks[0] < 3 or blocks[1] & 7 != 1:
        return plays
    repeated = int.from_bytes(blocks[2:4], "little")
    return min(repeated + 1, _MAXIMUM_PLAYS) if repeated else _FOREVER


# Animated PNG: https://www.w3.org/TR/png-3/#apng-frame-based-animation


def parse_apng(found: png.Png, maximum_frames: int) -> Animation:
    """The frames of an animated PNG, one more than `maximum_frames` at most. Its default image is none of
    them, unless it says so.

    Raises EOFError when it is cut off, ValueError when a checksum is wrong, UnsupportedError when its frames
    aren't what it says.
    """
    announced = plays = 0
    control = b""
    pixels: list[bytes] = []
    frames: list[Frame] = []

    def finish() -> None:
        if control and pixels:
            frames.append(_apng_frame(found.header, found.shared, control, pixels))
            pixels.clear()

    for kind, content, is_right in found.parts:
        if not is_right:
            raise ValueError(f"checksum of {kind!r}")
        if kind == b"acTL":
            announced, plays = struct.unpack(">II", content)
        elif kind == b"fcTL":
            finish()
            control = content
        elif kind == b"fdAT":
            pixels.append(content[4:])
        elif control:
            pixels.append(content)
        if len(frames) > maximum_frames:
            break
    else:
        finish()
    if not found.has_end and len(frames) < min(announced, maximum_frames):
        raise EOFError("cut off")
    if not frames or len(frames) < min(announced, maximum_frames):
        raise UnsupportedError(f"png of {len(frames)} frames instead of {announced}")
    width, height = struct.unpack(">II", found.header[:8])
    if any(f.left + f.width > width or f.top + f.height > height for f in frames):
        raise UnsupportedError("png with a frame outside of the canvas")
    return playable(Animation(width, height, frames[: max(1, announced)], min(plays, _MAXIMUM_PLAYS)))


def _apng_frame(header: bytes, shared: list[bytes], control: bytes, pixels: list[bytes]) -> Frame:
    _, width, height, left, top, delay, per_second, disposal, blend = struct.unpack(">IIIIIHHBB", control)
    return Frame(
        file=png.still(struct.pack(">II", width, height) + header[8:], shared, b"".join(pixels)),
        left=left,
        top=top,
        width=width,
        height=height,
        duration_ms=shown_ms(1000 * delay / (per_second or 100)),
        disposal={1: Disposal.CLEAR, 2: Disposal.RESTORE}.get(disposal, Disposal.LEAVE),
        blended=blend == 1,
    )

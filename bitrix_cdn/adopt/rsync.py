"""Builds rsync's command lines and parses its output. Pure: nothing here touches a host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bitrix_cdn.fleet.progress import Copied

# The connection broke or the other host went away: worth another try. 20 is not: somebody stopped it.
RETRIABLE = frozenset({10, 12, 30, 35, 255})

# Files that vanished while they were copied: the shop is live.
SUCCESS = frozenset({0, 24})

_MEANING = {
    3: "a directory can't be reached",
    10: "the connection broke",
    11: "a file can't be read or written",
    12: "the connection broke",
    20: "it was stopped",
    23: "some files could not be copied",
    30: "the other host stopped answering",
    35: "the other host did not answer",
    255: "the SSH login failed or the connection broke",
}

_PROGRESS = re.compile(
    rb"\s*([\d,]+)\s+\d+%\s+([\d.]+)([kMG]?)B/s\s+[\d:]+\s+\(xfr#(\d+), (?:ir|to)-chk=(\d+)/(\d+)\)"
)
_ITEM = re.compile(rb"item ([<>.ch*][fdLDS][^ ]{9}) (.*)", re.DOTALL)
_TRANSFERRED = re.compile(rb"Number of regular files transferred: ([\d,]+)")
_BYTES = re.compile(rb"Total transferred file size: ([\d,]+) bytes")
_BANDWIDTH = re.compile(r"[0-9]+(\.[0-9]+)?[KMG]")
_SCALE = {b"": 1, b"k": 1000, b"M": 1000**2, b"G": 1000**3}


@dataclass(frozen=True)
class Item:
    """A file that differs between the two sides."""

    name: bytes
    """Path below `resize_cache/`, as the file system has it."""
    missing: bool
    """The receiving side has no such file."""
    same_time: bool
    """Both files have the same mtime."""


def bandwidth(text: str) -> str:
    """Checks a limit such as `8M` (MiB a second), as rsync's `--bwlimit` takes it.

    :raises ValueError: it is none.
    """
    if not _BANDWIDTH.fullmatch(text) or not float(text[:-1]):
        raise ValueError(f"{text!r} is no bandwidth: a number and K, M or G (KiB, MiB, GiB a second) is")
    return text


def meaning(status: int) -> str:
    """What an exit status of rsync says, for people."""
    return _MEANING.get(status, f"exit status {status}")


def parse_progress(line: bytes) -> Copied | None:
    """A line that rsync prints when it is signalled, or None if it is another line."""
    match = _PROGRESS.fullmatch(line.rstrip())
    if not match:
        return None
    size, rate, unit, copied, left, known = match.groups()
    return Copied(
        bytes=_number(size),
        rate=float(rate) * _SCALE[unit],
        copied=int(copied),
        passed=int(known) - int(left),
    )


def parse_item(line: bytes) -> Item | None:
    """A regular file whose content differs, from a line of a dry run; None for any other line.

    :param line: as rsync prints it with `--out-format='item %i %n'` under `LC_ALL=C`.
    """
    match = _ITEM.fullmatch(line)
    if not match:
        return None
    flags, name = match.groups()
    # `.f..t......`: the content is equal, something else isn't.
    if flags[0:1] not in b"<>" or flags[1:2] != b"f":
        return None
    missing = flags[2:] == b"+" * 9
    return Item(unescape(name), missing=missing, same_time=not missing and flags[4:5] == b".")


def unescape(name: bytes) -> bytes:
    r"""The bytes of a name that rsync printed: it writes `\#ooo` for all that isn't printable ASCII."""
    return re.sub(rb"\\#([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), name)


def parse_stats(lines: Iterable[bytes]) -> tuple[int, int]:
    """Files and bytes that were copied, from the lines of `--stats`."""
    files = size = 0
    for line in lines:
        if match := _TRANSFERRED.match(line):
            files = _number(match[1])
        elif match := _BYTES.match(line):
            size = _number(match[1])
    return files, size


def _number(text: bytes) -> int:
    return int(text.replace(b",", b""))

"""The common part of adopt and leave: decides which side's file to keep.

Both copy a tree while the site writes to it, switch, and then copy the files written last. The lists are
NUL-separated names, sorted as bytes, and are processed where they are stored: on the site's host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bitrix_cdn.adopt import rsync
from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.adopt.transfer import HOME, Content, Transfer
from bitrix_cdn.fleet.progress import Display
from bitrix_cdn.fleet.progress import size as human

# Times that a tree is copied again because the site writes faster than is copied.
PASSES = 6


@dataclass(frozen=True)
class Verdicts:
    """What becomes of files that differ after the switch."""

    superseded: frozenset[bytes]
    """Written again by the site since the switch: the other side has the newer one."""
    removed: frozenset[bytes]
    """Copied before, and gone from the other side since."""
    unverified: frozenset[bytes]
    """Different, for an unknown reason."""


def classify(items: Iterable[rsync.Item], written_since: Collection[bytes]) -> Verdicts:
    """Sorts files that differ after everything was copied by the reason.

    :param written_since: names that the site wrote on the receiving side after the switch.
    """
    superseded, removed, unverified = set(), set(), set()
    for item in items:
        if item.missing:
            removed.add(item.name)
        elif item.name in written_since:
            superseded.add(item.name)
        else:
            unverified.add(item.name)
    return Verdicts(frozenset(superseded), frozenset(removed), frozenset(unverified))


def few(files: int, of: int) -> bool:
    """A pass that copied no more than this leaves little enough for the moments around the switch."""
    return files <= max(100, of // 100)


def suspicious(missing: int, of: int) -> bool:
    """More files are gone than a site removes meanwhile: a disk may be missing."""
    return missing > max(100, of // 100)


def need_space(
    display: Display, name: str, free: tuple[int, int], coming: Content, there: Content, *, variants: bool
) -> None:
    """Compares what is free with what comes, and warns where it gets tight.

    :param there: what has been copied already.
    :param variants: the pictures will be joined by their WebP versions, as many files, about half as big.
    :raises MigrationError: there is not enough.
    """
    files = max(0, coming.files + coming.directories - there.files - there.directories)
    # A file takes whole blocks.
    size = max(0, coming.bytes - there.bytes) + files * 4096
    if size > free[0]:
        raise MigrationError(f"{name}: {human(free[0])} are free, {human(size)} are needed")
    if files > free[1]:
        raise MigrationError(f"{name}: {free[1]:,} inodes are free, {files:,} are needed")
    if variants and (size * 1.5 > free[0] or files * 2 > free[1]):
        display.say(f"{name}: there is room for the pictures, but hardly for their WebP versions")


def names(data: bytes) -> set[bytes]:
    """The names in a NUL-separated list."""
    return {name for name in data.split(b"\0") if name}


def join(some: Iterable[bytes]) -> bytes:
    """A list of names, as `comm -z` and rsync want it."""
    return b"".join(name + b"\0" for name in sorted(some))


def list_local(way: Transfer, to: str, condition: str = "") -> None:
    """Lists the site's own files into a list on its host."""
    way.bitrix.run(
        f"cd {way.local} && find . -type f {condition} -printf '%P\\0' | LC_ALL=C sort -z > {HOME}/{to}"
    )


def combine(way: Transfer, to: str, expression: str) -> int:
    """Makes a list out of others and returns how many names it has."""
    way.bitrix.run(f"cd {HOME} && export LC_ALL=C && {expression} > {to}.new && mv {to}.new {to}")
    return way.count(to)

"""The paths that Bitrix writes under `resize_cache`, and what follows from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROPORTIONAL_ALT = 0

# W_H_T, directly followed by the MD5 of the filters when there are any.
_BOX = re.compile(rb"(\d{1,6})_(\d{1,6})_(\d)(?:[0-9a-f]{32})?")


@dataclass(frozen=True)
class Box:
    """The size that pictures of one directory were resized to fit."""

    width: int
    """Pixels; 0: unlimited."""

    height: int
    """Pixels; 0: unlimited."""

    resize_type: int
    """0 proportional with sides swapped for upright pictures, 1 proportional, 2 exact."""

    def holds(self, width: int, height: int) -> bool:
        """Whether a picture of that size can be Bitrix's result: a larger one is the full original, which
        Bitrix puts under the final name for the time of the resize."""
        if self._fits(width, height):
            return True
        return self.resize_type == _PROPORTIONAL_ALT and self._fits(height, width)

    def _fits(self, width: int, height: int) -> bool:
        return (not self.width or width <= self.width) and (not self.height or height <= self.height)


def box_of(path: bytes) -> Box | None:
    """The box of the directory that a file lies in; None where the directory is not named by a size."""
    directory = path.rpartition(b"/")[0].rpartition(b"/")[2]
    match = _BOX.fullmatch(directory)
    return Box(*(int(group) for group in match.groups())) if match else None


def source_of(path: bytes) -> bytes:
    """What a resized picture was made from: both paths are relative, to `resize_cache/` and to `upload/`."""
    directory, _, name = path.rpartition(b"/")
    above = directory.rpartition(b"/")[0]
    return above + b"/" + name if above else name

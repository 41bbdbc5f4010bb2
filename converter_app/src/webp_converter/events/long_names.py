"""Originals whose names leave no room for a suffix."""

from __future__ import annotations

from webp_converter.base import log
from webp_converter.base.names import TOO_LONG, has_room

_REMEMBERED = 10_000


class LongNames:
    """Has the log tell of each once."""

    def __init__(self) -> None:
        self._told: set[bytes] = set()

    def has_room(self, path: bytes) -> bool:
        """Whether an original's name leaves room for a suffix."""
        name = path.rpartition(b"/")[2]
        if has_room(name):
            return True
        if path not in self._told:
            if len(self._told) >= _REMEMBERED:
                self._told.clear()
            self._told.add(path)
            log.sparing("name too long", path=path, bytes=len(name), reason=TOO_LONG)
        return False

"""Remembers removed damaged pictures, so that the same bytes under one name are never removed twice.

The record is a file beside the unfinished ones: the cache may forget, and then a picture that the site makes
with the same bytes again and again would be removed for ever.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from webp_converter.base import log

_BYTES = 16
_MOST = 100_000
"""Removals that are remembered, some 4 MB; the oldest are forgotten."""


def fingerprint(path: bytes, data: bytes) -> bytes:
    """Of a name and what was under it."""
    digest = hashlib.blake2b(path + b"\0", digest_size=_BYTES)
    digest.update(data)
    return digest.digest()


class Removals:
    """The removals of all runs, as far as they are remembered."""

    def __init__(self, file: Path, most: int = _MOST) -> None:
        self._file = file
        self._most = most

    def is_first(self, known: bytes) -> bool:
        """Whether this was not removed before; from now on it was, on the disk too.

        :raises sqlite3.OperationalError: that can't be noted now, as on a full disk.
        """
        try:
            return self._note(known)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:  # damaged itself: a second removal each is what that costs
            log.warning("removals forgotten", path=str(self._file), reason=str(error))
            self._file.with_name(self._file.name + "-journal").unlink(missing_ok=True)
            self._file.unlink()
            return self._note(known)

    def _note(self, known: bytes) -> bool:
        with closing(sqlite3.connect(self._file)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS removed (number INTEGER PRIMARY KEY, known BLOB UNIQUE)"
            )
            is_new = database.execute("INSERT OR IGNORE INTO removed (known) VALUES (?)", [known]).rowcount
            database.execute(
                "DELETE FROM removed WHERE number <= (SELECT max(number) FROM removed) - ?", [self._most]
            )
        return bool(is_new)

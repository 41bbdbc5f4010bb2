"""The audit log: append-only, each entry bound to the one before by its hash."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select, text
from sqlalchemy.orm import Session

from web_kit.database import Database
from web_kit.models import Entry

_FIELDS = ("number", "at", "who", "address", "what", "target", "result", "detail")
_START = "0" * 64

_INDEXED = 3
"""Letters that a text must have to be found by the index."""
_NO_NUMBER = 2**63 - 1
_WITH_TEXT = text(
    "SELECT rowid FROM audit_text WHERE audit_text MATCH :wanted AND rowid < :before "
    "ORDER BY rowid DESC LIMIT :most"
)


@dataclass(frozen=True)
class Verified:
    """What a look at the whole chain found."""

    count: int
    """Entries that are as they were written."""
    broken: int | None
    """The number of the first that isn't; None: all are."""
    head: str
    """The hash of the last good one: kept elsewhere, it shows later that none was cut off."""


class Audit:
    """The log of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def write(
        self, who: str, address: str, what: str, target: str = "", *, result: str = "ok", detail: str = ""
    ) -> None:
        with self._database.writing() as session:
            self.add(session, who, address, what, target, result=result, detail=detail)

    def add(
        self,
        session: Session,
        who: str,
        address: str,
        what: str,
        target: str = "",
        *,
        result: str = "ok",
        detail: str = "",
    ) -> None:
        """Writes within a transaction: what is recorded is done together with it, or not at all."""
        last = session.scalars(select(Entry).order_by(Entry.number.desc()).limit(1)).first()
        entry = Entry(
            number=last.number + 1 if last else 1,
            at=round(self._clock(), 3),
            who=who[:64],
            address=address[:255],
            what=what[:64],
            target=target[:400],
            result=result,
            detail=detail,
        )
        entry.hash = _hash(entry, last.hash if last else _START)
        session.add(entry)
        session.flush()

    def verify(self, head: str = "") -> Verified:
        """Looks at each entry.

        :param head: an earlier last hash; without it, entries cut off at the end don't show.
        """
        count, before, seen = 0, _START, not head
        for entry in self.entries():
            if entry.number != count + 1 or entry.hash != _hash(entry, before):
                return Verified(count, count + 1, before)
            count, before = count + 1, entry.hash
            seen = seen or before == head
        return Verified(count, None if seen else count + 1, before)

    def entries(self) -> Iterator[Entry]:
        """All, the oldest first."""
        with self._database.reading() as session:
            yield from session.scalars(select(Entry).order_by(Entry.number).execution_options(yield_per=1000))

    def export(self) -> Iterator[str]:
        """All as lines of JSON, hashes included: whoever has them can verify the chain elsewhere."""
        for entry in self.entries():
            yield json.dumps(as_data(entry), ensure_ascii=False) + "\n"

    def search(self, wanted: str = "", *, who: str = "", before: int = 0, most: int = 100) -> Sequence[Entry]:
        """The newest entries.

        :param wanted: text in what was done, to what, by whom, or in its detail.
        :param before: only entries with lower numbers; 0: all.
        """
        query = select(Entry).order_by(Entry.number.desc()).limit(most)
        indexed = len(wanted) >= _INDEXED and "\0" not in wanted
        if wanted and not indexed:
            columns = (Entry.what, Entry.target, Entry.who, Entry.detail)
            query = query.where(or_(*(one.icontains(wanted, autoescape=True) for one in columns)))
        if who:
            query = query.where(Entry.who == who)
        if before:
            query = query.where(Entry.number < before)
        with self._database.reading() as session:
            if indexed:
                # Of many the newest are enough, unless more is asked of them.
                bound = {
                    "wanted": '"{}"'.format(wanted.replace('"', '""')),
                    "before": before or _NO_NUMBER,
                    "most": -1 if who else most,
                }
                query = query.where(Entry.number.in_(session.scalars(_WITH_TEXT, bound).all()))
            return session.scalars(query).all()


def as_data(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in (*_FIELDS, "hash")}


def _hash(entry: Entry, before: str) -> str:
    fields = [before, *(getattr(entry, name) for name in _FIELDS)]
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()

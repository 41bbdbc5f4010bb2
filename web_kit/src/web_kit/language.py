"""The languages of pages: messages are written in English; a table has what stands for each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Table:
    """What an application says in one language."""

    messages: Mapping[str, str]
    """By the English message."""
    plurals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the English message for one."""


def _english(count: int) -> int:
    return 0 if count == 1 else 1


def _russian(count: int) -> int:
    last, tens = count % 10, count % 100 // 10
    if last == 1 and tens != 1:
        return 0
    return 1 if 2 <= last <= 4 and tens != 1 else 2


@dataclass(frozen=True, eq=False)
class Language:
    """How pages speak."""

    code: str
    name: str
    tables: tuple[Table, ...] = ()
    plural: Callable[[int], int] = _english
    separators: Mapping[int, str] = field(default_factory=dict)
    """What stands for English commas and points in numbers."""

    def message(self, english: str, **values: object) -> Markup:
        """A message with values, which are escaped."""
        found = next((one.messages[english] for one in self.tables if english in one.messages), english)
        return _filled(found, values)

    def counted(self, one: str, many: str, count: int, **values: object) -> Markup:
        """The form for a count."""
        forms = next((table.plurals[one] for table in self.tables if one in table.plurals), (one, many))
        return _filled(forms[self.plural(count)], {"count": self.number(count), **values})

    def number(self, value: float, digits: int = 0) -> str:
        return f"{value:,.{digits}f}".translate(self.separators)

    def share(self, value: float, digits: int = 0) -> str:
        return f"{self.number(100 * value, digits)}\N{NO-BREAK SPACE}%"

    def size(self, count: float) -> str:
        """Bytes in the unit that suits them."""
        for unit in ("B", "kB", "MB", "GB", "TB"):
            if abs(count) < 1000 or unit == "TB":
                break
            count /= 1000
        digits = 0 if unit == "B" or abs(count) >= 100 else 1
        return f"{self.number(count, digits)}\N{NO-BREAK SPACE}{self.message(unit)}"

    def duration(self, seconds: float) -> str:
        for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
            if seconds < limit:
                return f"{self.number(max(0.0, seconds) / divisor)}\N{NO-BREAK SPACE}{self.message(unit)}"
        return f"{self.number(seconds / 86400)}\N{NO-BREAK SPACE}{self.message('d')}"

    def ago(self, at: float, now: float) -> Markup:
        return self.message("{age} ago", age=self.duration(now - at))


def moment(at: float) -> str:
    """A time, the same in all languages."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def languages(russian: Sequence[Table]) -> dict[str, Language]:
    """The languages of an application, by code.

    :param russian: its tables; where two have a message, the first counts.
    """
    spaces = str.maketrans({",": "\N{NO-BREAK SPACE}", ".": ","})
    return {
        "en": Language("en", "English"),
        "ru": Language("ru", "Русский", tuple(russian), _russian, spaces),
    }


def preferred(accepted: str, known: Sequence[str]) -> str:
    """The language that a browser likes best of those known; where it likes none, the first.

    :param accepted: its `Accept-Language`.
    """
    wishes = []
    for part in accepted.split(","):
        code, _, quality = part.strip().partition(";")
        found = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", quality or "q=1")
        wishes.append((-float(found[1]) if found else 0.0, code.lower().partition("-")[0]))
    liked = (code for weight, code in sorted(wishes, key=lambda one: one[0]) if weight and code in known)
    return next(liked, known[0])


def _filled(message: str, values: Mapping[str, object]) -> Markup:
    """A message of the program's own."""
    escaped = {name: escape(value) for name, value in values.items()}
    return Markup(message.format(**escaped)) if values else Markup(message)  # noqa: S704

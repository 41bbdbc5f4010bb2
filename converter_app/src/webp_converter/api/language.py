"""The languages of the status page.

Messages are written in English, in the template; a language has a table with what stands for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date

from markupsafe import Markup

from webp_converter.api import russian
from webp_converter.base import formatting


def _plural_english(count: int) -> int:
    return 0 if count == 1 else 1


@dataclass(frozen=True, eq=False)
class Language:
    """What the page says, and how it writes values. All texts are the program's own, but for reasons."""

    code: str
    months: tuple[str, ...]
    messages: Mapping[str, str] = field(default_factory=dict)
    """By the English message."""

    plurals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the English message for one."""

    plural: Callable[[int], int] = _plural_english
    """Which form a count takes."""

    reasons: tuple[tuple[re.Pattern[str], str], ...] = ()
    """What is wrong with something, as other parts of the program and libraries say it in English."""

    units: Mapping[str, str] = field(default_factory=dict)
    separators: Mapping[int, str] = field(default_factory=dict)
    """What stands for English commas and points in numbers."""

    def message(self, english: str) -> str:
        return self.messages.get(english, english)

    def counted(self, one: str, many: str, count: int) -> str:
        """The form for a count."""
        return self.plurals.get(one, (one, many))[self.plural(count)]

    def reason(self, english: str) -> str:
        """The reason of a fault; in English if it has no translation, as in messages of libraries."""
        for pattern, text in self.reasons:
            if found := pattern.fullmatch(english):
                return text.format(*map(self.reason, found.groups()))
        return self.decimal(english) if re.fullmatch(r"\d+\.\d+", english) else english

    # Values. Not escaped, as they are made of numbers.

    def number(self, count: int) -> Markup:
        return self.decimal(f"{count:,}")

    def decimal(self, english: str) -> Markup:
        return Markup(english.translate(self.separators))  # noqa: S704

    def size(self, count: int) -> Markup:
        """Bytes in the unit that suits them."""
        return self._measure(formatting.size(count))

    def duration(self, seconds: float | None) -> Markup:
        """Seconds in the unit that suits them; empty for None."""
        return self._measure(formatting.duration(seconds))

    def share(self, part: float, whole: float) -> Markup:
        """In per cent; empty for a part of nothing."""
        return self.decimal(formatting.share(part, whole))

    def ago(self, seconds: float, now: float) -> Markup:
        age_s = max(0.0, now - seconds)
        amount = f"{age_s / 86_400:.0f} days"
        for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
            if age_s < limit:
                amount = f"{age_s / divisor:.0f} {unit}"
                break
        return Markup(self.message("{age} ago")).format(age=self._measure(amount))  # noqa: S704

    def day(self, day: date) -> Markup:
        """Without its year."""
        month = self.months[day.month - 1]
        return Markup(self.message("{month} {day}")).format(month=month, day=day.day)  # noqa: S704

    def _measure(self, english: str) -> Markup:
        amount, space, unit = english.partition(" ")
        return Markup(f"{self.decimal(amount)}{space}{self.units.get(unit, unit)}")  # noqa: S704


def _pattern(english: str) -> re.Pattern[str]:
    """What fits a message with values in place of its `{}`."""
    return re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.DOTALL)


ENGLISH = Language("en", ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"))

RUSSIAN = Language(
    "ru",
    russian.MONTHS,
    russian.MESSAGES,
    russian.PLURALS,
    russian.plural,
    tuple((_pattern(english), text) for english, text in russian.REASONS.items()),
    russian.UNITS,
    str.maketrans({",": "\N{NO-BREAK SPACE}", ".": ","}),
)

LANGUAGES = {language.code: language for language in (ENGLISH, RUSSIAN)}


def chosen(setting: str, accepted: str) -> Language:
    """The page's language: the setting's, or with `auto` the one that a browser likes best.

    `accepted`: what its `Accept-Language` says. Where it likes none that there is, English.
    """
    if setting != "auto":
        return LANGUAGES[setting]
    liked = {}
    for place, part in enumerate(accepted.split(",")):
        code, _, parameter = part.partition(";")
        quality = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", parameter) if parameter else None
        # The first of those that it likes as much; a broken wish is none.
        wish = float(quality[1]) if quality else 0.0 if parameter else 1.0
        liked[wish, -place] = code.strip().lower().partition("-")[0]
    ranked = (code for (wish, _), code in sorted(liked.items(), reverse=True) if wish)
    return next((LANGUAGES[code] for code in ranked if code in LANGUAGES), ENGLISH)

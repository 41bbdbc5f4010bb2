"""Formats values for people, in a terminal and on the status page."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def printable(words: str | bytes) -> str:
    """Words or a path on one line, whatever they are made of: what can't be printed is escaped."""
    text = words.decode("utf-8", "backslashreplace") if isinstance(words, bytes) else words
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    amount = float(count)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them; empty for None."""
    if seconds is None:
        return ""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def moment(seconds: float) -> str:
    """A wall clock time, in this host's zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""

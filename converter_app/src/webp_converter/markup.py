"""HTML that can't forget to escape.

Elements are made by `element` alone, and whatever text goes into one is escaped there. Only what it made, and
what the program itself has in a constant (`Markup("...")`), goes in as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from webp_converter.wording import printable

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """HTML. Never made of a value."""

    __slots__ = ()


Child = Markup | str | bytes | int | None | Iterable["Child"]
"""Text may be of any bytes: a path, what an error says. None: nothing."""


def element(kind: str, /, *children: Child, **attributes: str | bytes | float | bool | None) -> Markup:
    """An element. Attributes with the value None or False are left out; in their names `_` stands for `-`,
    at the end for nothing (`class_`)."""
    parts = [f"<{kind}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        parts.append(f" {key.rstrip('_').replace('_', '-')}")
        if value is not True:
            text = value if isinstance(value, (str, bytes)) else f"{value:.10g}"
            parts.append(f'="{escape(printable(text))}"')
    parts.append(">")
    if kind not in _VOID:
        parts.append(fragment(*children))
        parts.append(f"</{kind}>")
    return Markup("".join(parts))


def fragment(*children: Child) -> Markup:
    """Elements and text one after the other."""
    return Markup("".join(_inside(child) for child in children))


def _inside(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, (str, bytes)):
        return escape(printable(child))
    if isinstance(child, int):
        return str(child)
    return "".join(_inside(each) for each in child)

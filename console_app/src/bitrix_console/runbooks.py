"""The runbook of an alert, out of `docs/`, as HTML."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from bitrix_cdn.fleet.deploys import ROOT
from markdown_it import MarkdownIt
from markupsafe import Markup


@cache
def runbook(place: str, language: str, docs: Path = ROOT / "docs") -> Markup | None:
    """What a page says of one alert.

    :param place: such as `mounts.md#mountdown`.
    :param language: where the page isn't in it, it is in English.
    :returns: None if there is no such page or section.
    """
    found = re.fullmatch(r"([a-z][a-z-]*\.md)#([a-z0-9-]+)", place)
    if not found:
        return None
    pages = [docs / "runbooks" / found[1]]
    if language != "en":
        pages.insert(0, docs / language / "runbooks" / found[1])
    file = next((one for one in pages if one.is_file()), None)
    text = _section(file.read_text(), found[2]) if file else ""
    if not text:
        return None
    # HTML in it is shown as text; links lead to files that aren't here.
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    unlinked = re.sub(r'<a href="(?!https?://)[^"]*">(.*?)</a>', r"<em>\1</em>", made, flags=re.S)
    return Markup(unlinked)  # noqa: S704 -- made of the project's own pages


def _section(page: str, anchor: str) -> str:
    """From the heading of an alert to the next; empty: there is none."""
    for part in re.split(r"^(?=## )", page, flags=re.M):
        heading, _, text = part.partition("\n")
        if heading.startswith("## ") and re.sub(r"[^a-z0-9-]", "", heading[3:].lower()) == anchor:
            return text
    return ""

"""The pages in Russian keep in step with the English ones: the same headings, commands and names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.alerting import names
from tests.kit.deployment import ROOT

RUSSIAN = ROOT / "docs/ru"
README = ROOT / "README.ru.md"
PAGES = [README, *sorted(RUSSIAN.rglob("*.md"))]

HEADINGS = {
    "What it means": "Что это значит",
    "How to check": "Как проверить",
    "What to do": "Что делать",
    "How to know that it is over": "Как понять, что всё прошло",
}
"""Those of each alert's runbook."""


def english(page: Path) -> Path:
    """The page that one in Russian keeps in step with; any other page is its own."""
    if page == README:
        return ROOT / "README.md"
    return ROOT / "docs" / page.relative_to(RUSSIAN) if page.is_relative_to(RUSSIAN) else page


def headings(text: str) -> list[tuple[str, str]]:
    """Level and words of each."""
    return re.findall(r"^(#+) (.+)$", text, re.M)


def commands(text: str) -> list[str]:
    """The lines of blocks, without what is said about them; a drawing has none."""
    lines = re.findall(
        r"^ {4,11}([^\s\N{BOX DRAWINGS LIGHT HORIZONTAL}-\N{BOX DRAWINGS HEAVY VERTICAL AND HORIZONTAL}].*)$",
        text,
        re.M,
    )
    return [re.split(r"\s+# ", line)[0].rstrip() for line in lines]


def code(text: str) -> set[str]:
    """Code amid the text: commands, settings, paths."""
    plain = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    return {" ".join(found.split()) for found in re.findall(r"`([^`]+)`", plain)}


def links(text: str, page: Path) -> set[Path]:
    """The pages that are linked to, the English one for each in Russian."""
    found = {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", text)}
    return {english(target) for target in found}


def sections(text: str) -> list[str]:
    return re.split(r"^#+ .*\n", text, flags=re.M)


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    assert english(found).is_file(), f"{found.relative_to(ROOT)} has no English page"
    return found


def test_headings_are_the_same(page: Path) -> None:
    theirs, ours = headings(page.read_text()), headings(english(page).read_text())
    assert [level for level, _ in theirs] == [level for level, _ in ours]
    for (_, russian), (_, words) in zip(theirs, ours, strict=True):
        if words in {*names(), "Bitrix CDN"}:
            assert russian == words
        elif words in HEADINGS:
            assert russian == HEADINGS[words]
        else:
            assert re.search("[а-яё]", russian), russian


def test_commands_are_the_same(page: Path) -> None:
    """In each section, and in the order of its English one."""
    pairs = zip(sections(page.read_text()), sections(english(page).read_text()), strict=True)
    for theirs, ours in pairs:
        assert commands(theirs) == commands(ours)
        assert code(theirs) == code(ours)


def test_tables_and_lists_have_as_many_lines(page: Path) -> None:
    for pattern in (r"^\|", r"^- "):
        counts = [len(re.findall(pattern, one.read_text(), re.M)) for one in (page, english(page))]
        assert counts[0] == counts[1]


def test_links_lead_to_the_same(page: Path) -> None:
    assert links(page.read_text(), page) == links(english(page).read_text(), english(page))


def test_what_is_said_is_in_russian(page: Path) -> None:
    """Each paragraph, row and comment of it."""
    text = re.sub(r"`[^`]+`|«[^»]+»|\]\([^)]*\)", "", page.read_text())
    for part in re.split(r"\n\n|\n(?=[|-])", re.sub(r"^ {4}.*$", "", text, flags=re.M)):
        sentence = re.findall(r"(?:\b[a-z]+\b[ ,]+){3,}", part)
        assert not sentence, part
    for comment in re.findall(r"^ {4}\S.*?\s+# (.*)$", page.read_text(), re.M):
        # What a program writes is quoted as it is.
        told = re.sub(r'".*"', "", comment)
        assert re.search("[а-яё]", told) or not re.search("[a-z]{3,} [a-z]{2,}", told), comment


def test_each_runbook_is_there_in_russian() -> None:
    there = {page.name for page in (RUSSIAN / "runbooks").glob("*.md")}
    assert there == {page.name for page in (ROOT / "docs/runbooks").glob("*.md")}


def test_each_alert_has_a_runbook_in_russian() -> None:
    told = [words for page in PAGES for level, words in headings(page.read_text()) if level == "##"]
    assert not [name for name in names() if told.count(name) != 1]

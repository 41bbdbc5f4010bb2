"""Languages: which one a page is in, how it writes values, and that the Russian tables lack nothing."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import jinja2
import pytest
from bitrix_console import russian as of_console
from bitrix_console.job_pages import STATES, TITLES
from jinja2.ext import extract_from_ast
from web_kit.errors import RefusedError
from web_kit.language import languages, preferred
from web_kit.roles import Role

from web_kit import russian as of_kit

LANGUAGES = languages((of_console.TABLE, of_kit.TABLE))
ENGLISH, RUSSIAN = LANGUAGES["en"], LANGUAGES["ru"]
PACKAGES = ("web_kit", "bitrix_console")
MESSAGES = {**of_kit.TABLE.messages, **of_console.TABLE.messages}
PLURALS = {**of_kit.TABLE.plurals, **of_console.TABLE.plurals}


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("en;q=0.8,ru;q=0.9", "ru"),
        ("de,fr;q=0.9", "en"),
        ("de,ru;q=0.1", "ru"),
        ("ru;q=0", "en"),
        ("ru;q=broken,en;q=0.1", "en"),
        (";;;,,,", "en"),
    ],
)
def test_the_language_that_a_browser_likes_best(accepted: str, language: str) -> None:
    assert preferred(accepted, ("en", "ru")) == language


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 расхождение"),
        (2, "2 расхождения"),
        (5, "5 расхождений"),
        (11, "11 расхождений"),
        (21, "21 расхождение"),
    ],
)
def test_russian_counts(count: int, text: str) -> None:
    assert RUSSIAN.counted("{count} difference", "{count} differences", count) == text


def test_values_are_written_as_the_language_does() -> None:
    assert (ENGLISH.number(1234.5, 1), RUSSIAN.number(1234.5, 1)) == ("1,234.5", "1\N{NO-BREAK SPACE}234,5")
    assert RUSSIAN.size(1_500_000) == "1,5\N{NO-BREAK SPACE}МБ"
    assert ENGLISH.size(999) == "999\N{NO-BREAK SPACE}B"
    assert [ENGLISH.duration(one) for one in (5, 600, 7200, 864_000)] == [
        "5\xa0s",
        "10\xa0min",
        "2\xa0h",
        "10\xa0d",
    ]
    assert ENGLISH.message("{age} ago", age="<b>") == "&lt;b&gt; ago"


def english() -> Iterator[tuple[str, ...]]:
    """All messages: of templates, of refusals, and of tables that templates look up."""
    for package in PACKAGES:
        for template in files(package).joinpath("templates").iterdir():
            syntax = jinja2.Environment(trim_blocks=True).parse(template.read_text("utf-8"))
            for _, function, found in extract_from_ast(syntax, ("_", "ngettext")):
                told = (found,) if isinstance(found, str) else tuple(one for one in found or () if one)
                if told:
                    yield told[: 2 if function == "ngettext" else 1]
        for source in Path(str(files(package))).rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    if node.func.id == RefusedError.__name__ and isinstance(node.args[1], ast.Constant):
                        yield (str(node.args[1].value),)
                    if node.func.id == "Section" and isinstance(node.args[1], ast.Constant):
                        yield (str(node.args[1].value),)
                    if (
                        node.func.id == "back"
                        and isinstance(node.args[-1], ast.Constant)
                        and len(node.args) > 1
                    ):
                        yield (str(node.args[-1].value),)
    yield from ((role.value,) for role in Role)
    yield from ((title,) for title in (*TITLES.values(), *STATES.values()))


def holes(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def test_each_message_has_a_translation_with_the_same_values() -> None:
    found = set(english())
    assert len(found) > 150
    lacking = {one for one in found if (one[0] not in PLURALS if len(one) == 2 else one[0] not in MESSAGES)}
    assert not lacking
    for message, translated in MESSAGES.items():
        assert holes(message) == holes(translated), message
    for message, forms in PLURALS.items():
        assert len(forms) == 3
        assert all(holes(one) == holes(message) for one in forms), message


def test_no_translation_is_left_over() -> None:
    used = {one[0] for one in english()}
    # What templates look up by a value, and what the code says of values.
    by_value = {"mounted", "connecting", "waiting", "pushing", "full", "refused", "failed", "ok"}
    by_value |= {"critical", "warning", "info", "1h", "1d", "7d", "30d", "1y"}
    by_value |= {"B", "kB", "MB", "GB", "TB", "s", "min", "h", "d", "{age} ago"}
    by_value |= {"there is no such page", "that can't be done here", "log in first"}
    assert set(MESSAGES) - used - by_value == set()
    assert set(PLURALS) - used == set()

"""The status page in both languages: which of them, and that neither lacks anything."""

from __future__ import annotations

import ast
import dataclasses
import re
import string
from collections.abc import Iterator
from importlib.resources import files
from urllib.request import Request, urlopen

import jinja2
import pytest
from converter_app.tests import views
from converter_app.tests.clients import Page
from converter_app.tests.harness import RedisServer, StartDaemon, wait_until
from jinja2.ext import extract_from_ast
from markupsafe import Markup

from webp_converter.api import russian
from webp_converter.api.language import ENGLISH, LANGUAGES, RUSSIAN, Language, chosen
from webp_converter.api.page import Notice, View, page, shown

SOURCES = files("webp_converter")
TEMPLATE = SOURCES.joinpath("api/page.html.j2").read_text("utf-8")
VIEWS = [views.works(), views.fails(), views.starts(), views.idle()]
NOTICES = [
    Notice("signed-in"),
    Notice("signed-out"),
    *(Notice("retried", count) for count in (0, 1, 3, 5)),
    Notice("refused", reason="the token is wrong"),
]

NAMES = [
    "AVIF",
    "BMP",
    "JPEG",
    "KiB",
    "PNG",
    "Redis",
    "SIGKILL",
    "SSIM",
    "UTC",
    "WebP",
    "cdn",
    "inotify",
    "fs.inotify.max_user_watches",
    "webp-converter",
    "dead",
    "list",
    "retry",
    "api.token_file",
]
"""What is called the same in all languages."""


def latin_words(html: str) -> set[str]:
    """The words of Latin letters that a page shows, but for addresses, paths, numbers and names."""
    found = set()
    root = Page(html.encode())
    read = [
        *root.texts,
        *(a.get(name) or "" for _, a in root.elements for name in ("alt", "title", "aria-label")),
    ]
    for text in read:
        plain = re.sub(r"(?:^|(?<=\s))\S*/\S*|\S+\.(?:jpg|png|bmp)\b", " ", text.replace(views.SHOWN, ""))
        found |= {word for word in re.findall(r"[A-Za-z][\w.-]*", plain) if word not in NAMES}
    return found


def english() -> Iterator[tuple[str, ...]]:
    """The messages of the template, those with a plural as two."""
    syntax = jinja2.Environment(trim_blocks=True).parse(TEMPLATE)
    for _, function, messages in extract_from_ast(syntax, ("_", "ngettext")):
        size = {"_": 1, "ngettext": 2}[function]
        told = (messages,) if isinstance(messages, str) else tuple(messages or ())[:size]
        # A message that isn't written out there could not be looked for.
        assert len(told) == size
        assert all(told), told
        yield tuple(map(str, told))


def values(message: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(message) if name is not None)


def test_each_message_is_in_both_languages() -> None:
    told = set(english())
    # Those of `language.py` are no part of the template.
    single = {message[0] for message in told if len(message) == 1} | {"{age} ago", "{month} {day}"}
    assert single == set(russian.MESSAGES)
    assert {message[0] for message in told if len(message) == 2} == set(russian.PLURALS)


def test_each_message_has_its_values_in_both_languages() -> None:
    several = [(one, form) for one, forms in russian.PLURALS.items() for form in forms]
    for message, text in [*russian.MESSAGES.items(), *several]:
        assert values(message) == values(text), message
        assert text[:1].isupper() == message[:1].isupper() or "{" in message + text, message
    for reason, text in russian.REASONS.items():
        given = len(values(reason))
        assert values(text) in ([""] * given, [str(number) for number in range(given)]), reason


@pytest.mark.parametrize("view", VIEWS, ids=["works", "fails", "starts", "idle"])
def test_no_english_is_left_on_the_russian_page(view: View) -> None:
    for notice in (None, *NOTICES):
        html = page(dataclasses.replace(view, notice=notice), RUSSIAN)
        # Readers don't see the words of styles.
        assert latin_words(re.sub(r"<style>.*?</style>", "<style></style>", html, flags=re.DOTALL)) == set()
    assert '<html lang="ru">' in html


@pytest.mark.parametrize("view", VIEWS, ids=["works", "fails", "starts", "idle"])
def test_no_russian_is_on_the_english_page(view: View) -> None:
    for notice in NOTICES:
        assert not re.search("[а-яё]", page(dataclasses.replace(view, notice=notice), ENGLISH), re.IGNORECASE)


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_pages_differ_in_words_alone(language: Language) -> None:
    def structure(which: Language) -> list[tuple[str, set[str]]]:
        html = page(views.works(), which).encode()
        return [(tag, set(attributes)) for tag, attributes in Page(html).elements]

    assert structure(language) == structure(ENGLISH)


REASONING = {"RefusedError": 1, "WatchError": 0, "StoreError": 0, "OriginAwayError": 0}
"""The errors whose text the page shows, and the place of that text among what they are made of."""


def given_reasons() -> Iterator[str]:
    """The reasons in the source of what the page shows, `{}` for each value."""
    for module in ("api/access", "api/page_routes", "events/watch", "variants/store", "variants/originals"):
        for call in ast.walk(ast.parse(SOURCES.joinpath(f"{module}.py").read_text("utf-8"))):
            name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
            if name in REASONING and isinstance(call, ast.Call):
                yield _written(call.args[REASONING[name]])


def _written(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return str(text.value)
    if isinstance(text, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in text.values)
    # " ".join(f"...".split())
    [inner] = [part for part in ast.walk(text) if isinstance(part, ast.JoinedStr)]
    return _written(inner)


@pytest.mark.parametrize("reason", sorted(set(given_reasons())))
def test_each_reason_is_known_in_russian(reason: str) -> None:
    # That of the API, which speaks English.
    if reason == "a token is needed: Authorization: Bearer TOKEN":
        return
    # What is a path and an error of the kernel needs no words.
    assert reason in russian.REASONS or not re.search("[a-z]", reason)


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        (
            "Redis is away: Error 111 connecting to 127.0.0.1:6380. Connection refused.",
            "Redis недоступен: не удалось подключиться к 127.0.0.1:6380: в соединении отказано (ошибка 111)",
        ),
        ("no answer after 0.5 s", "нет ответа за 0,5 с"),
        (
            "/var/www/cdn/upload: No space left on device",
            "/var/www/cdn/upload: на устройстве не осталось места",
        ),
        ("/mnt/{0}: cut off after 10 of 20 bytes", "/mnt/{0}: оборвано после 10 из 20 байт"),
        ("ValueError: as a library says it", "ValueError: as a library says it"),
    ],
)
def test_reasons_are_told_as_far_as_they_are_known(english: str, russian: str) -> None:
    assert RUSSIAN.reason(english) == russian
    assert ENGLISH.reason(english) == english


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 каталогов"),
        (1, "1 каталог"),
        (2, "2 каталога"),
        (5, "5 каталогов"),
        (11, "11 каталогов"),
        (13, "13 каталогов"),
        (21, "21 каталог"),
        (1104, "1\N{NO-BREAK SPACE}104 каталога"),
    ],
)
def test_russian_counts(count: int, text: str) -> None:
    form = RUSSIAN.counted("{count} directory", "{count} directories", count)
    assert form.format(count=RUSSIAN.number(count)) == text


def test_values_are_written_as_each_language_does() -> None:
    def written(which: Language) -> list[str]:
        return [
            which.number(1_234_567),
            which.size(1_300_000),
            which.duration(0.25),
            which.duration(None),
            which.share(1, 3),
            which.ago(0, 400_000),
        ]

    assert written(ENGLISH) == ["1,234,567", "1.2 MiB", "0.2 s", "", "33.3%", "5 days ago"]
    nbsp = "\N{NO-BREAK SPACE}"
    assert written(RUSSIAN) == [f"1{nbsp}234{nbsp}567", "1,2 МиБ", "0,2 с", "", "33,3%", "5 дн. назад"]


@pytest.mark.parametrize(
    ("setting", "accepted", "code"),
    [
        ("auto", "", "en"),
        ("auto", "ru", "ru"),
        ("auto", "ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"),
        ("auto", "en-US,en;q=0.9,ru;q=0.8", "en"),
        ("auto", "en;q=0.5, RU;q=0.75", "ru"),
        ("auto", "en,ru", "en"),
        ("auto", "ru;q=0", "en"),
        ("auto", "ru;q=1.0", "ru"),
        ("auto", "de,fr;q=0.9,ru;q=0.1", "ru"),
        ("auto", "*", "en"),
        ("auto", "ru;q=nonsense, ;;,=", "en"),
        ("ru", "en", "ru"),
        ("en", "ru", "en"),
    ],
)
def test_the_language_is_the_settings_or_the_browsers(setting: str, accepted: str, code: str) -> None:
    assert chosen(setting, accepted).code == code


def test_whatever_goes_in_is_escaped() -> None:
    values = {name: shown(value) for name, value in {"a": b"<b>\xff\n", "b": Markup("<i>"), "c": 7}.items()}
    assert values == {"a": "<b>\\xff\\n", "b": "<i>", "c": 7}
    for language in LANGUAGES.values():
        for reason in ("<script>", "Redis is away: <script>", "\"'><x\n"):
            letter = views.works().queue.value
            assert letter
            notice = Notice("refused", reason=reason)
            html = page(dataclasses.replace(views.works(), notice=notice), language)
            assert "<script" not in html
            assert not Page(html.encode()).all("x")
            assert Page(html.encode()).by_id["notice"]["text"].count("\n") == 0


@pytest.mark.parametrize(("setting", "code"), [("auto", "ru"), ("en", "en")])
def test_a_browser_gets_its_language(
    start_daemon: StartDaemon, redis_server: RedisServer, setting: str, code: str
) -> None:
    redis_server.kill()
    daemon = start_daemon(ready=False, api={"language": setting})
    wait_until(daemon.health)
    asked = Request(f"http://127.0.0.1:{daemon.api_port}/", headers={"Accept-Language": "ru,en;q=0.5"})
    with urlopen(asked) as answer:
        assert (answer.headers["Content-Language"], answer.headers["Vary"]) == (code, "Accept-Language")
        told = Page(answer.read())
    assert [element["lang"] for element in told.all("html")] == [code]
    expected = {"ru": "Redis недоступен: не удалось подключиться", "en": "Redis is away: Error 2 connecting"}
    assert expected[code] in told.by_id["health"]["text"]

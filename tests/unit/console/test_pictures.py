"""Pictures in the console: what the converter tells of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bitrix_console.pictures import explainer
from web_kit.roles import Role

from bitrix_cdn.fleet import HostError, Output
from tests.kit.console import Console

HOSTILE = "<img src=x onerror=alert(1)>"
TOLD: dict[str, Any] = {
    "url": "/upload/resize_cache/a.png",
    "state": "webp",
    "why": "Its WebP is a third of it.",
    "original": {
        "path": "/srv/a.png",
        "present": True,
        "bytes": 3000,
        "modified_at": 0.0,
        "format": "png",
        "width": 10,
        "height": 20,
    },
    "directory": "/srv/variants",
    "variants": [{"name": "a.png.webp", "state": "fresh", "bytes": 1000, "verdict": "q80", "ssim": 0.98765}],
    "queue": {"state": "none", "stream": "", "problem": "", "dead": {"reason": "damaged"}},
    "visitors": [
        {"who": "a bot", "status": 200, "type": "image/png", "bytes": 3000, "problem": ""},
        {"who": "an old browser", "problem": "no answer"},
    ],
    "varnish": [],
    "notes": ["A note."],
}


def hostile(told: Any) -> Any:
    """The same with hostile text in each place."""
    if isinstance(told, dict):
        return {name: hostile(one) for name, one in told.items()}
    return [hostile(one) for one in told] if isinstance(told, list) else HOSTILE


def test_a_picture_is_explained(console: Console) -> None:
    browser = console.logged_in("vic", Role.VIEWER)
    assert 'id="told"' not in browser.get("/pictures").text
    console.hosts.explained = TOLD
    page = browser.get("/pictures", params={"q": " /upload/a.png "}).text
    for text in ("Its WebP is a third of it.", "a.png.webp", "0.9877", "png 10", "an old browser", "A note."):
        assert text in page
    assert browser.get("/api/pictures", params={"q": "/upload/a.png"}).json()["asked"] == "/upload/a.png"


@pytest.mark.parametrize("told", [{}, {"original": None, "queue": None, "variants": None}, hostile(TOLD)])
def test_what_another_version_tells_or_a_name_holds_is_no_harm(
    console: Console, told: dict[str, Any]
) -> None:
    console.hosts.explained = told
    answer = console.logged_in("vic", Role.VIEWER).get("/pictures", params={"q": HOSTILE})
    assert answer.status_code == 200
    assert "<img" not in answer.text


def test_what_can_not_be_explained_is_told_on_the_page(console: Console) -> None:
    browser = console.logged_in("vic", Role.VIEWER)
    console.hosts.away = f"cdn: {HOSTILE} is no picture"
    answer = browser.get("/pictures", params={"q": "/x"})
    assert (answer.status_code, "&lt;img" in answer.text, "<img" in answer.text) == (422, True, False)
    for wrong in ("a\0b", "a\nb", "x" * 4097):
        assert browser.get("/api/pictures", params={"q": wrong}).status_code == 422


def test_a_host_is_not_asked_by_many_at_once(console: Console) -> None:
    browser = console.logged_in("vic", Role.VIEWER)
    found: list[int] = []

    def ask() -> None:
        found.append(browser.get("/api/pictures", params={"q": "/upload/a.png"}).status_code)

    # Each asks again before it is answered, until one is refused.
    console.hosts.meanwhile = ask
    ask()
    assert found == [503, 200, 200]


def test_the_converter_is_asked_with_the_words_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        name = "cdn"
        said = Output(1, json.dumps(TOLD).encode(), "")
        lines: list[str] = []  # noqa: RUF012

        def connect(self) -> None:
            pass

        def run(self, line: str, **_: object) -> Output:
            self.lines.append(line)
            return self.said

    class Inventory:
        hosts = {"cdn": Remote()}  # noqa: RUF012
        groups = {"cdn": ("cdn",)}  # noqa: RUF012

    explain = explainer(Inventory())  # type: ignore[arg-type]
    assert explain("/upload/a'; reboot'.png") == TOLD
    assert Remote.lines == ["""webp-converter explain --json -- '/upload/a'"'"'; reboot'"'"'.png'"""]
    Remote.said = Output(2, b"", "'/x' lies nowhere\n")
    with pytest.raises(HostError, match="cdn: '/x' lies nowhere"):
        explain("/x")

"""The status page in a real browser that runs no script of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from converter_app.tests.chromium import Browser, browser
from converter_app.tests.clients import Client, converted, give_up
from converter_app.tests.harness import TOKEN, DaemonProcess, daemon_in, wait_until
from PIL import Image
from tests.kit import pictures

from webp_converter.api.models import LatestWork
from webp_converter.queue.jobs import Overview
from webp_converter.variants.statistics import Totals


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has converted a few pictures and given up one."""
    with daemon_in(tmp_path_factory.mktemp("page_browser")) as daemon:
        (daemon.root / "iblock" / "1a2" / "450_450_1").mkdir(parents=True)
        for name in pictures.PHOTOGRAPHS[:4]:
            converted(daemon, f"iblock/1a2/450_450_1/{Path(name).stem}.jpg", pictures.jpeg(name))
        converted(daemon, "x" * 200 + ".jpg")  # there is nowhere to break the line
        give_up(daemon, Client(daemon), "y" * 200 + ".jpg")
        yield daemon


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as made:
        made.without_scripts()
        yield made


def number(chromium: Browser, name: str) -> int:
    return int(chromium.value(f"document.getElementById({json.dumps(name)}).value"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("width", "language"), [(1280, "en"), (360, "en"), (360, "ru")], ids=["desk", "phone", "Russian phone"]
)
def test_it_fits_and_shows_all_pictures(
    served: DaemonProcess, chromium: Browser, tmp_path: Path, width: int, language: str, dark: bool
) -> None:
    chromium.show(width, dark=dark)
    chromium.prefer(language)
    chromium.complaints.clear()
    chromium.open(f"http://127.0.0.1:{served.api_port}/")
    chromium.screenshot(tmp_path / "page.png")
    assert chromium.complaints == []
    assert chromium.value("document.documentElement.lang") == language
    assert chromium.value("document.documentElement.scrollWidth") == width
    beyond = """[...document.querySelectorAll('body *:not(.hidden)')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 99))"""
    assert chromium.value(beyond) == []
    assert chromium.value("document.images.length") == 10
    assert chromium.value("[...document.images].every(image => image.naturalWidth > 100)")
    # The style is in force, and so is the time of day.
    taken = Image.open(tmp_path / "page.png").convert("L")
    assert taken.width == width
    background = taken.getpixel((2, taken.height - 3))
    assert isinstance(background, int)
    assert background < 64 if dark else background > 192
    bars = "[...document.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect().height)"
    assert max(chromium.value(bars)) > 50


def test_values_and_retry(served: DaemonProcess, chromium: Browser) -> None:
    ask = Client(served)
    chromium.show(1280)
    chromium.prefer("en")
    chromium.open(f"http://127.0.0.1:{served.api_port}/")
    statistics = Totals.model_validate(ask("GET", "/api/statistics").json)
    assert number(chromium, "saved-bytes") == statistics.saved_bytes > 0
    assert number(chromium, "converted") == statistics.converted == 5
    assert number(chromium, "dead") == Overview.model_validate(ask("GET", "/api/queue").json).dead == 1
    shown = chromium.value("[...document.querySelectorAll('.cards > li')].map(card => card.id)")
    recent = LatestWork.model_validate(ask("GET", "/api/recent").json)
    assert shown == [f"conversion-{conversion.id}" for conversion in recent.conversions]

    [letter] = ask("GET", "/api/dead").json
    retry = f"#letter-{letter['id']} button"
    chromium.click(retry)
    chromium.wait_for("document.querySelector('#notice[role=alert]')")
    assert chromium.value("document.getElementById('notice').textContent") == "A token is needed."
    assert ask("GET", f"/api/dead/{letter['id']}").status == 200

    chromium.click("#token")
    chromium.type(TOKEN)
    chromium.click(retry)
    chromium.wait_for("document.querySelector('#notice[role=status]')")
    assert chromium.value("document.getElementById('notice').textContent") == "1 picture is tried again."
    assert chromium.value("location.pathname + location.search") == "/?done=retried&count=1"
    assert chromium.value("document.cookie") == ""  # scripts don't see it
    assert ask("GET", f"/api/dead/{letter['id']}").status == 404

    # It is given up once more; the browser needs no token now.
    wait_until(lambda: ask("GET", "/api/dead").json, timeout_s=30)
    chromium.open(f"http://127.0.0.1:{served.api_port}/")
    assert not chromium.value("document.querySelector('#token')")
    chromium.click(".all button")
    chromium.wait_for("document.getElementById('notice')")
    assert chromium.value("document.getElementById('notice').textContent") == "1 picture is tried again."

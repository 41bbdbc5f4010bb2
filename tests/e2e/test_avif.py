"""AVIF, which is an option: switched on by a deploy, and off again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.lab import state
from dev.lab.site import EXACT, PROPORTIONAL, Picture
from tests.e2e.browser import proxy, visit
from tests.kit.deployment import ROOT, pyinfra
from tests.kit.hosts import BROWSER, OLD_BROWSER, SHORT_LIVED, Cdn, Shop
from tests.kit.pictures import opened
from tests.kit.support import Figure, wait_until

MODERN = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.fixture
def before(shop: Shop, cdn: Cdn) -> list[Picture]:
    """Pictures that were decided while AVIF was off: resized ones and an original."""
    original = shop.upload()
    pictures = [shop.site.resize(original, *size) for size in ((450, 450, PROPORTIONAL), (120, 120, EXACT))]
    for picture in (*pictures, original):
        cdn.as_webp(picture)
    return [*pictures, original]


@pytest.fixture
def enabled(lab: state.Lab, before: list[Picture], tmp_path: Path) -> Iterator[str]:
    """The lab with AVIF, and as before again afterwards; its inventory."""
    inventory = tmp_path / "avif.py"
    text = (ROOT / "inventories/lab.py").read_text()
    changed = text.replace('"encoding": {', '"encoding": {"avif": True, ')
    assert changed.count('"avif"') == 1
    inventory.write_text(changed)
    try:
        run = pyinfra("-y", inventory=str(inventory), lab=lab.name)
        assert run.status == 0, run.output[-3000:]
        yield str(inventory)
    finally:
        back = pyinfra("-y", lab=lab.name)
    assert back.status == 0, back.output[-3000:]


def kind(cdn: Cdn, picture: Picture, accept: str = MODERN) -> str:
    return str(cdn.get(picture, accept).headers["Content-Type"])


_MARK = """
import os
path, = arguments
try:
    result = os.getxattr(path, "user.webp-converter").decode()
except OSError:
    result = ""
"""


def best(cdn: Cdn, picture: Picture) -> str:
    """The type that a browser with AVIF gets, once the decision is one with AVIF in mind: WebP, where AVIF
    would not have been smaller."""
    is_resized = picture.path.startswith("/upload/resize_cache/")
    variant = (cdn.settings.cdn.root if is_resized else cdn.settings.cdn.variants) + picture.path

    def mark() -> str:
        kind(cdn, picture)  # an original is looked at again when it is asked for
        return str(cdn.remote.python(_MARK, f"{variant}.webp"))

    wait_until(f"AVIF considered for {picture.path}", mark, lambda text: text.startswith("1a "), timeout=60)
    expected = "image/avif" if cdn.exist([f"{variant}.avif"]) else "image/webp"
    wait_until(f"{picture.path} as {expected}", lambda: kind(cdn, picture), lambda found: found == expected)
    return expected


@pytest.mark.long
def test_a_browser_gets_avif_where_it_is_switched_on(
    lab: state.Lab,
    shop: Shop,
    cdn: Cdn,
    before: list[Picture],
    enabled: str,
    tmp_path: Path,
    figure: Figure,
) -> None:
    assert pyinfra("--dry", "--json", inventory=enabled, lab=lab.name).planned() == {}
    *resized, original = before
    fresh = [shop.resized() for _ in range(3)]
    new = shop.upload()
    for picture in (*fresh, new):
        cdn.as_webp(picture)
    resized += fresh

    # What was decided without AVIF is found by a scan; an original when it is asked for.
    types = {picture: best(cdn, picture) for picture in (*resized, original, new)}
    with_avif = [picture for picture, found in types.items() if found == "image/avif"]
    assert set(with_avif) & set(resized)
    assert set(with_avif) & {original, new}

    for picture in with_avif:
        answers = {accept: cdn.get(picture, accept) for accept in (MODERN, BROWSER, OLD_BROWSER)}
        sizes = [len(answer.content) for answer in answers.values()]
        assert sizes == sorted(set(sizes))
        assert {answer.headers["Vary"] for answer in answers.values()} == {"Accept"}
        assert answers[MODERN].headers["X-Image-Variant"] == "avif"
        assert answers[MODERN].headers["Cache-Control"] == SHORT_LIVED
        assert opened(answers[MODERN].content).size == opened(answers[OLD_BROWSER].content).size
        assert kind(cdn, picture, "image/avif;q=0, image/webp") == "image/webp"
        assert kind(cdn, picture, "image/avif;q=0, image/webp;q=0") == "image/jpeg"

    with proxy() as seen:
        visit(f"http://{shop.bitrix.address}/", seen, tmp_path / "avif.png")
    loaded = seen.pictures()
    assert [loaded[picture.url_path].type for picture in resized] == [types[picture] for picture in resized]
    as_webp = sum(len(cdn.get(picture, BROWSER).content) for picture in resized)
    as_avif_too = sum(loaded[picture.url_path].bytes for picture in resized)
    assert as_avif_too < as_webp
    figure(f"Chromium, {len(resized)} pictures: {as_webp:,} bytes as WebP, {as_avif_too:,} with AVIF")


def test_and_webp_where_it_is_switched_off_again(cdn: Cdn, before: list[Picture]) -> None:
    assert {kind(cdn, picture) for picture in before} == {"image/webp"}

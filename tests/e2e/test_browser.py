"""What a real browser gets of a real page."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.lab.site import EXACT, PROPORTIONAL
from tests.e2e.browser import proxy, visit
from tests.kit.hosts import OLD_BROWSER, Cdn, Shop
from tests.kit.pictures import opened
from tests.kit.support import Figure


@pytest.fixture
def gallery(shop: Shop, cdn: Cdn) -> list[str]:
    """The paths of pictures that the site's page shows, all of them decided."""
    paths = []
    for _ in range(3):
        original = shop.upload()
        for size in ((450, 450, PROPORTIONAL), (120, 120, EXACT)):
            picture = shop.site.resize(original, *size)
            cdn.as_webp(picture)
            paths.append(picture.url_path)
    return paths


@pytest.mark.both
def test_chromium_gets_webp_and_fewer_bytes(
    shop: Shop, cdn: Cdn, gallery: list[str], tmp_path: Path, figure: Figure
) -> None:
    page = f"http://{shop.bitrix.address}/"
    with proxy() as seen:
        visit(page, seen, tmp_path / "webp.png")
    with proxy(accept=OLD_BROWSER) as old:
        visit(page, old, tmp_path / "originals.png")
    modern, before = seen.pictures(), old.pictures()

    for path in gallery:
        assert "image/webp" in modern[path].accept
        assert modern[path].type == "image/webp"
        assert before[path].type == "image/jpeg"
    bytes_before = sum(before[path].bytes for path in gallery)
    bytes_after = sum(modern[path].bytes for path in gallery)
    assert bytes_after < 0.76 * bytes_before
    # It shows them: the page is not just background.
    assert len(opened((tmp_path / "webp.png").read_bytes()).convert("RGB").getcolors(1 << 24) or []) > 1000
    figure(
        f"Chromium, {len(gallery)} pictures of the page: {bytes_before:,} bytes as they were, "
        f"{bytes_after:,} as WebP ({1 - bytes_after / bytes_before:.1%} less)"
    )

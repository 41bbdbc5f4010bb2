"""Originals over HTTP: deadlines, absence, and what is compared."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from converter_app.tests.harness import wait_until
from converter_app.tests.site import MTIME_NS, Site
from converter_app.tests.stores import concluded
from tests.kit import pictures

from webp_converter.config import Config
from webp_converter.variants.originals import Head, Origin, Originals, OriginAwayError
from webp_converter.variants.store import AVIF, KEEP, WEBP, XATTR, DecisionState, Mark, Result
from webp_converter.work.worker import Order, converting, improving


@pytest.fixture
def originals(site: Site, tmp_path: Path) -> Originals:
    made = Originals(configured(site, tmp_path), b"/anywhere/this-run")
    made.prepare()
    return made


def configured(site: Site, tmp_path: Path, avif: bool = False) -> Config:
    variants, temporary = tmp_path / "variants", tmp_path / "temporary"
    variants.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    return Config.model_validate(
        {
            "encoding": {"avif": avif},
            "originals": {
                "variants": str(variants),
                "temporary": str(temporary),
                "url": site.url,
                "purge_url": site.url,
                "deadline_s": 0.5,
            },
            "store": {"owner": "root", "group": "root"} if os.geteuid() == 0 else {},
        }
    )


def decide(originals: Originals, name: str, mark: Mark | None) -> tuple[bytes, Path]:
    """Puts a verdict there, with the mark or without; the original's path, and the verdict's."""
    path = originals.root + b"/" + name.encode()
    verdict = Path(os.fsdecode(path + KEEP))
    verdict.parent.mkdir(parents=True, exist_ok=True)
    verdict.touch()
    if mark:
        os.setxattr(verdict, XATTR, mark.pack())
    return path, verdict


def test_an_original_with_its_size_and_time(site: Site) -> None:
    site.files["/original/upload/a%20b.jpg"] = b"data"
    origin = Origin(site.url, 1)
    assert origin.head(b"a b.jpg") == Head(4, MTIME_NS)
    assert origin.get(b"a b.jpg", 100) == (Head(4, MTIME_NS), b"data")
    assert origin.get(b"a b.jpg", 3) == (Head(4, MTIME_NS), b"")
    assert origin.get(b"missing.jpg", 100) is None


@pytest.mark.parametrize("status", [403, 500, 503])
def test_only_404_means_that_it_is_gone(site: Site, status: int) -> None:
    site.status = status
    with pytest.raises(OriginAwayError):
        Origin(site.url, 1).head(b"a.jpg")


def test_a_fetch_ends_at_its_deadline(site: Site) -> None:
    site.files["/original/upload/a.jpg"] = b"data"
    site.pause_s = 3
    started = time.monotonic()
    with pytest.raises(OriginAwayError):
        Origin(site.url, 0.3).get(b"a.jpg", 100)
    assert time.monotonic() - started < 2


def test_while_the_origin_is_away_nothing_is_removed(site: Site, originals: Originals) -> None:
    path, verdict = decide(originals, "iblock/a.jpg", Mark(1, 1, "no-saving"))
    site.status = 503
    with pytest.raises(OriginAwayError):
        originals.revalidate(path)
    assert verdict.exists()


def test_what_still_describes_the_original_stays(site: Site, originals: Originals) -> None:
    site.files["/original/upload/iblock/a.jpg"] = b"data"
    path, verdict = decide(originals, "iblock/a.jpg", Mark(4, MTIME_NS, "no-saving"))
    assert originals.revalidate(path) is False
    assert verdict.exists()
    assert site.purged == []


def test_what_is_asked_for_counts_as_read(site: Site, originals: Originals) -> None:
    """A verdict's bytes are never read, and Varnish may have the variant's; eviction goes by that time."""
    site.files["/original/upload/iblock/a.jpg"] = b"data"
    path, verdict = decide(originals, "iblock/a.jpg", Mark(4, MTIME_NS, "no-saving"))
    os.utime(verdict, ns=(5, 7))
    originals.revalidate(path)
    assert verdict.stat().st_atime_ns > MTIME_NS // 2
    assert verdict.stat().st_mtime_ns == 7


@pytest.mark.parametrize("mark", [Mark(5, MTIME_NS, "q75"), Mark(4, MTIME_NS + 1_000_000_000, "q75")])
def test_what_was_made_of_another_content_goes(site: Site, originals: Originals, mark: Mark) -> None:
    site.files["/original/upload/iblock/a.jpg"] = b"data"
    path, verdict = decide(originals, "iblock/a.jpg", mark)
    assert originals.revalidate(path) is True
    assert not verdict.exists()
    assert site.purged == ["/upload/iblock/a.jpg"]


def test_of_an_original_that_is_gone_nothing_is_left(site: Site, originals: Originals) -> None:
    path, verdict = decide(originals, "iblock/1a2/a.jpg", Mark(4, MTIME_NS, "no-saving"))
    assert originals.revalidate(path) is False
    assert not verdict.parent.exists()
    assert Path(os.fsdecode(originals.root)).exists()


def test_what_is_not_ours_is_left_alone(site: Site, originals: Originals) -> None:
    path, verdict = decide(originals, "iblock/a.jpg", None)
    assert originals.revalidate(path) is False
    assert verdict.exists()


def test_avif_and_the_second_pass(site: Site, tmp_path: Path) -> None:
    """Decided without AVIF, then with it, then made smaller: each time the cache in front is told."""
    site.files["/original/upload/iblock/a.jpg"] = pictures.jpeg()
    without, wanted = configured(site, tmp_path), configured(site, tmp_path, avif=True)
    originals, wanting = Originals(without, b"/anywhere/one"), Originals(wanted, b"/anywhere/two")
    path = originals.root + b"/iblock/a.jpg"
    webp, avif = Path(os.fsdecode(path + WEBP)), Path(os.fsdecode(path + AVIF))
    for store in (originals, wanting):
        store.prepare()

    first = concluded(converting(without, originals, Order(path, 0)), without.encoding)
    assert first.finished
    assert originals.publish([first.finished]) == [Result.PUBLISHED]
    assert webp.exists()
    assert originals.revalidate(path) is False
    assert wanting.decision_state_of(path) is DecisionState.UNDECIDED
    assert wanting.revalidate(path) is True
    assert webp.exists()

    second = concluded(converting(wanted, wanting, Order(path, 0)), wanted.encoding)
    assert second.finished
    assert wanting.publish([second.finished]) == [Result.PUBLISHED]
    assert avif.stat().st_size == second.avif_bytes < webp.stat().st_size
    assert avif.stat().st_mtime_ns == webp.stat().st_mtime_ns == MTIME_NS
    assert wanting.revalidate(path) is False

    smaller = concluded(improving(wanted, wanting, Order(path, 0, second=True)), wanted.encoding)
    assert smaller.finished
    assert wanting.publish([smaller.finished]) == [Result.PUBLISHED]
    assert webp.stat().st_size == smaller.variant_bytes < second.variant_bytes
    assert avif.exists()
    assert site.purged == ["/upload/iblock/a.jpg"] * 3

    del site.files["/original/upload/iblock/a.jpg"]
    assert wanting.revalidate(path) is False
    assert not avif.exists()
    assert not webp.exists()


@pytest.mark.parametrize(("cut", "verdict"), [(slice(None), "q"), (slice(20_000), "damaged")])
def test_an_original_in_a_directory_named_like_a_size_is_nobodys_to_make_again(
    site: Site, tmp_path: Path, cut: slice, verdict: str
) -> None:
    config = configured(site, tmp_path)
    originals = Originals(config, b"/anywhere/one")
    originals.prepare()
    site.files["/original/upload/iblock/100_100_1/a.jpg"] = pictures.jpeg()[cut]
    order = Order(originals.root + b"/iblock/100_100_1/a.jpg", 0)
    report = concluded(converting(config, originals, order), config.encoding)
    assert report.finished
    assert report.finished.mark.verdict.startswith(verdict)


def test_what_was_being_fetched_is_purged_later_if_it_is_pending(site: Site, originals: Originals) -> None:
    path, verdict = decide(originals, "a.jpg", Mark(4, MTIME_NS, "no-saving"))
    originals.revalidate(path)
    assert not verdict.exists()
    wait_until(lambda: len(site.purged_pending) == 2)
    classes = ("image/webp", "image/avif,image/webp")
    assert site.purged_pending == [("/upload/a.jpg", accept) for accept in classes]
    assert site.purged == ["/upload/a.jpg"]

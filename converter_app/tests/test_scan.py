from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from converter_app.tests.stores import finished, finished_with_avif, make_store, original, variant

from webp_converter.events.scan import Tally, scan
from webp_converter.variants.store import AVIF, KEEP, WEBP, Mark, Store

EXTENSIONS = frozenset({"jpg"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


def undecided(store: Store, tally: Tally | None = None, shares: int = 1, avif: bool = False) -> list[str]:
    found: list[bytes] = []
    for share in range(shares):
        found += scan(store.root, EXTENSIONS, tally or Tally(), share, shares, avif)
    return sorted(os.fsdecode(path[len(store.root) + 1 :]) for path in found)


def test_missing_stale_and_decided(store: Store) -> None:
    decided = original(store, "a/decided.jpg")
    kept = original(store, "a/kept.jpg")
    stale = original(store, "a/stale.jpg")
    foreign = original(store, "a/foreign.jpg")
    original(store, "a/missing.jpg")
    original(store, "a/document.txt")
    for path in (decided, stale):
        store.publish([finished(store, path)])
    store.publish([finished(store, kept, b"", KEEP)])
    stale.write_bytes(b"rewritten")
    variant(foreign).write_bytes(b"theirs")
    tally = Tally()
    assert undecided(store, tally) == ["a/missing.jpg", "a/stale.jpg"]
    assert not variant(stale).exists()
    assert variant(decided).exists()
    assert variant(foreign).exists()
    assert (tally.originals, tally.removed) == (5, 1)


@pytest.mark.parametrize("size", [0, 8, 200, 2000])
@pytest.mark.parametrize("suffix", [WEBP, KEEP])
def test_another_size_under_the_same_time_is_another_content(store: Store, size: int, suffix: bytes) -> None:
    """As a power loss leaves it, or whoever copies files with their times while the daemon is away."""
    path = original(store, "a/photo.jpg", b"o" * 1000)
    store.publish([finished(store, path, b"v" * 100 if suffix == WEBP else b"", suffix)])
    assert undecided(store) == []
    mtime_ns = path.stat().st_mtime_ns
    time.sleep(0.02)  # until the kernel's clock of change times goes on
    os.truncate(path, size)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    assert undecided(store) == ["a/photo.jpg"]
    assert not variant(path, suffix).exists()


@pytest.mark.parametrize("size", [0, 90])
def test_what_lost_its_bytes_though_nobody_touched_it_is_another_content(store: Store, size: int) -> None:
    """After a power loss the file's change time is that of the write whose bytes were lost."""
    path = original(store, "a/photo.jpg", b"o" * 1000)
    store.publish([finished(store, path, b"v" * 100)])
    mtime_ns = path.stat().st_mtime_ns
    os.truncate(path, size)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    variant(path).chmod(0o644)  # the variant's change time is the later one again
    assert variant(path).stat().st_ctime_ns >= path.stat().st_ctime_ns
    assert undecided(store) == ["a/photo.jpg"]


def test_webp_originals_and_what_only_looks_like_one(store: Store) -> None:
    """A variant of somebody else's is no original, not even where its own original is missing."""
    decided = original(store, "decided.webp")
    store.publish([finished(store, decided)])
    original(store, "photo.jpg.webp")
    original(store, "missing.webp")
    tally = Tally()
    found = sorted(scan(store.root, frozenset({"jpg", "webp"}), tally))
    assert [os.path.basename(path) for path in found] == [b"missing.webp"]
    assert tally.originals == 2
    decided.unlink()
    list(scan(store.root, frozenset({"jpg", "webp"}), Tally()))
    assert sorted(path.name for path in decided.parent.iterdir()) == ["missing.webp", "photo.jpg.webp"]


def test_names_without_room_for_a_suffix_are_told_and_not_queued(store: Store) -> None:
    fits = original(store, "a" * 246 + ".jpg")
    too_long = original(store, "\u0444" * 124 + ".jpg")
    tally = Tally()
    assert undecided(store, tally) == [fits.name]
    assert tally.too_long == [os.fsencode(too_long)]
    assert tally.originals == 2


def test_orphans_of_ours_go(store: Store) -> None:
    ours, theirs = original(store, "ours.jpg"), original(store, "theirs.jpg")
    store.publish([finished(store, ours)])
    variant(theirs).write_bytes(b"theirs")
    ours.unlink()
    theirs.unlink()
    assert undecided(store) == []
    assert [path.name for path in ours.parent.iterdir()] == ["theirs.jpg.webp"]


def test_a_variant_and_a_verdict_at_once(store: Store) -> None:
    path = original(store)
    store.publish([finished(store, path)])
    mark = os.getxattr(variant(path), "user.webp-converter")
    variant(path, KEEP).touch()
    os.setxattr(variant(path, KEEP), "user.webp-converter", mark)
    assert undecided(store) == []
    assert not variant(path, KEEP).exists()


def test_avif_once_it_is_wanted(store: Store) -> None:
    """Decided without it, with it, with it in vain, with it and stale, by somebody else."""
    names = ("without", "with", "in-vain", "stale", "foreign", "kept")
    paths = {name: original(store, f"a/{name}.jpg") for name in names}
    store.publish([finished(store, paths["without"])])
    store.publish([finished_with_avif(store, paths["with"]), finished_with_avif(store, paths["stale"])])
    store.publish([finished_with_avif(store, paths["in-vain"], avif=None)])
    store.publish([finished_with_avif(store, paths["kept"], b"", KEEP)])
    variant(paths["foreign"]).write_bytes(b"theirs")
    paths["stale"].write_bytes(b"rewritten")
    assert undecided(store) == ["a/stale.jpg"]
    assert not variant(paths["stale"], AVIF).exists()
    assert undecided(store, avif=True) == ["a/stale.jpg", "a/without.jpg"]
    store.publish([finished_with_avif(store, paths["without"]), finished_with_avif(store, paths["stale"])])
    assert undecided(store, avif=True) == []
    for path in paths.values():
        path.unlink()
    assert undecided(store) == []
    assert [path.name for path in paths["with"].parent.iterdir()] == ["foreign.jpg.webp"]


def test_without_avif_no_mark_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        store.publish([finished_with_avif(store, original(store, f"{name}.jpg"))])
    store.publish([finished(store, original(store, "three.jpg"))])
    monkeypatch.setattr("webp_converter.events.scan.read_mark", None)
    assert undecided(store) == []


def test_an_avif_variant_alone_or_of_another_content(store: Store) -> None:
    alone, other = original(store, "alone.jpg"), original(store, "other.jpg")
    store.publish([finished_with_avif(store, alone), finished_with_avif(store, other)])
    variant(alone).unlink()
    mark = Mark(1, 2, "q60", avif=True)
    os.setxattr(variant(other, AVIF), "user.webp-converter", mark.pack())
    os.utime(variant(other, AVIF), ns=(2, 2))
    assert undecided(store, avif=True) == ["alone.jpg"]
    assert variant(alone, AVIF).exists()
    assert not variant(other, AVIF).exists()


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_shares_cover_everything_once(store: Store, shares: int) -> None:
    names = [f"iblock/{k:03x}/450_450_1/{k}.jpg" for k in range(50)]
    names += ["x.jpg", "a/x.jpg", "iblock/00a/x.jpg"]
    for name in names:
        original(store, name)
    assert undecided(store, shares=shares) == sorted(names)


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").touch()
    Path(os.fsdecode(store.root), "link").symlink_to(outside)
    assert undecided(store) == []


def test_names_that_are_not_text(store: Store) -> None:
    original(store, "\udcff\n/\udcfe.JPG")
    assert undecided(store) == ["\udcff\n/\udcfe.JPG"]


def test_no_root(tmp_path: Path) -> None:
    assert list(scan(os.fsencode(tmp_path / "absent"), EXTENSIONS, Tally())) == []

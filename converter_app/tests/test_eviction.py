"""Eviction on real files, with access times that are made up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from converter_app.tests.harness import DAY_NS, needs_root, read_days_ago, wait_until
from hypothesis import given
from hypothesis import strategies as st

from webp_converter.config import Config
from webp_converter.events.scan import Tally, scan
from webp_converter.variants import eviction
from webp_converter.variants.eviction import Eviction, Space, Why, age_class, cut, evict
from webp_converter.variants.store import (
    EVICTED,
    KEEP,
    WEBP,
    XATTR,
    Finished,
    Identity,
    Mark,
    Store,
    Temporary,
    is_evicted,
)

DATA = b"v" * 5000


class Place:
    """Both trees, with files of ours in them."""

    def __init__(self, directory: Path, **store: object) -> None:
        (directory / "cdn").mkdir(parents=True)
        (directory / "variants").mkdir()
        owner = {"owner": "root", "group": "root"} if os.geteuid() == 0 else {}
        self.config = Config.model_validate(
            {
                "store": {
                    "root": str(directory / "cdn"),
                    "temporary": str(directory / "temporary"),
                    "high_water": 1,
                    "directory_rest_s": 0,
                    **owner,
                    **store,
                },
                "originals": {
                    "variants": str(directory / "variants"),
                    "temporary": str(directory / "temporary2"),
                },
            }
        )
        self.store = Store(self.config, Temporary(self.config.store.temporary).path)

    def resized(
        self, name: str, days: float, suffixes: tuple[bytes, ...] = (WEBP,), data: bytes = DATA
    ) -> Path:
        """An original of `resize_cache`, its variants not read for so many days."""
        path = self.config.store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"original")
        for suffix in suffixes:
            status = path.stat()
            identity = Identity.of(status)
            mark = Mark(identity.size, identity.mtime_ns, "q75")
            temporary = self.store.write(data, identity.mtime_ns)
            self.store.publish([Finished(os.fsencode(path), identity, mark, 0, temporary, suffix)])
            read_days_ago(variant(path, suffix), days)
        return path

    def original(self, name: str, days: float, suffix: bytes = WEBP) -> Path:
        """A variant in the tree of the mounted originals."""
        path = variant(self.config.originals.variants / name, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)
        os.setxattr(path, XATTR, Mark(1, 1, "q75").pack())
        read_days_ago(path, days)
        return path

    def undecided(self) -> list[str]:
        """What the scan finds, without what it leaves alone."""
        root = os.fsencode(self.config.store.root)
        found = scan(root, frozenset({"jpg"}), Tally())
        return sorted(os.fsdecode(path[len(root) + 1 :]) for path in found if not is_evicted(path))


def variant(path: Path, suffix: bytes = WEBP) -> Path:
    return Path(str(path) + suffix.decode())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_nobody_read_goes_and_the_scan_leaves_it_at_that(place: Place) -> None:
    old, young = place.resized("a/old.jpg", 31), place.resized("a/young.jpg", 29)
    before = old.stat()
    done = evict(place.config)
    assert not variant(old).exists()
    assert variant(young).exists()
    assert done.evicted[Why.AGE].files == 1
    assert done.evicted[Why.AGE].bytes >= len(DATA)
    assert done.evicted[Why.SPACE].files == 0
    assert (old.read_bytes(), old.stat().st_mtime_ns) == (b"original", before.st_mtime_ns)
    assert place.undecided() == []


def test_a_rewritten_original_is_a_new_one(place: Place) -> None:
    path = place.resized("old.jpg", 31)
    evict(place.config)
    path.write_bytes(b"other")
    assert place.undecided() == ["old.jpg"]


def test_what_comes_back_forgets_that_it_was_gone(place: Place) -> None:
    path = place.resized("old.jpg", 31)
    evict(place.config)
    assert is_evicted(os.fsencode(path))
    identity = Identity.of(path.stat())
    temporary = place.store.write(DATA, identity.mtime_ns)
    mark = Mark(identity.size, identity.mtime_ns, "q75")
    place.store.publish([Finished(os.fsencode(path), identity, mark, 0, temporary, WEBP)])
    assert EVICTED not in os.listxattr(path)
    variant(path).unlink()
    assert place.undecided() == ["old.jpg"]


def test_zero_days_means_never(tmp_path: Path) -> None:
    place = Place(tmp_path, evict_after_days=0)
    path = place.resized("old.jpg", 3000)
    assert evict(place.config).pictures == 0
    assert variant(path).exists()


def test_variants_of_an_original_go_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest read of any counts."""
    other = b".other"
    monkeypatch.setattr(eviction, "SUFFIXES", (WEBP, other, KEEP))
    kept, gone = place.resized("kept.jpg", 40, (WEBP,)), place.resized("gone.jpg", 40, (WEBP,))
    for path, days in ((kept, 5), (gone, 35)):
        variant(path, other).write_bytes(DATA)
        os.setxattr(variant(path, other), XATTR, os.getxattr(variant(path), XATTR))
        read_days_ago(variant(path, other), days)
    done = evict(place.config)
    assert done.evicted[Why.AGE].files == 2
    assert variant(kept).exists()
    assert variant(kept, other).exists()
    assert not variant(gone).exists()
    assert not variant(gone, other).exists()


def test_verdicts_stay_where_a_scan_would_ask_again(place: Place) -> None:
    kept = place.resized("kept.jpg", 400, (KEEP,), b"")
    verdict = place.original("iblock/kept.jpg", 400, KEEP)
    evict(place.config)
    assert variant(kept, KEEP).exists()
    assert EVICTED not in os.listxattr(kept)
    assert not verdict.exists()


def test_only_what_is_ours_goes(place: Place) -> None:
    path = place.resized("theirs.jpg", 0)
    os.removexattr(variant(path), XATTR)
    read_days_ago(variant(path), 400)
    orphan = place.resized("orphan.jpg", 400)
    orphan.unlink()
    original = place.resized("original.jpg", 1)
    read_days_ago(original, 400)
    outside = place.config.store.root.parent / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(b"x")
    (outside / "x.jpg.webp").write_bytes(b"x")
    os.setxattr(outside / "x.jpg.webp", XATTR, Mark(1, 1, "q75").pack())
    read_days_ago(outside / "x.jpg.webp", 400)
    (place.config.store.root / "link").symlink_to(outside)
    assert evict(place.config).evicted[Why.AGE].files == 0
    for left in (path, variant(path), variant(orphan), original, outside / "x.jpg.webp"):
        assert left.exists()


def test_what_is_stale_is_the_scan_s(place: Place) -> None:
    """A note about content that was never converted would hide it from the scan."""
    path = place.resized("rewritten.jpg", 400)
    path.write_bytes(b"another original")
    evict(place.config)
    assert place.undecided() == ["rewritten.jpg"]
    assert not variant(path).exists()


def test_directories_of_originals_that_became_empty_go(place: Place) -> None:
    gone = place.original("iblock/1a2/gone.jpg", 31)
    stays = place.original("iblock/3b4/stays.jpg", 1)
    for _ in range(2):
        evict(place.config)
    assert not gone.parent.exists()
    assert stays.exists()
    assert place.config.originals.variants.exists()


def test_a_directory_just_made_is_left_to_who_made_it(tmp_path: Path) -> None:
    place = Place(tmp_path, directory_rest_s=60)
    made = place.config.originals.variants / "iblock"
    made.mkdir()
    evict(place.config)
    assert made.exists()
    os.utime(made, (0, 0))
    evict(place.config)
    assert not made.exists()


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, high_water=0.0001, low_water=0.0001)
    old, young = place.resized("old.jpg", 31), place.resized("young.jpg", 1)
    done = evict(place.config, dry_run=True)
    assert (done.evicted[Why.AGE].files, done.evicted[Why.SPACE].files) == (1, 1)
    assert variant(old).exists()
    assert variant(young).exists()
    assert EVICTED not in os.listxattr(old)


def test_a_reader_at_the_last_moment_saves_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.resized("old.jpg", 31)
    note = eviction.note_eviction

    def read_meanwhile(original: int, status: os.stat_result) -> None:
        note(original, status)
        read_days_ago(variant(path), 0)

    monkeypatch.setattr(eviction, "note_eviction", read_meanwhile)
    assert evict(place.config).evicted[Why.AGE].files == 0
    assert variant(path).exists()
    assert EVICTED not in os.listxattr(path)


def test_an_original_that_can_t_bear_the_note_keeps_its_variants(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.resized("old.jpg", 31)

    def refuse(original: int, status: os.stat_result) -> None:
        raise PermissionError

    monkeypatch.setattr(eviction, "note_eviction", refuse)
    done = evict(place.config)
    assert (done.refused, done.evicted[Why.AGE].files) == (1, 0)
    assert variant(path).exists()


@pytest.mark.parametrize("count", [10, 300, 3000])
def test_memory_does_not_grow_with_the_tree(place: Place, count: int) -> None:
    for k in range(count):
        path = place.original(f"iblock/{k % 100:03x}/{k}.jpg", 31 + k % 300)
        assert path.exists()
    tracemalloc.start()
    try:
        done = evict(place.config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.pictures, done.evicted[Why.AGE].files) == (count, count)
    assert peak < 1_000_000


@pytest.mark.parametrize("after", [0, 3, 40])
def test_killed_at_any_moment(place: Place, after: int) -> None:
    """Whatever is missing then bears the note; the rest is as it was, and goes with the next run."""
    paths = [place.resized(f"{k:02x}/{k}.jpg", 31) for k in range(60)]
    process = multiprocessing.get_context("fork").Process(target=_killed_after, args=(place.config, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    gone = [path for path in paths if not variant(path).exists()]
    assert len(gone) == after
    assert all(is_evicted(os.fsencode(path)) for path in gone)
    assert place.undecided() == []
    assert evict(place.config).evicted[Why.AGE].files == 60 - after
    assert place.undecided() == []


def _killed_after(config: Config, unlinks: int) -> None:
    """Evicts, and is killed between a note and the unlink that follows."""
    unlink, left = os.unlink, unlinks

    def die_or_unlink(path: bytes, *, dir_fd: int) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        unlink(path, dir_fd=dir_fd)

    os.unlink = die_or_unlink  # type: ignore[assignment]
    evict(config)


def test_a_racing_reader_sees_whole_variants_or_none(place: Place) -> None:
    paths = [place.resized(f"{k:02x}/{k}.jpg", 31) for k in range(300)]
    stop = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            for path in paths:
                try:
                    data = variant(path).read_bytes()
                except FileNotFoundError:
                    continue
                if data != DATA:
                    seen.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        evict(place.config)
    finally:
        stop.set()
        reader.join()
    assert seen == []
    # What is gone bears the note, what was read in time is still there.
    for path in paths:
        assert variant(path).exists() or is_evicted(os.fsencode(path))
    assert place.undecided() == []


class TestCut:
    @given(st.dictionaries(st.integers(0, 50), st.integers(1, 1000)), st.integers(-5, 60_000))
    def test_takes_the_oldest_and_no_more_than_needed(self, histogram: dict[int, int], needed: int) -> None:
        chosen = cut(histogram, needed)
        if needed <= 0:
            assert chosen is None
            return
        assert chosen is not None
        older = sum(size for age, size in histogram.items() if age > chosen.limit)
        assert older + chosen.partly + chosen.missing == needed
        assert chosen.partly <= histogram.get(chosen.limit, 0)
        if chosen.missing:
            assert older == sum(histogram.values())

    @given(st.integers(0, 10**18), st.integers(0, 10**18))
    def test_classes_keep_the_order(self, one: int, other: int) -> None:
        assert (one <= other) <= (age_class(one) <= age_class(other))

    def test_there_are_few_classes(self) -> None:
        assert age_class(200 * 365 * DAY_NS) < 12_000
        assert age_class(-5) == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,relatime", "webp-converter-test", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"can't mount: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@needs_root
class TestSpace:
    def test_the_least_recently_read_go_down_to_the_low_water_mark(self, small: Path) -> None:
        place = Place(small, high_water=0.6, low_water=0.4, evict_after_days=0)
        paths = [place.resized(f"{k % 7}/{k}.jpg", 1 + k / 10, data=b"v" * 100_000) for k in range(40)]
        originals = [place.original(f"{k}.jpg", 1 + k / 10 + 0.05) for k in range(40)]
        filler = small / "filler"
        filler.write_bytes(b"f" * 1_200_000)
        assert Space.of(small).share > 0.6
        done = evict(place.config)
        assert 0.37 < Space.of(small).share <= 0.4
        assert (done.missing_bytes, done.evicted[Why.AGE].files) == (0, 0)
        there = [variant(path).exists() for path in paths]
        left = sum(there)
        # The younger ones, all of them and no others; of the class at the border some.
        assert there == [True] * left + [False] * (40 - left)
        assert 0 < left < 40
        assert abs(sum(path.exists() for path in originals) - left) <= 1
        assert all(path.exists() for path in paths)
        assert place.undecided() == []

    def test_below_the_mark_nothing_goes(self, small: Path) -> None:
        place = Place(small, high_water=0.9, low_water=0.1, evict_after_days=0)
        path = place.resized("a.jpg", 3000)
        assert evict(place.config) == Eviction(seconds=pytest.approx(0, abs=60))
        assert variant(path).exists()

    def test_when_nothing_of_ours_is_left_it_says_so(self, small: Path) -> None:
        place = Place(small, high_water=0.5, low_water=0.4)
        path = place.resized("a.jpg", 1)
        (small / "filler").write_bytes(b"f" * 6_000_000)
        done = evict(place.config)
        assert not variant(path).exists()
        assert done.missing_bytes > 1_000_000

    def test_age_counts_towards_what_has_to_be_freed(self, small: Path) -> None:
        place = Place(small, high_water=0.5, low_water=0.4)
        old = place.resized("old.jpg", 31, data=b"v" * 3_000_000)
        young = place.resized("young.jpg", 1, data=b"v" * 2_000_000)
        done = evict(place.config)
        assert (done.evicted[Why.AGE].files, done.evicted[Why.SPACE].files) == (1, 0)
        assert not variant(old).exists()
        assert variant(young).exists()


def test_relatime_notes_the_first_reader(place: Place) -> None:
    """What the rules rest on: published with the access time of that moment, and updated by a reader."""
    path = place.resized("a.jpg", 0)
    read_days_ago(variant(path), 31)
    variant(path).read_bytes()
    wait_until(lambda: evict(place.config).evicted[Why.AGE].files == 0)
    assert variant(path).exists()

"""What the oracle holds for right and for wrong, of made up histories."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.kit import pictures
from tests.oracle.disk import lose
from tests.oracle.history import Decision, Health, History, Lying, Seen, lost, misjudged, served_wrong
from tests.oracle.schedules import FAULTS, schedule
from tests.oracle.versions import picture, version_of

A, B = "a.jpg", "b.jpg"
GRACE_S = 2.0


def written(path: str = A, version: int = 1, at: float = 1, history: History | None = None) -> History:
    history = history or History()
    history.begin(path, version, 100 + version, at)
    history.acknowledge(path, at + 0.1)
    return history


def health(*spans: tuple[float, float]) -> Health:
    found = Health()
    for begin, end in spans or [(0, math.inf)]:
        found.up(begin)
        if end < math.inf:
            found.down(end)
    return found


def seen(version: int | None, begin: float, *, variant: bool = True, path: str = A) -> Seen:
    return Seen(path, begin, begin + 0.01, variant, version, 50)


def wrong(history: History, one: Seen, *spans: tuple[float, float]) -> list[str]:
    return served_wrong(history, health(*spans), [one], GRACE_S)


# What lies there


def test_what_was_acknowledged_is_there() -> None:
    history = written(B, 2, 3, written())
    assert not lost(history, {A: Lying(1, 101), B: Lying(2, 102)})
    assert lost(history, {A: Lying(1, 101)}) == ["b.jpg: version 2 was acknowledged and is lost"]
    assert "instead of [1]" in lost(history, {A: Lying(2, 102), B: Lying(2, 102)})[0]
    assert "bytes of 101" in lost(history, {A: Lying(1, 60), B: Lying(2, 102)})[0]
    assert "are no picture" in lost(history, {A: Lying(None, 60), B: Lying(2, 102)})[0]


def test_what_was_removed_or_moved_stays_so() -> None:
    history = written()
    history.move(A, B, 2, 2.1)
    assert not lost(history, {B: Lying(1, 101)})
    assert "is back" in lost(history, {A: Lying(1, 101), B: Lying(1, 101)})[0]
    history.remove(B, 3)
    assert not lost(history, {})


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    history = written()
    history.begin(A, 2, 102, 2)
    for there in (Lying(1, 101), Lying(2, 102), Lying(None, 7)):
        assert not lost(history, {A: there})
    assert lost(history, {A: Lying(3, 103)})
    only = History()
    only.begin(A, 2, 102, 2)
    assert not lost(only, {})


def test_a_decision_is_about_the_picture_beside_it() -> None:
    tree = {A: Lying(1, 101)}
    good = Decision(A, f"{A}.webp", True, 1)
    assert not misjudged(tree, [good])
    assert not misjudged(tree, [Decision(A, f"{A}.keep", True, None, variant=False)])
    assert not misjudged(tree, [good, good._replace(name=f"{A}.avif", decides=False)])
    for others, words in (
        ([], "0 decisions"),
        ([good, good], "2 decisions"),
        ([good._replace(described=False)], "another original"),
        ([good._replace(version=2)], "made from version 2"),
        ([good._replace(version=None)], "no whole picture"),
        ([good, good._replace(original=B)], "original is gone"),
    ):
        assert any(words in line for line in misjudged(tree, others)), words


def test_what_a_power_loss_makes_doubtful_is_there_or_not() -> None:
    history = written(B, 2, 3, written())
    assert history.doubt(2) == [(B, 2)]
    for there in ({}, {B: Lying(2, 102)}, {B: Lying(None, 0)}):
        assert not lost(history, {A: Lying(1, 101), **there})
    assert lost(history, {B: Lying(2, 102)})


def test_only_what_nobody_synced_is_lost(tmp_path: Path) -> None:
    synced, unsynced, original = (tmp_path / name for name in ("a.jpg.webp", "b.jpg.avif", "b.jpg"))
    for path in (synced, unsynced, original):
        path.write_bytes(b"data")
    status = synced.stat()
    noted = tmp_path / "noted"
    noted.write_text(f"{status.st_ino} {status.st_size} {status.st_mtime_ns}\n")
    before = unsynced.stat().st_mtime_ns
    assert lose(tmp_path, noted) == [unsynced]
    assert (unsynced.stat().st_size, unsynced.stat().st_mtime_ns) == (0, before)
    assert synced.read_bytes() == original.read_bytes() == b"data"


# What visitors got


@pytest.mark.parametrize(
    ("version", "begin", "words"),
    [
        (1, 1.5, ""),
        (1, 0.5, "never there"),
        (2, 1.5, "never there"),
        (2, 3.5, ""),
        (1, 4.9, ""),
        (1, 5.2, "due to be gone"),
        (None, 3.5, "no whole picture"),
    ],
)
def test_a_variant_is_of_what_was_there_a_moment_ago(version: int | None, begin: float, words: str) -> None:
    history = written(version=2, at=3, history=written())
    problems = wrong(history, seen(version, begin))
    assert bool(problems) == bool(words)
    assert not words or words in problems[0]


def test_nobody_removes_a_variant_while_the_converter_is_away() -> None:
    history = written(version=2, at=3, history=written())
    late = seen(1, 12)
    assert wrong(history, late)
    assert not wrong(history, late, (0, 4), (11, math.inf))
    assert not wrong(history, late, (0, 4), (5, 6), (11, math.inf)), "it wasn't there long enough"
    assert wrong(history, late, (0, 4), (5, 7.5), (11, math.inf))
    assert not wrong(history, late, (0, 3)), "it never came back"


def test_a_directory_takes_what_is_out_of_date_with_it() -> None:
    history = written("x/a.jpg", 2, 3, written("x/a.jpg"))
    history.move_all("x", "y", 4, 4.1)
    assert not wrong(history, seen(1, 5, path="y/a.jpg"))
    assert "due to be gone" in wrong(history, seen(1, 7, path="y/a.jpg"))[0]
    assert "never there" in wrong(history, seen(3, 5, path="y/a.jpg"))[0]


@pytest.mark.parametrize(
    ("version", "begin", "words"),
    [
        (1, 2, ""),
        (2, 2, "version 2, not [1]"),
        (1, 4, "version 1, not [2]"),
        (None, 3.05, ""),
        (None, 2, "no picture"),
        (1, 0.5, "nothing was"),
    ],
)
def test_an_original_is_what_is_there_now(version: int | None, begin: float, words: str) -> None:
    history = written(version=2, at=3, history=written())
    problems = wrong(history, seen(version, begin, variant=False))
    assert bool(problems) == bool(words)
    assert not words or words in problems[0]


# What is played


def test_a_seed_is_always_the_same_schedule_and_another_another() -> None:
    assert schedule(7) == schedule(7)
    assert schedule(7) != schedule(8)


def test_all_faults_come_and_each_ends() -> None:
    played = {step.what for seed in range(100) for step in schedule(seed)}
    assert set(FAULTS) <= played
    for seed in range(100):
        whats = [step.what for step in schedule(seed)]
        for end in {end for end, _ in FAULTS.values() if end}:
            begins = [fault for fault, (its, _) in FAULTS.items() if its == end]
            assert whats.count(end) == sum(map(whats.count, begins))


def test_no_version_comes_twice() -> None:
    for seed in range(50):
        versions = [step.version for step in schedule(seed) if step.version]
        assert len(versions) == len(set(versions))


@pytest.mark.parametrize("version", [0, 1, 0b1010101010101010, 40503, (1 << 16) - 1])
@pytest.mark.parametrize("side", [96, 300])
def test_a_picture_says_its_version_in_every_format(version: int, side: int) -> None:
    data = picture(version, side)
    assert version_of(data) == version
    image = pictures.opened(data)
    assert version_of(pictures.encoded(image, "WEBP", quality=50)) == version
    assert version_of(pictures.encoded(image, "AVIF", quality=40)) == version
    assert version_of(data[: len(data) // 2]) is None
    assert version_of(b"") is None

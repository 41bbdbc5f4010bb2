from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from webp_converter.events.watch import Change, Watch, WatchError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def watch(root: Path) -> Iterator[Watch]:
    watch = Watch(os.fsencode(root), frozenset({"jpg"}))
    yield watch
    watch.close()


def seen(watch: Watch, seconds: float = 0.3) -> dict[str, Change]:
    """All changes until nothing happens for a while, by path."""
    found: dict[str, Change] = {}
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < seconds:
        changes = watch.changes(seconds / 3)
        assert changes is not None
        if changes:
            quiet_since = time.monotonic()
            found.update((os.fsdecode(change.path), change) for change in changes)
    return found


def test_writing_is_seen_when_it_is_closed(watch: Watch, root: Path) -> None:
    with (root / "a.jpg").open("wb") as file:
        file.write(b"x")
        file.flush()
        assert seen(watch) == {}
    before = time.time_ns()
    [change] = seen(watch).values()
    assert change.path == os.fsencode(root / "a.jpg")
    assert change.written
    assert before - 10**9 < change.seen_ns < time.time_ns()


def test_what_was_moved_into_a_directory_before_that_was_watched(watch: Watch, root: Path) -> None:
    """No event tells of the move: it happened before the daemon came to the new directory."""
    deep = root / "old" / "deep"
    deep.mkdir(parents=True)
    seen(watch)
    for path in (root / "old/a.jpg", deep / "b.jpg"):
        path.write_bytes(b"x")
    (root / "new").mkdir()
    (root / "old").rename(root / "new/place")
    found = seen(watch)
    for path in (root / "new/place/a.jpg", root / "new/place/deep/b.jpg"):
        assert found[str(path)].written
    (root / "new/place/deep/c.jpg").write_bytes(b"x")
    assert list(seen(watch)) == [str(root / "new/place/deep/c.jpg")]


def test_other_extensions_are_not_seen(watch: Watch, root: Path) -> None:
    for name in ("a.jpg.webp", "a.txt", "jpg", "b.JPG"):
        (root / name).write_bytes(b"x")
    assert list(seen(watch)) == [str(root / "b.JPG")]


def test_removal_and_touching_are_not_writing(watch: Watch, root: Path) -> None:
    (root / "a.jpg").write_bytes(b"x")
    (root / "b.jpg").write_bytes(b"x")
    seen(watch)
    (root / "a.jpg").unlink()
    (root / "b.jpg").chmod(0o600)
    changes = seen(watch)
    assert [changes[str(root / name)].written for name in ("a.jpg", "b.jpg")] == [False, False]


def test_what_was_removed_before_its_directory_was_moved_is_told_where_it_is_now(
    watch: Watch, root: Path
) -> None:
    """Both are done before anybody looks at the first event: it has the path of before."""
    directory = root / "old"
    directory.mkdir()
    for name in ("a.jpg", "a.jpg.webp", "b.jpg", "b.jpg.keep", "c.txt.webp"):
        (directory / name).write_bytes(b"x")
    seen(watch)
    (directory / "a.jpg").unlink()
    (directory / "b.jpg").rename(directory / "b2.jpg")
    directory.rename(root / "new")
    told = {Path(path).name for path in seen(watch) if Path(path).parent == root / "new"}
    assert told == {"a.jpg", "b.jpg", "b2.jpg"}


def test_a_tree_made_and_filled_at_once(watch: Watch, root: Path) -> None:
    paths = [root / f"{a}" / f"{b}" / "sub" / "x.jpg" for a in range(15) for b in range(15)]

    def fill() -> None:
        for path in paths:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")

    thread = threading.Thread(target=fill)
    thread.start()
    changes = seen(watch, 0.5)
    thread.join()
    changes |= seen(watch)
    assert set(changes) == {str(path) for path in paths}
    assert len(watch) == 1 + 15 + 2 * 225


def test_directories_are_renamed_and_moved_about(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.jpg").write_bytes(b"x")
    seen(watch)
    (root / "a").rename(root / "c")
    assert str(root / "c" / "b" / "x.jpg") in seen(watch)
    (root / "c" / "b" / "y.jpg").write_bytes(b"x")
    assert list(seen(watch)) == [str(root / "c" / "b" / "y.jpg")]
    (root / "c").rename(tmp_path / "out")
    (tmp_path / "out" / "b" / "z.jpg").write_bytes(b"x")
    assert seen(watch) == {}
    time.sleep(2.1)
    watch.changes(0)
    seen(watch)
    assert len(watch) == 1
    (tmp_path / "out").rename(root / "back")
    assert len(seen(watch)) == 3
    assert len(watch) == 3


def test_a_directory_is_replaced(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "a").mkdir()
    seen(watch)
    (root / "a").rmdir()
    (root / "a").mkdir()
    (root / "a" / "x.jpg").write_bytes(b"x")
    assert list(seen(watch)) == [str(root / "a" / "x.jpg")]
    assert len(watch) == 2


def test_links_are_not_followed(watch: Watch, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    seen(watch)
    (tmp_path / "outside" / "x.jpg").write_bytes(b"x")
    assert seen(watch) == {}


def test_names_that_are_not_text(watch: Watch, root: Path) -> None:
    directory = os.fsencode(root) + b"/\xff\n"
    os.mkdir(directory)
    seen(watch)
    with open(directory + b"/\xfe.jpg", "wb"):
        pass
    [change] = seen(watch).values()
    assert change.path == directory + b"/\xfe.jpg"


def test_an_overflow_is_told(watch: Watch, root: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    # The reader is kept from emptying the kernel's queue for as long as it takes to fill it.
    watch._closing.set()
    assert watch._reader
    watch._reader.join()
    (root / "a.jpg").touch()
    (root / "b.jpg").touch()
    for k in range(limit + 2):  # the kernel merges events that are equal and adjacent
        os.utime(root / ("a.jpg" if k % 2 else "b.jpg"))
    watch._closing.clear()
    watch._reader = threading.Thread(target=watch._read)
    watch._reader.start()
    deadline = time.monotonic() + 10
    while watch.changes(0.1) is not None:
        assert time.monotonic() < deadline


def test_the_root_s_end_is_told(watch: Watch, root: Path) -> None:
    root.rmdir()
    deadline = time.monotonic() + 2
    while watch.changes(0.1) is not None:
        assert time.monotonic() < deadline


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="missing"):
        Watch(os.fsencode(tmp_path / "absent"), frozenset({"jpg"}))


@pytest.mark.parametrize("links", [None, 1, 2, 5])
def test_every_directory_is_watched_however_the_file_system_counts_links(
    root: Path, links: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some count subdirectories, some say 1 or 2 of any directory."""
    for name in ("a/b/c", "a/d", "e", "f/g/h/i"):
        (root / name).mkdir(parents=True)
    stat = os.stat

    def lying(path: bytes, **options: bool) -> os.stat_result:
        values = list(stat(path, **options))
        values[3] = links or values[3]
        return os.stat_result(values)

    monkeypatch.setattr(os, "stat", lying)
    watch = Watch(os.fsencode(root), frozenset({"jpg"}))
    monkeypatch.undo()
    assert len(watch) == 1 + 9
    (root / "f/g/h/i/x.jpg").touch()
    (root / "a/b/c/new").mkdir()
    (root / "a/b/c/new/x.jpg").touch()
    assert set(seen(watch)) == {str(root / "f/g/h/i/x.jpg"), str(root / "a/b/c/new/x.jpg")}
    watch.close()

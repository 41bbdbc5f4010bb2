from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
from converter_app.tests.stores import finished, finished_with_avif, make_store, original, variant
from hypothesis import given
from hypothesis import strategies as st

from webp_converter.variants import store as store_module
from webp_converter.variants.store import (
    AVIF,
    KEEP,
    WEBP,
    XATTR,
    DecisionState,
    Finished,
    Identity,
    Mark,
    Result,
    Stale,
    Store,
    StoreError,
    Temporary,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


class TestMark:
    @given(
        st.builds(
            Mark,
            st.integers(0, 2**40),
            st.integers(-(2**62), 2**62),
            st.sampled_from(["q0", "q100", "no-saving", "no-picture"]),
            st.one_of(st.just(math.nan), st.integers(-10_000, 10_000).map(lambda n: n / 10_000)),
            st.integers(0, 10**9),
            st.integers(0, 10**6),
            st.booleans(),
        )
    )
    def test_survives_packing(self, mark: Mark) -> None:
        parsed = Mark.parse(mark.pack())
        assert parsed is not None
        assert repr(parsed) == repr(mark)

    @given(st.binary(max_size=80))
    def test_foreign_bytes_are_no_mark(self, text: bytes) -> None:
        assert Mark.parse(text) is None or Mark.parse(text).pack()  # type: ignore[union-attr]

    def test_other_versions_are_not_ours(self) -> None:
        assert Mark.parse(b"2 8 5 q80 0.9612 1 2") is None

    def test_a_usual_mark_fits_into_the_inode(self) -> None:
        assert len(Mark(245_231, time.time_ns(), "q80", 0.9531, 12_345, 87, avif=True).pack()) <= 56


class TestPublish:
    def test_as_promised(self, store: Store) -> None:
        path = original(store)
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
        assert store.publish([finished(store, path)]) == [Result.PUBLISHED]
        status = variant(path).stat()
        assert variant(path).read_bytes() == b"variant"
        assert status.st_mode == 0o100644
        assert status.st_mtime_ns == 1_234_567_890_123_456_789
        mark = Mark.parse(os.getxattr(variant(path), XATTR))
        assert mark is not None
        assert mark[:4] == (8, 1_234_567_890_123_456_789, "q80", 0.9612)
        assert store.decision_state_of(os.fsencode(path)) is DecisionState.FRESH
        assert os.listdir(store.temporary) == []

    def test_in_batches_with_each_its_own_result(self, store: Store) -> None:
        paths = [original(store, f"a/{k}.jpg") for k in range(4)]
        batch = [finished(store, path, b"%d" % k) for k, path in enumerate(paths)]
        paths[1].unlink()
        paths[2].write_bytes(b"something else")
        Path(os.fsdecode(store.temporary), os.fsdecode(batch[3].temporary)).unlink()
        assert store.publish(batch) == [Result.PUBLISHED, Result.GONE, Result.CHANGED, Result.CHANGED]
        assert [variant(path).exists() for path in paths] == [True, False, False, False]
        assert os.listdir(store.temporary) == []

    def test_replaces_its_own_and_the_other_kind(self, store: Store) -> None:
        path = original(store)
        store.publish([finished(store, path, b"", KEEP)])
        assert variant(path, KEEP).exists()
        store.publish([finished(store, path, b"one")])
        assert not variant(path, KEEP).exists()
        store.publish([finished(store, path, b"two")])
        assert variant(path).read_bytes() == b"two"

    def test_never_replaces_a_foreign_variant(self, store: Store) -> None:
        path = original(store)
        variant(path).write_bytes(b"theirs")
        assert store.publish([finished(store, path)]) == [Result.FOREIGN]
        assert variant(path).read_bytes() == b"theirs"

    def test_loses_the_race_against_a_foreign_variant(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = original(store)
        work = finished(store, path)
        read_mark = store_module.read_mark

        def written_just_after(directory: int, name: bytes) -> object:
            mark = read_mark(directory, name)
            variant(path).write_bytes(b"theirs")
            return mark

        monkeypatch.setattr(store_module, "read_mark", written_just_after)
        assert store.publish([work]) == [Result.FOREIGN]
        assert variant(path).read_bytes() == b"theirs"

    def test_takes_back_what_changed_during_the_rename(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = original(store)
        work = finished(store, path)
        rename = store_module.linux.rename_without_replacing

        def rewritten_just_before(*arguments: object) -> None:
            path.write_bytes(b"rewritten")
            rename(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(store_module.linux, "rename_without_replacing", rewritten_just_before)
        assert store.publish([work]) == [Result.CHANGED]
        assert not variant(path).exists()

    def test_same_size_and_time_but_another_file(self, store: Store) -> None:
        path = original(store)
        work = finished(store, path)
        other = path.with_name("other")
        other.write_bytes(b"ORIGINAL")
        os.utime(other, ns=(0, work.identity.mtime_ns))
        other.rename(path)
        assert store.publish([work]) == [Result.CHANGED]

    def test_what_has_changed_is_not_published_even_for_a_moment(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = original(store)
        work = finished(store, path)
        path.write_bytes(b"rewritten")
        monkeypatch.setattr(store_module.linux, "rename_without_replacing", None)
        assert store.publish([work]) == [Result.CHANGED]

    def test_a_full_disk(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        path = original(store)
        work = finished(store, path)

        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fdatasync", full)
        assert store.publish([work]) == [Result.FULL]
        assert not variant(path).exists()
        assert os.listdir(store.temporary) == []


class TestAvif:
    """A decision is up to two files: the one that decides, and before it the AVIF variant."""

    @pytest.mark.parametrize("suffix", [WEBP, KEEP])
    @pytest.mark.parametrize("avif", [b"avif", None])
    def test_every_combination(self, tmp_path: Path, suffix: bytes, avif: bytes | None) -> None:
        store = make_store(tmp_path, avif=True)
        path = original(store)
        data = b"variant" if suffix == WEBP else b""
        assert store.publish([finished_with_avif(store, path, data, suffix, avif)]) == [Result.PUBLISHED]
        expected = {path.name, variant(path, suffix).name} | ({variant(path, AVIF).name} if avif else set())
        assert {file.name for file in path.parent.iterdir()} == expected
        for name in expected - {path.name}:
            mark = Mark.parse(os.getxattr(path.parent / name, XATTR))
            assert mark is not None
            assert mark.decides(path.stat(), avif=True)
            assert (path.parent / name).stat().st_mtime_ns == path.stat().st_mtime_ns
            assert (path.parent / name).stat().st_mode == 0o100644
        assert store.decision_state_of(os.fsencode(path)) is DecisionState.FRESH
        assert store.avif_bytes_of(os.fsencode(path)) == len(avif or b"")
        assert os.listdir(store.temporary) == []

    def test_is_there_before_what_decides(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        path = original(store)
        rename = store_module.linux.rename_without_replacing
        order = []

        def noted(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
            order.append(target)
            rename(source_fd, source, target_fd, target)

        monkeypatch.setattr(store_module.linux, "rename_without_replacing", noted)
        store.publish([finished_with_avif(store, path)])
        assert order == [b"photo.jpg.avif", b"photo.jpg.webp"]

    def test_a_decision_without_regard_to_it_is_none_once_it_is_wanted(self, tmp_path: Path) -> None:
        store, wanting = make_store(tmp_path), make_store(tmp_path, avif=True)
        path = original(store)
        store.publish([finished(store, path)])
        name = os.fsencode(path)
        assert store.decision_state_of(name) is DecisionState.FRESH
        assert wanting.decision_state_of(name) is DecisionState.UNDECIDED
        assert wanting.remove_stale(name) == Stale(True, False, 0)
        wanting.publish([finished_with_avif(wanting, path, avif=None)])
        for either in (store, wanting):
            assert either.decision_state_of(name) is DecisionState.FRESH
            assert either.remove_stale(name) == Stale(True, True, 0)

    def test_goes_with_a_decision_that_has_none(self, store: Store) -> None:
        path = original(store)
        store.publish([finished_with_avif(store, path)])
        store.publish([finished_with_avif(store, path, avif=None)])
        assert not variant(path, AVIF).exists()

    def test_alone_decides_nothing(self, store: Store) -> None:
        path = original(store)
        store.publish([finished_with_avif(store, path)])
        variant(path).unlink()
        assert store.decision_state_of(os.fsencode(path)) is DecisionState.UNDECIDED
        assert store.remove_stale(os.fsencode(path)) == Stale(True, False, 0)

    def test_goes_when_the_original_changes(self, store: Store) -> None:
        path = original(store)
        store.publish([finished_with_avif(store, path)])
        path.write_bytes(b"rewritten")
        assert store.remove_stale(os.fsencode(path)) == Stale(True, False, 2)
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_foreign_one_stays_and_hinders_nothing(self, store: Store) -> None:
        path = original(store)
        variant(path, AVIF).write_bytes(b"theirs")
        assert store.decision_state_of(os.fsencode(path)) is DecisionState.UNDECIDED
        assert store.publish([finished_with_avif(store, path)]) == [Result.PUBLISHED]
        assert variant(path, AVIF).read_bytes() == b"theirs"
        assert variant(path).read_bytes() == b"variant"
        path.unlink()
        store.remove_stale(os.fsencode(path))
        assert variant(path, AVIF).exists()
        assert os.listdir(store.temporary) == []

    def test_is_taken_back_with_what_could_not_be_published(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = original(store)
        work = finished_with_avif(store, path)
        rename = store_module.linux.rename_without_replacing

        def rewritten_before_the_second(*arguments: object) -> None:
            if variant(path, AVIF).exists():
                path.write_bytes(b"rewritten")
            rename(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(store_module.linux, "rename_without_replacing", rewritten_before_the_second)
        assert store.publish([work]) == [Result.CHANGED]
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_without_its_file_nothing_is_published(self, store: Store) -> None:
        path = original(store)
        work = finished_with_avif(store, path)
        assert work.avif
        Path(os.fsdecode(store.temporary), os.fsdecode(work.avif.temporary)).unlink()
        assert store.publish([work]) == [Result.CHANGED]
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert os.listdir(store.temporary) == []


class TestSecondPass:
    def second(self, store: Store, path: Path, data: bytes) -> Finished:
        return finished(store, path, data)._replace(second=True)

    def test_replaces_a_variant_and_keeps_what_its_mark_says_of_the_first(self, store: Store) -> None:
        path = original(store)
        store.publish([finished(store, path)])
        first = Mark.parse(os.getxattr(variant(path), XATTR))
        assert first
        work = self.second(store, path, b"small")._replace(mark=first._replace(verdict="q75", latency_ms=77))
        assert store.publish([work]) == [Result.PUBLISHED]
        assert variant(path).read_bytes() == b"small"
        mark = Mark.parse(os.getxattr(variant(path), XATTR))
        assert mark
        assert (mark.verdict, mark.latency_ms) == ("q75", 77)
        assert variant(path).stat().st_mtime_ns == path.stat().st_mtime_ns

    @pytest.mark.parametrize("there", ["nothing", "foreign", "of another content"])
    def test_replaces_nothing_else(self, store: Store, there: str) -> None:
        path = original(store)
        if there == "of another content":
            store.publish([finished(store, path)])
            path.write_bytes(b"rewritten")
        elif there == "foreign":
            variant(path).write_bytes(b"theirs")
        before = variant(path).read_bytes() if variant(path).exists() else None
        result = store.publish([self.second(store, path, b"small")])
        assert result == [Result.FOREIGN if there == "foreign" else Result.CHANGED]
        assert (variant(path).read_bytes() if variant(path).exists() else None) == before
        assert os.listdir(store.temporary) == []

    @pytest.mark.parametrize(("small", "stays"), [(b"12345", True), (b"1234", False)])
    def test_avif_stays_while_it_is_smaller(self, store: Store, small: bytes, stays: bool) -> None:
        path = original(store)
        store.publish([finished_with_avif(store, path)])
        store.publish([self.second(store, path, small)])
        assert variant(path).read_bytes() == small
        assert variant(path, AVIF).exists() == stays


class TestStale:
    def test_rewritten(self, store: Store) -> None:
        path = original(store)
        store.publish([finished(store, path)])
        assert store.remove_stale(os.fsencode(path)) == Stale(True, True, 0)
        path.write_bytes(b"rewritten")
        assert store.remove_stale(os.fsencode(path)) == Stale(True, False, 1)
        assert not variant(path).exists()

    def test_removed(self, store: Store) -> None:
        path = original(store)
        store.publish([finished(store, path)])
        path.unlink()
        assert store.remove_stale(os.fsencode(path)) == Stale(False, False, 1)
        assert list(path.parent.iterdir()) == []

    def test_foreign_variants_stay(self, store: Store) -> None:
        path = original(store)
        variant(path).write_bytes(b"theirs")
        assert store.remove_stale(os.fsencode(path)) == Stale(True, True, 0)
        path.unlink()
        store.remove_stale(os.fsencode(path))
        assert variant(path).read_bytes() == b"theirs"

    def test_nothing_there(self, store: Store) -> None:
        assert store.remove_stale(store.root + b"/no/such.jpg") == Stale(False, False, 0)


class TestRemoveOriginal:
    def test_removes_what_was_judged(self, store: Store) -> None:
        path = original(store)
        identity = store.identity_of(os.fsencode(path))
        assert identity
        assert store.remove_original(os.fsencode(path), identity)
        assert not path.exists()
        assert os.listdir(store.temporary) == []

    def test_puts_back_what_is_new(self, store: Store) -> None:
        path = original(store)
        identity = store.identity_of(os.fsencode(path))
        assert identity
        path.write_bytes(b"the new one")
        assert not store.remove_original(os.fsencode(path), identity)
        assert path.read_bytes() == b"the new one"
        assert not store.remove_original(os.fsencode(path.with_name("absent.jpg")), identity)


class TestRead:
    def test_bytes_and_status(self, store: Store) -> None:
        path = original(store)
        read = store.read(os.fsencode(path), 100)
        assert read is not None
        assert read.data == b"original"
        assert Identity.of(read.status) == Identity.of(path.stat())

    def test_not_beyond_the_limit(self, store: Store) -> None:
        read = store.read(os.fsencode(original(store)), 7)
        assert read is not None
        assert (read.data, read.status.st_size) == (b"", 8)

    def test_only_regular_files(self, store: Store) -> None:
        path = original(store)
        os.mkfifo(path.with_name("fifo.jpg"))
        path.with_name("link.jpg").symlink_to(path)
        path.with_name("directory.jpg").mkdir()
        for name in (b"fifo.jpg", b"link.jpg", b"directory.jpg", b"absent.jpg", b"absent/absent.jpg"):
            assert store.read(os.fsencode(path.parent) + b"/" + name, 100) is None

    def test_no_link_on_the_way(self, store: Store) -> None:
        path = original(store)
        (path.parent.parent / "link").symlink_to(path.parent)
        assert store.read(store.root + b"/link/photo.jpg", 100) is None

    @pytest.mark.parametrize("path", [b"/etc/passwd", b"/a/../../etc/passwd", b"/a/..", b"/", b"/a/."])
    def test_nothing_outside(self, store: Store, path: bytes) -> None:
        original(store)
        with pytest.raises(ValueError, match=r"outside|no file's path"):
            store.read((b"" if path.startswith(b"/etc") else store.root) + path, 100)


class TestEmptyDirectories:
    def test_go_as_far_up_as_bitrix_would(self, store: Store) -> None:
        path = original(store, "iblock/1a2/450_450_1/photo.jpg")
        store.remove_empty_directories(os.fsencode(path))
        assert path.exists()
        path.unlink()
        store.remove_empty_directories(os.fsencode(path))
        assert not path.parent.parent.exists()
        # The site may remember that this one is there, and expects to make pictures below it.
        assert path.parent.parent.parent.exists()

    def test_stay_while_anything_is_in_them(self, store: Store) -> None:
        path = original(store, "iblock/1a2/450_450_1/photo.jpg")
        other = original(store, "iblock/1a2/120_120_2/photo.jpg")
        path.unlink()
        store.remove_empty_directories(os.fsencode(path))
        assert not path.parent.exists()
        assert other.exists()

    def test_of_other_layouts_go_alone(self, store: Store) -> None:
        path = original(store, "resized/by/hand/photo.jpg")
        path.unlink()
        store.remove_empty_directories(os.fsencode(path))
        assert not path.parent.exists()
        assert path.parent.parent.exists()


class TestTemporary:
    def test_leftovers_are_cleared_but_not_another_run_s(self, tmp_path: Path) -> None:
        parent = tmp_path / "tmp"
        living = Temporary(parent)
        (Path(os.fsdecode(living.path)) / "unfinished").touch()
        (parent / "dead").mkdir()
        (parent / "dead" / "unfinished").touch()
        (parent / "a file of somebody's").touch()
        second = Temporary(parent)
        assert Path(os.fsdecode(living.path), "unfinished").exists()
        assert not (parent / "dead").exists()
        second.close()
        living.close()
        assert [path.name for path in parent.iterdir()] == ["a file of somebody's"]

    def test_impossible(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="absent"):
            Temporary(tmp_path / "absent" / "tmp")


def test_check_finds_another_file_system(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.check()
    store.root = b"/proc"
    with pytest.raises(StoreError, match="share a file system"):
        store.check()

"""Trees that are linked, put over others, and exchanged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from host_agent.backup import files


def test_a_linked_tree_stays_when_the_first_one_goes(tmp_path: Path) -> None:
    (tmp_path / "wal" / "checkpoint.1").mkdir(parents=True)
    (tmp_path / "wal" / "checkpoint.1" / "00000000").write_text("old")
    (tmp_path / "wal" / "00000002").write_text("new")
    files.link_tree(tmp_path / "wal", tmp_path / "copy")
    assert (tmp_path / "copy" / "00000002").stat().st_nlink == 2
    files.remove(tmp_path / "wal")
    assert (tmp_path / "copy" / "checkpoint.1" / "00000000").read_text() == "old"


def test_across_file_systems_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("content")
    files.link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "content"


def test_what_is_put_over_another_tree_leaves_the_rest(tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    (source / "live").mkdir(parents=True)
    (source / "live" / "key.pem").symlink_to("../archive/key1.pem")
    (source / "key").write_text("restored")
    (source / "key").chmod(0o640)
    os.utime(source / "key", ns=(1_000_000_001, 1_000_000_001))
    there.mkdir()
    (there / "key").write_text("bare host's")
    (there / "other").write_text("stays")
    before = (there / "key").stat().st_ino
    files.put_in_place(source, there)
    assert (there / "key").read_text() == "restored"
    assert (there / "key").stat().st_mode & 0o777 == 0o640
    assert (there / "key").stat().st_mtime_ns == 1_000_000_001
    assert (there / "key").stat().st_ino != before
    assert (there / "live" / "key.pem").readlink() == Path("../archive/key1.pem")
    assert (there / "other").read_text() == "stays"
    files.put_in_place(source, there)
    assert sorted(path.name for path in there.iterdir()) == ["key", "live", "other"]


def test_missing_parents_are_passable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.make_parents(tmp_path / "var" / "www" / "cdn")
    finally:
        os.umask(before)
    assert (tmp_path / "var" / "www").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "var" / "www" / "cdn").exists()


def test_a_directory_holds_what_another_held_and_nothing_else(tmp_path: Path) -> None:
    data, stage = tmp_path / "data", tmp_path / "stage"
    (data / "wal").mkdir(parents=True)
    (data / "lock").write_text("")
    (stage / "wal").mkdir(parents=True)
    (stage / "wal" / "00000001").write_text("samples")
    inode = data.stat().st_ino
    files.replace_content(data, stage)
    assert data.stat().st_ino == inode
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*")) == ["wal", "wal/00000001"]


def test_a_mount_is_known_without_being_asked(tmp_path: Path) -> None:
    assert files.mounted("/proc")
    assert not files.mounted(str(tmp_path))

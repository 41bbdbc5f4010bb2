"""A drill brings back what was saved, or rings: with a real repository."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from host_agent.backup import drill, run
from host_agent.backup.config import Config
from host_agent.backup.contents import Contents, summed, unchanged
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.restic import PICTURES, TAG, Made, Snapshot
from host_agent.backup.state import METRICS, State
from tests.kit.tools import needs
from tests.unit.backup.hosts import config


@dataclass
class Host:
    """One that is backed up to a path."""

    config: Config
    identity: Path
    pictures: Path

    @property
    def state(self) -> Path:
        return Path(self.config.state)

    def metrics(self) -> str:
        return (Path(self.config.metrics) / METRICS).read_text()

    def packs(self) -> list[Path]:
        """Files of the repository that hold data, largest first."""
        found = [path for path in Path(self.config.repository, "data").rglob("*") if path.is_file()]
        return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


class Stored:
    """A repository that is a directory, for what doesn't depend on restic."""

    def __init__(self, its: Config) -> None:
        self._root = Path(its.repository)
        self._snapshot = Snapshot("ab12", datetime(2026, 1, 1, tzinfo=UTC), frozenset({TAG, PICTURES}), None)

    def open(self, known: str, *, create: bool) -> str:
        return "id"

    def backup(self, paths: Sequence[str], excluded: Iterable[str], tags: Iterable[str]) -> Made:
        for path in paths:
            shutil.copytree(path, f"{self._root}{path}", dirs_exist_ok=True)
        return Made("ab", 1, 1, 0)

    def forget(self, *, prune: bool) -> None:
        pass

    def snapshots(self, tag: str) -> list[Snapshot]:
        return [self._snapshot]

    def files(self, snapshot: str, directory: str) -> Iterator[tuple[str, int]]:
        for path in Path(f"{self._root}{directory}").rglob("*.jpg"):
            yield str(path).removeprefix(str(self._root)), path.stat().st_size

    def restore(self, snapshot: str, patterns: Sequence[str], target: str) -> None:
        for pattern in patterns:
            path = re.sub(r"\\(.)", r"\1", pattern)
            Path(f"{target}{path}").parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if Path(f"{self._root}{path}").is_dir() else shutil.copy2
            copy(f"{self._root}{path}", f"{target}{path}")


@pytest.fixture
def stored(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(run, "Repository", Stored)
    return host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    identity, pictures = tmp_path / "etc", tmp_path / "resize_cache" / "iblock"
    for directory in (identity / "keys", pictures):
        directory.mkdir(parents=True)
    (identity / "keys/id").write_bytes(os.urandom(20_000))
    (identity / "token").write_text("secret")
    for number in range(5):
        (pictures / f"photo [{number}]*.jpg").write_bytes(os.urandom(3_000))
    password = tmp_path / "password"
    password.write_text("x")
    made = config(
        tmp_path,
        repository=str(tmp_path / "repository"),
        password_file=str(password),
        cache=str(tmp_path / "cache"),
        identity=[str(identity)],
        excluded=[str(identity / "not"), "*.bitrix-cdn-new"],
        with_pictures=True,
        pictures=[str(tmp_path / "resize_cache")],
    )
    (identity / "not").mkdir()
    (identity / "not/saved").write_text("x")
    (identity / "half.bitrix-cdn-new").write_text("x")
    return Host(made, identity, pictures)


def test_what_was_saved_is_restored_and_compared_and_nothing_is_left(host: Host) -> None:
    needs("restic", "restic")
    run.backup(host.config)
    (host.identity / "token").write_text("another, of later")
    (host.pictures / "photo [0]*.jpg").write_bytes(b"made again")
    (host.pictures / "photo [1]*.jpg").unlink()
    state = run.drill(host.config)
    # Two of the identity and the manifest; of the pictures those that are still the same.
    assert (state.drilled, state.drill.error) == (3 + 3, "")
    assert not (host.state / "drill").exists()
    for line in ('backup_failed{what="drill"} 0', f"backup_drill_files {state.drilled}"):
        assert line in host.metrics().splitlines()
    assert 'backup_last_success_timestamp_seconds{what="drill"}' in host.metrics()
    assert State.load(host.state) == state


def test_a_damaged_pack_rings(host: Host) -> None:
    needs("restic", "restic")
    run.backup(host.config)
    [largest, *_] = host.packs()
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(data)
    with pytest.raises(BackupError):
        run.drill(host.config)
    assert 'backup_failed{what="drill"} 1' in host.metrics().splitlines()
    assert State.load(host.state).drill.error
    assert not (host.state / "drill").exists()


def test_other_bytes_than_were_saved_ring_though_the_repository_is_whole(stored: Host) -> None:
    """As where restic, or what it reads, is at fault."""
    run.backup(stored.config)
    contents = Contents.load(stored.state)
    assert contents
    token = str(stored.identity / "token")
    wrong = contents.sums[token].__class__(6, 0, 0, "0" * 64)
    Contents(contents.snapshot, contents.paths, {**contents.sums, token: wrong}).save(stored.state)
    with pytest.raises(BackupError, match=f"{token}: other bytes than were saved"):
        run.drill(stored.config)
    Contents(contents.snapshot, contents.paths, {**contents.sums, "/etc/x": wrong}).save(stored.state)
    run.drill(stored.config)  # beside what was saved
    Contents(contents.snapshot, contents.paths, {**contents.sums, f"{stored.identity}/x": wrong}).save(
        stored.state
    )
    with pytest.raises(BackupError, match="x: No such file"):
        run.drill(stored.config)


def test_a_picture_that_changed_its_bytes_but_nothing_else_rings(stored: Host) -> None:
    """A disk that returns other bytes than were written: the time and size are what they were."""
    run.backup(stored.config)
    picture = stored.pictures / "photo [2]*.jpg"
    status = picture.stat()
    picture.write_bytes(os.urandom(status.st_size))
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BackupError, match="other bytes than on this host"):
        run.drill(stored.config)


def test_a_backup_that_this_host_knows_nothing_of_is_not_taken_for_good(stored: Host) -> None:
    with pytest.raises(BackupError, match="no backup was made yet"):
        run.drill(stored.config)
    run.backup(stored.config)
    (stored.state / "contents.json").unlink()
    with pytest.raises(BackupError, match="bitrix-cdn backup makes one that is"):
        run.drill(stored.config)
    run.backup(stored.config)
    run.drill(stored.config)


def test_a_drill_does_not_fill_the_disk(stored: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    run.backup(stored.config)
    monkeypatch.setattr(drill, "_KEPT_FREE", 1.0)
    with pytest.raises(BackupError, match="no room for a drill") as caught:
        run.drill(stored.config)
    assert caught.value.status == Status.DISK_FULL


def test_what_is_large_is_restored_by_itself(stored: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    run.backup(stored.config)
    monkeypatch.setattr(drill, "_ALONE", 10_000)
    contents = Contents.load(stored.state)
    assert contents
    portions = list(drill._portions(contents))
    assert [paths for paths, _ in portions] == [[str(stored.identity)], [str(stored.state / "staged")]]
    assert sum(len(sums) for _, sums in portions) == len(contents.sums) == 3
    assert run.drill(stored.config).drilled == 3 + 5


def test_a_file_that_changes_while_it_is_saved_is_not_compared(tmp_path: Path) -> None:
    quiet, busy, gone = (tmp_path / name for name in ("quiet", "busy", "gone"))
    for path in (quiet, busy, gone):
        path.write_text("x")
    sums = summed([str(tmp_path)], [], {})
    busy.write_text("xy")
    gone.unlink()
    assert unchanged(sums).keys() == {str(quiet)}


def test_a_file_that_is_the_same_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_text("x")
    [(name, one)] = summed([str(path)], [], {}).items()
    known = {name: one.__class__(one.size, one.mtime_ns, one.inode, "known")}
    assert summed([str(path)], [], known)[name].sha256 == "known"
    path.write_text("xy")
    assert summed([str(path)], [], known)[name].sha256 != "known"


def test_the_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    old = State(snapshot="ab")
    old.save(tmp_path, str(tmp_path))
    values = json.loads((tmp_path / "state.json").read_text())
    del values["drill"], values["drilled"]
    (tmp_path / "state.json").write_text(json.dumps(values))
    assert State.load(tmp_path) == old

"""The push on two plain directories, the site's changes and kills in between included."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_agent.mount import config as settings
from host_agent.mount import spool
from host_agent.mount.config import Config

FILES = {"a/b/one.jpg": b"first", "a/two.jpg": b"second" * 9000, "three": b"", "фото \n.jpg": b"name"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(settings, "RUN", tmp_path / "run")
    monkeypatch.setattr(settings, "STATE", tmp_path / "state")
    # The file system of the test may want aligned buffers; sshfs doesn't.
    monkeypatch.setattr(spool, "AROUND_CACHE", 0)
    monkeypatch.setattr(spool, "_QUIET", (0.0,))
    made = Config(
        name="test",
        mount_point="/site/resize_cache",
        remote_path="/resize_cache",
        ssh_config="",
        known_hosts="",
        options="",
        owner="www-data",
        group="www-data",
        spool=True,
        push_workers=1,
        push_first=60,
        probe_interval=1,
        probe_timeout=1,
        connect_timeout=1,
        retry_min=1,
        retry_max=1,
        min_free=0,
        metrics="",
        hold="/nonexistent",
    )
    Path(made.below).mkdir(parents=True)
    Path(made.private).mkdir(parents=True)
    return made


def fill(root: str, files: dict[str, bytes]) -> None:
    for number, (name, content) in enumerate(files.items()):
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o640)
        os.utime(path, (1_500_000_000 + number, 1_500_000_000 + number))


def tree(root: str) -> dict[str, bytes]:
    found = (path for path in Path(root).rglob("*") if path.is_file() and not path.is_symlink())
    below = {str(path.relative_to(root)): path.read_bytes() for path in found}
    return {name: content for name, content in below.items() if not name.startswith(spool.TEMPORARY)}


def pushed(config: Config, *, between: Callable[[], None] = lambda: None) -> int:
    """Pushes the spool; returns how many files that took."""
    said: list[str] = []
    push = spool.Push(config, os.open(config.private, os.O_PATH), said.append)
    push.before()
    between()
    push.after(lambda pause: False)
    return int(said[-1].split()[1])


def test_all_of_the_spool_arrives_with_modes_and_times_and_goes(config: Config) -> None:
    fill(config.below, FILES)
    assert pushed(config) == len(FILES)
    assert tree(config.private) == FILES
    status = (Path(config.private) / "a/two.jpg").stat()
    assert (status.st_mode & 0o777, int(status.st_mtime)) == (0o640, 1_500_000_001)
    assert list(Path(config.below).iterdir()) == []
    assert not (Path(config.private) / spool.TEMPORARY).exists()


def test_equal_files_are_dropped_and_of_different_ones_the_spools_stays(config: Config) -> None:
    fill(config.private, {"same": b"equal", "other": b"older bytes", "untouched": b"x"})
    fill(config.below, {"same": b"equal", "other": b"newer bytes"})
    assert pushed(config) == 1
    assert tree(config.private) == {"same": b"equal", "other": b"newer bytes", "untouched": b"x"}
    assert tree(config.below) == {}


def test_what_takes_too_long_is_pushed_from_below_the_mount(config: Config) -> None:
    fill(config.below, FILES)
    before: list[dict[str, bytes]] = []

    def site() -> None:
        before.append(tree(config.private))
        (Path(config.private) / "three").write_bytes(b"made once more, and later")

    assert pushed(replace(config, push_first=0), between=site) == len(FILES) - 1
    assert before == [{}]
    assert tree(config.private) == {**FILES, "three": b"made once more, and later"}
    assert tree(config.below) == {}


def test_what_the_site_does_to_the_spool_before_the_mount_is_honoured(config: Config) -> None:
    fill(config.below, FILES)

    def site() -> None:
        (Path(config.below) / "a/two.jpg").unlink()
        (Path(config.below) / "three").write_bytes(b"written again")
        (Path(config.below) / "late").write_bytes(b"late")

    pushed(config, between=site)
    expected = {**FILES, "three": b"written again", "late": b"late"}
    del expected["a/two.jpg"]
    assert tree(config.private) == expected


def test_what_the_site_writes_through_the_mount_is_not_replaced_by_the_spool(config: Config) -> None:
    def site() -> None:
        fill(config.below, {"late": b"below"})
        (Path(config.private) / "late").write_bytes(b"above, and later")

    pushed(config, between=site)
    assert tree(config.private) == {"late": b"above, and later"}
    assert tree(config.below) == {}


def test_a_file_that_is_open_for_writing_waits(config: Config) -> None:
    path = Path(config.below) / "open"
    with path.open("wb") as writer:
        writer.write(b"half")
        writer.flush()
        pushed(config)
        assert tree(config.private) == {}
        assert path.exists()
        writer.write(b"whole")
    pushed(config)
    assert tree(config.private) == {"open": b"halfwhole"}


def test_the_smallest_come_first_and_what_is_too_large_stays(
    config: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arrived: list[str] = []
    drop = spool.Push._drop

    def note(self: spool.Push, path: str, *arguments: Any) -> None:
        arrived.append(path)
        drop(self, path, *arguments)

    monkeypatch.setattr(spool.Push, "_drop", note)
    fill(config.below, {"a large one": bytes(range(256)) * 400, "b": b"small", "c": b"tiny"})
    with (Path(config.below) / "0 sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    pushed(replace(config, push_largest=1 << 30))
    assert arrived == ["c", "b", "a large one"]
    assert [path.name for path in Path(config.below).iterdir()] == ["0 sparse"]
    assert capfd.readouterr().err.count("0 sparse: 1099511627776 bytes are more than push_largest") == 1


def test_holes_stay_holes(config: Config) -> None:
    with (Path(config.below) / "sparse").open("wb") as sparse:
        sparse.write(b"head")
        sparse.seek(64 << 20)
        sparse.write(b"tail")
        sparse.truncate(80 << 20)
    expected = (Path(config.below) / "sparse").read_bytes()
    pushed(config)
    there = Path(config.private) / "sparse"
    assert there.read_bytes() == expected
    assert there.stat().st_blocks * 512 < 8 << 20


def test_the_time_before_the_mount_ends_within_a_file(config: Config) -> None:
    with (Path(config.below) / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    push = spool.Push(
        replace(config, push_first=0.2, push_largest=1 << 41), os.open(config.private, os.O_PATH), print
    )
    began = time.monotonic()
    push.before()
    assert time.monotonic() - began < 10
    assert tree(config.private) == {}


def test_links_lead_nowhere(config: Config, tmp_path: Path) -> None:
    fill(str(tmp_path), {"outside/secret": b"secret"})
    below, there = Path(config.below), Path(config.private)
    (below / "file").symlink_to(tmp_path / "outside/secret")
    (below / "directory").symlink_to(tmp_path / "outside")
    fill(config.below, {"d/new": b"new"})
    (there / "d").symlink_to(tmp_path / "outside")
    pushed(config)
    assert tree(config.below) == {"d/new": b"new"}
    (there / "d").unlink()
    pushed(config)
    assert tree(config.private) == {"d/new": b"new"}
    assert tree(str(tmp_path / "outside")) == {"secret": b"secret"}


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """The `os` module, until a given number of calls that change something have been made."""

    CHANGING = ("mkdir", "open", "write", "fsync", "fchmod", "utime", "rename", "link", "unlink", "rmdir",
                "ftruncate")  # fmt: skip

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in self.CHANGING:
            return function

        def call(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise Killed  # and so does all that would tidy up
            self.left -= 1
            return function(*arguments, **options)

        return call


def test_a_push_killed_before_any_of_its_calls_is_finished_by_the_next_without_doing_anything_twice(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills, calls, files = 0, 0, {"a/one": b"1", "two": b"2" * 5000}
    while True:
        for path in (config.below, config.private, str(config.state)):
            shutil.rmtree(path, ignore_errors=True)
            Path(path).mkdir(parents=True)
        fill(config.private, {"two": b"old"})
        fill(config.below, files)
        mortal = Mortal(calls)
        monkeypatch.setattr(spool, "os", mortal)
        try:
            pushed(config)
            survived = True
        except Killed:
            survived, kills = False, kills + 1
        monkeypatch.setattr(spool, "os", os)
        # At no moment is there anything but whole files under their names, on one side at least.
        there = tree(config.private)
        for name, content in files.items():
            assert content in (tree(config.below).get(name), there.get(name)), f"{name} after {calls} calls"
        assert all(content in (files[name], b"old") for name, content in there.items())
        done = sum(there.get(name) == content for name, content in files.items())
        again = pushed(config)
        assert tree(config.private) == files, f"killed after {calls} calls"
        assert tree(config.below) == {}
        assert again == len(files) - done
        if survived:
            break
        calls += 1
    assert kills > 20

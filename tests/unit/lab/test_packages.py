"""The pool of downloaded packages."""

import os
from pathlib import Path

import pytest

from dev.lab import packages
from dev.lab.layout import HostLayout


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostLayout:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return HostLayout(tmp_path / "host")


def download(host: HostLayout, name: str, age: float = 0) -> Path:
    path = host.upper / packages.ARCHIVES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_what_one_host_downloaded_the_next_one_finds(host: HostLayout, tmp_path: Path) -> None:
    download(host, "sshfs_3.7_amd64.deb")
    download(host, "partial/half_1_amd64.deb")
    download(host, "lock")
    assert packages.harvest("trixie", host) == 1
    assert packages.harvest("trixie", host) == 0
    following = HostLayout(tmp_path / "following")
    assert packages.provide("trixie", following) == 1
    found = following.packages / packages.ARCHIVES
    assert [(path.name, path.read_text()) for path in found.iterdir()] == [("sshfs_3.7_amd64.deb",) * 2]


def test_suites_do_not_mix(host: HostLayout, tmp_path: Path) -> None:
    download(host, "sshfs_3.7_amd64.deb")
    packages.harvest("bookworm", host)
    assert packages.provide("trixie", HostLayout(tmp_path / "following")) == 0


def test_old_versions_go(host: HostLayout) -> None:
    for age, version in enumerate(["4", "3", "2", "1"]):
        download(host, f"sshfs_{version}_amd64.deb", age=age)
    download(host, "sshfs-data_1_amd64.deb", age=99)
    packages.harvest("trixie", host)
    kept = sorted(path.name for path in packages.pool("trixie").iterdir())
    assert kept == ["sshfs-data_1_amd64.deb", "sshfs_3_amd64.deb", "sshfs_4_amd64.deb"]


def test_a_host_that_downloaded_nothing(host: HostLayout) -> None:
    assert packages.harvest("trixie", host) == 0
    assert packages.provide("trixie", host) == 0


def test_a_cache_on_another_file_system_is_copied(
    host: HostLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    download(host, "sshfs_3.7_amd64.deb")
    monkeypatch.setattr(os, "link", refuses)
    packages.harvest("trixie", host)
    assert [path.read_text() for path in packages.pool("trixie").iterdir()] == ["sshfs_3.7_amd64.deb"]

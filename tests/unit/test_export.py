"""What is root's in `upload/`, with PHP putting other things in its place. On a separate file system."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.export import main

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the unit has it")

SITE = 33
NAME = ".bitrix-cdn"
PRIVATE = ("1c_exchange", "support/not_image")


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    upload = tmp_path / "upload"
    upload.mkdir(mode=0o775)
    upload.chmod(0o775)
    os.chown(upload, SITE, SITE)
    return upload


@pytest.fixture
def proof(upload: Path) -> Iterator[Path]:
    yield upload / NAME
    main([str(upload), NAME, "release", *PRIVATE])


@pytest.fixture
def export(tmp_path: Path, upload: Path) -> Iterator[Path]:
    """What the unit has mounted by the time that `close` is called."""
    export, closed = tmp_path / "export", tmp_path / "closed"
    export.mkdir()
    closed.mkdir(mode=0)
    subprocess.run(["mount", "-o", "bind,ro,private", str(upload), str(export)], check=True)
    yield export
    subprocess.run(["umount", "--lazy", str(export)], check=True)
    assert main([str(upload), NAME, "release", *PRIVATE]) == 0
    assert not list(upload.rglob(NAME))


def by_php(script: str, directory: Path) -> int:
    """Does something as the site's account; the exit status."""
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp/pytest-of-root"):
            parent.chmod(0o755)
    return subprocess.run(
        ["sh", "-ec", script],
        cwd=directory,
        user=SITE,
        group=SITE,
        extra_groups=[],
        capture_output=True,
        check=False,
    ).returncode


def close(upload: Path, export: Path) -> int:
    return main([str(upload), NAME, "close", str(export), str(export.parent / "closed"), *PRIVATE])


def test_php_can_neither_read_nor_remove_nor_replace_what_proves_the_mount(upload: Path, proof: Path) -> None:
    assert main([str(upload), NAME, "prove"]) == 0
    assert main([str(upload), NAME, "prove"]) == 0
    for script in (
        f"rm -f {NAME}",
        f"mv {NAME} other",
        f": > other; mv -f other {NAME}",
        f"cat {NAME}",
        f"ln {NAME} b",
    ):
        assert by_php(script, upload) != 0, script
    assert (proof.stat().st_uid, proof.stat().st_mode & 0o7777, proof.stat().st_size) == (0, 0, 0)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP])
def test_where_files_cannot_be_made_immutable_it_is_there_all_the_same(
    upload: Path,
    proof: Path,
    error: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in a container, and on file systems that know nothing of it."""

    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "ioctl", refused)
    assert main([str(upload), NAME, "prove"]) == 0
    assert "can keep PHP from removing it" in capsys.readouterr().err
    assert proof.stat().st_uid == 0


def test_once_released_it_goes_like_any_other(upload: Path, proof: Path) -> None:
    assert main([str(upload), NAME, "prove"]) == 0
    assert main([str(upload), NAME, "release", *PRIVATE]) == 0
    proof.unlink()
    assert main([str(upload), NAME, "release", *PRIVATE]) == 0


@pytest.mark.parametrize(
    "there",
    [
        "ln -s ../victim .bitrix-cdn",
        "ln -s ../missing .bitrix-cdn",
        "mkdir .bitrix-cdn",
        "echo mine > .bitrix-cdn",
        "mkfifo .bitrix-cdn",
    ],
)
def test_what_php_has_put_in_its_place_is_replaced_and_not_followed(
    upload: Path, proof: Path, tmp_path: Path, there: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("root's")
    assert by_php(there, upload) == 0
    assert main([str(upload), NAME, "prove"]) == 0
    assert proof.is_file()
    assert not proof.is_symlink()
    assert proof.stat().st_uid == 0
    assert victim.read_text() == "root's"
    assert not (tmp_path / "missing").exists()


def test_what_cannot_be_replaced_is_one_line(
    upload: Path, proof: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_php(f"mkdir -p {NAME}/full", upload) == 0
    assert main([str(upload), NAME, "prove"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_private_directories_are_hidden_in_the_export_alone(upload: Path, export: Path) -> None:
    for path in (*PRIVATE, "iblock"):
        (upload / path).mkdir(parents=True)
        (upload / path / "file").write_text("content")
    assert close(upload, export) == 0
    for path in PRIVATE:
        assert list((export / path).iterdir()) == []
        assert (export / path).stat().st_mode & 0o7777 == 0
        assert (upload / path / "file").read_text() == "content"
    assert (export / "iblock/file").read_text() == "content"


def test_one_that_is_still_to_come_is_made_as_the_site_would(upload: Path, export: Path) -> None:
    assert close(upload, export) == 0
    for path in PRIVATE:
        made = (upload / path).stat()
        assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (SITE, SITE, 0o775)
    # As Bitrix begins an exchange.
    by_php("echo secret > 1c_exchange/import.xml; rm -rf 1c_exchange; mkdir -p 1c_exchange", upload)
    assert by_php("echo secret > 1c_exchange/import.xml", upload) == 0
    assert list((export / "1c_exchange").iterdir()) == []


@pytest.mark.parametrize(
    "there", ["ln -s ../victim 1c_exchange", "ln -s ../victim support", "echo > 1c_exchange"]
)
def test_nothing_is_mounted_where_php_points_to(
    upload: Path, export: Path, tmp_path: Path, there: str
) -> None:
    victim = tmp_path / "victim"
    (victim / "not_image").mkdir(parents=True)
    assert by_php(there, upload) == 0
    assert close(upload, export) == 0
    assert str(victim) not in Path("/proc/self/mountinfo").read_text()
    # The others are hidden all the same.
    hidden = [path for path in PRIVATE if f"{export}/{path} " in Path("/proc/self/mountinfo").read_text()]
    assert len(hidden) == 1

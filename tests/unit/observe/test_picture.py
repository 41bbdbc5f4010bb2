"""The picture that monitoring asks for."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from host_agent.observe.picture import SUFFIXES, picture, renew


def test_it_is_a_picture_and_always_the_same() -> None:
    with Image.open(io.BytesIO(picture())) as opened:
        opened.load()
        assert opened.format == "JPEG"
        # One colour would say nothing about a conversion.
        assert len(opened.getcolors(1 << 24) or []) > 1000
    assert picture() == picture()


def test_its_variants_go_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "bitrix-cdn" / "probe.jpg"
    renew(path)
    first = path.stat()
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").write_bytes(b"variant")
    other = path.with_name("other.jpg.webp")
    other.write_bytes(b"variant")
    renew(path)
    assert {one.name for one in path.parent.iterdir()} == {"probe.jpg", "other.jpg.webp"}
    assert path.read_bytes() == picture()
    # Another file under the same name: the converter takes it for rewritten.
    assert path.stat().st_ino != first.st_ino


def test_a_picture_that_cant_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "probe.jpg"
    path.write_bytes(b"old")
    Path(f"{path}.webp").write_bytes(b"variant")
    path.with_name(".probe.jpg.new").mkdir()
    with pytest.raises(OSError, match=r"probe\.jpg\.new"):
        renew(path)
    assert (path.read_bytes(), Path(f"{path}.webp").read_bytes()) == (b"old", b"variant")

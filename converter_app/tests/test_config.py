from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from webp_converter.base.docstrings import attribute_docstrings
from webp_converter.config import Config, ConfigError, load


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


def test_defaults_are_those_of_the_target_hosts() -> None:
    config = Config()
    assert config.store.root == Path("/var/www/cdn/upload/resize_cache")
    assert config.originals.variants == Path("/var/cache/webp/upload")
    assert (config.api.address, config.api.port) == ("127.0.0.1", 8088)
    assert (config.metrics.address, config.metrics.port) == ("127.0.0.1", 9101)
    assert config.queue.url == "unix:///run/redis-queue/redis.sock"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[store]\nrooot = '/x'", ["store.rooot", "unknown key", "root"]),
        ("[stor]\nroot = '/x'", ["stor", "unknown key", "store"]),
        ("[store]\nroot = 'x'", ["store.root", "'x'", "absolute"]),
        ("[store]\nroot = '/a/../b'", ["store.root", "absolute"]),
        ("[encoding]\nquality = 0", ["encoding.quality", "0", "1"]),
        ("[encoding]\nquality = 'high'", ["encoding.quality", "'high'"]),
        ("[encoding]\nladder = [80, 75]", ["ladder must rise"]),
        ("[encoding]\nsize_limits = [5, 5]\n", ["size_limits must rise"]),
        ("[encoding]\nsize_limits = [5]\n", ["size_qualities"]),
        ("[encoding]\npolicy = 'best'", ["encoding.policy", "'best'", "'ssim'"]),
        ("[queue]\nurl = 'localhost:6380'", ["queue.url", "unix:///"]),
        ("[watch]\nextensions = ['.jpg']", ["watch.extensions", "'.jpg'"]),
        ("[store]\ntemporary = '/var/www/cdn/upload/resize_cache/t'", ["outside of each other"]),
        ("[store", ["at end of document"]),
    ],
)
def test_errors_are_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    line = str(caught.value)
    assert "\n" not in line
    for word in [str(file), *words]:
        assert word in line


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.toml")


def test_every_field_is_described() -> None:
    for section in Config.model_fields.values():
        assert section.annotation is not None
        assert attribute_docstrings(section.annotation).keys() == section.annotation.model_fields.keys()  # type: ignore[attr-defined]


def test_importing_it_needs_pydantic_alone() -> None:
    """The deploy imports the model on a machine without the daemon's own dependencies."""
    program = (
        "import sys, webp_converter.config;"
        "print([m for m in ('PIL', 'numpy', 'redis', 'fastapi', 'typer') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

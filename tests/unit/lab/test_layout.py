"""Names and directories of a lab."""

from pathlib import Path

import pytest

from dev.lab import layout
from dev.lab.errors import UsageError
from dev.lab.layout import Layout


@pytest.mark.parametrize("name", ["lab", "a", "lab-2", "x" * 31])
def test_names_that_can_be(name: str) -> None:
    assert layout.lab_name(name) == name
    assert layout.check_host_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "2lab", "Lab", "la_b", "lab-", "-lab", "../lab", "a b", "x" * 32, "läb", "lab\n"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a lab"):
        layout.lab_name(name)
    with pytest.raises(UsageError, match="is no name for a host"):
        layout.check_host_name(name)


def test_no_host_is_called_localhost() -> None:
    with pytest.raises(UsageError):
        layout.check_host_name("localhost")


def test_the_name_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NAME", "side")
    assert layout.lab_name() == "side"
    monkeypatch.delenv("LAB_NAME")
    assert layout.lab_name() == "lab"


@pytest.mark.parametrize("variable", ["LAB_STATE", "LAB_CACHE"])
@pytest.mark.parametrize(
    "path", ["relative/path", "/with:colon", "/with,comma", "/with space", "/back\\slash"]
)
def test_directories_that_overlayfs_could_not_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, path)
    with pytest.raises(UsageError, match=variable):
        layout.state_root() if variable == "LAB_STATE" else layout.cache_directory()


def test_labs_share_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    first, second = Layout("one"), Layout("two")
    assert first.record != second.record
    assert first.host("cdn").upper != first.host("bitrix").upper
    assert first.host("cdn").upper != second.host("cdn").upper

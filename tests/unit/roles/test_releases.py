"""What a deploy asks a host of its releases, and which of them an operator can go back to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitrix_cdn.engine import agent
from host_agent.release import HOME
from roles import releases
from roles.releases import Installed, Releases, switch_script
from tests.kit.agent import sent_with


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the releases are in these tests, for what is sent to the hosts too."""
    home = tmp_path / "opt"
    monkeypatch.setattr(releases, "_IF_THERE", releases._IF_THERE.replace(str(HOME), str(home)))
    with sent_with("release", HOME, home, tmp_path / "agent"):
        yield home


def asked(script: str) -> list[str]:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_host_tells_its_releases(home: Path) -> None:
    for id in ("aa", "bb", "cc"):
        (home / "releases" / id).mkdir(parents=True)
        (home / "releases" / id / "release").touch()
    (home / "releases/cc/release").unlink()
    (home / "current").symlink_to("releases/bb")
    (home / "history").write_text("aa\nbb\n")
    told = Installed().process(asked(Installed().command(keep=1)))
    assert told == Releases("bb", ("aa", "bb"), ("aa", "bb"), ("cc",))
    assert told.target() == "aa"


def test_a_bare_host_has_none_and_needs_no_python_to_tell(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "PYTHON", "/nonexistent/python3")
    assert asked(Installed().command(keep=3)) == []
    assert Installed().process([]) == Releases("", (), ())


def test_what_switches_says_what_is_wrong_in_its_errors_and_changes_nothing(home: Path) -> None:
    home.mkdir()
    script = switch_script("aa", healthy_within_s=1, restart=True, back=True)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{home}/releases/aa/bin/webp-converter: No such file or directory\n"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("dd", "no release dd; there is aa, cc"),
        ("bb", "release bb is current already; there is aa, cc"),
        ("", "no release was current before bb; there is aa, cc"),
    ],
)
def test_a_release_that_there_is_no_way_to_is_refused_with_those_there_are(wanted: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Releases("bb", ("bb",), ("aa", "bb", "cc")).target(wanted)


def test_a_release_may_be_named_by_how_its_id_begins() -> None:
    releases = Releases("f00", ("f00",), ("abc1", "abd2", "f00"))
    assert releases.target("abd") == "abd2"
    with pytest.raises(ValueError, match="several releases ab; there is abc1, abd2"):
        releases.target("ab")

"""The recipe of base trees, and which of them are kept."""

import dataclasses
import time
from pathlib import Path

import pytest

from dev.lab import image, lifecycle, state
from dev.lab.errors import LabError
from dev.lab.image import Recipe
from dev.lab.layout import Layout
from dev.lab.lifecycle import Progress
from dev.lab.state import HostRecord, Record

DEB822 = """\
# the release
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://other.example/tool
Suites: stable
Components: main
"""


def test_the_machines_sources_with_the_suite_exchanged() -> None:
    assert image.debian_sources("trixie", [DEB822], "bookworm") == [
        "deb http://mirror.example/debian trixie main contrib",
        "deb http://mirror.example/debian trixie-updates main contrib",
        "deb https://mirror.example/debian-security trixie-security main",
    ]


def test_one_line_sources() -> None:
    text = """\
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main # the release
# deb http://mirror.example/debian trixie-updates main
deb-src http://mirror.example/debian trixie main
deb http://mirror.example/debian trixie main
"""
    assert image.debian_sources("bookworm", [text], "trixie") == [
        "deb http://mirror.example/debian bookworm main"
    ]


@pytest.mark.parametrize(
    ("text", "codename"),
    [
        (DEB822, None),  # the machine isn't Debian
        (DEB822, "trixie"),  # its sources are of another release
        ("deb cdrom:[Debian]/ bookworm main\ndeb file:/media/debian bookworm main\n", "bookworm"),
        (DEB822.replace("Types: deb deb-src", "Enabled: no\nTypes: deb"), "bookworm"),
        ("deb http://mirror.example/debian-security bookworm-security main\n", "bookworm"),
        ("", "bookworm"),
        ("garbage\n\n: : :\n  x\n", "bookworm"),
    ],
)
def test_sources_that_leave_mmdebstrap_its_default(text: str, codename: str | None) -> None:
    assert image.debian_sources("trixie", [text], codename) == []


def test_the_digest_follows_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("trixie", (), ())
    digests = {
        recipe.digest(),
        dataclasses.replace(recipe, suite="bookworm").digest(),
        dataclasses.replace(recipe, sources=("deb http://mirror.example/debian trixie main",)).digest(),
        dataclasses.replace(recipe, apt_options=('Acquire::Retries "3";',)).digest(),
    }
    assert len(digests) == 4
    assert recipe.digest() == Recipe("trixie", (), ()).digest()
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "vim"))
    assert recipe.digest() not in digests


def test_a_proxy_on_the_machines_loopback_stays_out_of_hosts() -> None:
    here = 'Acquire::http::Proxy "http://127.0.0.1:3142";'
    elsewhere = 'Acquire::http::Proxy "http://proxy.example:3142";'
    assert image.for_guests([here, elsewhere]) == [elsewhere]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    recipe = Recipe("trixie", (), ())
    monkeypatch.setattr(image, "recipe", lambda suite: recipe)
    return recipe


def a_tree(recipe: Recipe, age: float) -> Path:
    tree = image.directory() / f"{recipe.suite}-{recipe.digest()}-{int(time.time() - age)}"
    (tree / "etc").mkdir(parents=True)
    return tree


def test_the_newest_finished_tree_of_the_recipe_serves(recipe: Recipe) -> None:
    assert image.newest(recipe) is None
    a_tree(recipe, age=7200)
    newest = a_tree(recipe, age=60)
    a_tree(dataclasses.replace(recipe, apt_options=("x",)), age=1)
    (image.directory() / ".building-1").mkdir()
    assert image.newest(recipe) == newest


def test_a_tree_is_fresh_for_a_day(recipe: Recipe) -> None:
    assert image.is_fresh(a_tree(recipe, age=image.MAX_AGE - 60))
    assert not image.is_fresh(a_tree(recipe, age=image.MAX_AGE + 60))
    assert not image.is_fresh(a_tree(recipe, age=-3600))  # the clock went back


def test_offline_an_old_tree_serves(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(recipe: Recipe) -> Path:
        raise LabError("mmdebstrap failed: no network")

    monkeypatch.setattr(image, "build", fails)
    said: list[str] = []
    with pytest.raises(LabError, match="no network"):
        lifecycle._base("trixie", Progress(said.append))
    old = a_tree(recipe, age=3 * image.MAX_AGE)
    assert lifecycle._base("trixie", Progress(said.append)) == old
    assert "goes on serving: mmdebstrap failed: no network" in said[-1]


def test_a_stale_tree_is_made_anew(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    a_tree(recipe, age=3 * image.MAX_AGE)
    new = image.directory() / "new"
    monkeypatch.setattr(image, "build", lambda recipe: new)
    assert lifecycle._base("trixie", Progress(lambda text: None)) == new


def test_superseded_trees_go_unless_a_lab_runs_on_them(recipe: Recipe) -> None:
    used, unused, newest = (a_tree(recipe, age=age) for age in (9000, 6000, 3000))
    other_suite = a_tree(dataclasses.replace(recipe, suite="bookworm"), age=9000)
    state.write(Layout("one"), Record("one", 1, "trixie", (HostRecord("cdn", 3, used.name),)))
    image.prune("trixie")
    assert used.exists()
    assert newest.exists()
    assert other_suite.exists()
    assert not unused.exists()

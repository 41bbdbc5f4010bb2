"""Which release an upgrade starts from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.tools import needs
from tests.upgrade.release import Release, ReleaseError, previous, unpacked


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, version: str, other: str = "") -> str:
        (self.root / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        (self.root / "other").write_text(other)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", version)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    needs("git", "git")
    return Repository(tmp_path)


def test_the_newest_tag_below_this_commit(repository: Repository) -> None:
    repository.commit("1.0")
    repository.git("tag", "v1.0")
    tagged = repository.commit("1.1")
    repository.git("tag", "-a", "-m", "1.1", "v1.1")
    repository.commit("1.2")
    repository.git("tag", "v1.2")
    assert previous(root=repository.root) == Release(tagged, "the tag v1.1")


def test_without_tags_the_newest_commit_of_another_version(repository: Repository) -> None:
    repository.commit("1.0")
    last = repository.commit("1.1")
    repository.commit("1.2", "a")
    repository.commit("1.2", "b")
    assert previous(root=repository.root) == Release(last, f"version 1.1, {last[:9]}")


@pytest.mark.parametrize("given", [None, ""])
def test_without_either_it_must_be_said(repository: Repository, given: str | None) -> None:
    repository.commit("1.0", "a")
    repository.commit("1.0", "b")
    with pytest.raises(ReleaseError, match=r"^no tag below HEAD .*1\.0: .*PREVIOUS=<tag or commit>$"):
        previous(given, root=repository.root)


def test_what_is_given_comes_first(repository: Repository) -> None:
    first = repository.commit("1.0", "a")
    repository.commit("1.0", "b")
    repository.git("tag", "v1.0")
    repository.commit("1.1")
    assert previous("HEAD~2", root=repository.root) == Release(first, "HEAD~2")


@pytest.mark.parametrize("given", ["nothing", "--all", "HEAD:pyproject.toml"])
def test_what_is_no_commit_is_refused(repository: Repository, given: str) -> None:
    repository.commit("1.0")
    with pytest.raises(ReleaseError, match=f"^PREVIOUS={given}: no such commit here$"):
        previous(given, root=repository.root)


def test_a_release_that_can_not_be_installed_says_why(repository: Repository, tmp_path: Path) -> None:
    (repository.root / "Makefile").write_text("venv:\n\t@echo no Python; exit 7\n")
    commit = repository.commit("1.0")
    with pytest.raises(ReleaseError, match=r"(?s)^make venv exits 2:\nno Python\n"):
        unpacked(Release(commit, "1.0"), tmp_path / "unpacked", root=repository.root)
    assert (tmp_path / "unpacked/Makefile").exists()
    assert repository.git("worktree", "list").count("\n") == 0


def test_without_git_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match="git is not installed"):
        previous(root=tmp_path)

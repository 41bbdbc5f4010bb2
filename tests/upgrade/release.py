"""Which release comes before this tree, and its deploy: unpacked elsewhere, with a separate venv."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.kit.deployment import INVENTORY, ROOT


class ReleaseError(Exception):
    """There is no such release, or it can't be deployed; its text is one line, or pyinfra's own."""


@dataclass(frozen=True)
class Release:
    """A state of this repository that shops run."""

    commit: str
    """The full name of the commit."""

    name: str
    """How it was found, for people."""


def previous(given: str | None = None, *, root: Path = ROOT) -> Release:
    """The release that an upgrade to this tree starts from.

    That is `given`, else the newest tag below HEAD, else the newest commit with another version in
    pyproject.toml.

    :param given: any name of a commit.
    :raises ReleaseError: there is none, or no git to ask.
    """
    if shutil.which("git") is None:
        raise ReleaseError("git is not installed: apt-get install git")
    if given:
        commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{given}^{{commit}}")
        if not commit:
            raise ReleaseError(f"PREVIOUS={given}: no such commit here")
        return Release(commit, given)
    tag = _git(root, "describe", "--tags", "--abbrev=0", "HEAD^")
    if tag:
        return Release(_git(root, "rev-parse", f"{tag}^{{commit}}"), f"the tag {tag}")
    now = _version((root / "pyproject.toml").read_text())
    # Only a commit that touches the file can have another version than its child.
    for commit in _git(root, "rev-list", "HEAD", "--", "pyproject.toml").split():
        then = _version(_git(root, "show", f"{commit}:pyproject.toml"))
        if then and then != now:
            return Release(commit, f"version {then}, {commit[:9]}")
    raise ReleaseError(
        f"no tag below HEAD and no commit with another version than {now}: "
        "say which release shops run, PREVIOUS=<tag or commit>"
    )


def unpacked(release: Release, directory: Path, *, root: Path = ROOT) -> None:
    """Puts the release's files into `directory` and installs what its own lock file says.

    An archive, no worktree: nothing is left behind in the repository when this is killed.

    :raises ReleaseError: `make venv` of that release failed; with the end of its output.
    """
    archive = subprocess.run(
        ["git", "archive", "--format=tar", release.commit], cwd=root, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    _run(["make", "--no-print-directory", "venv"], directory, "make venv")


def deploy(release: Release, directory: Path) -> None:
    """Deploys an unpacked release onto the lab that LAB_NAME says.

    :raises ReleaseError: with what pyinfra said.
    """
    _run([".venv/bin/pyinfra", "-y", INVENTORY, "deploy.py"], directory, f"the deploy of {release.name}")


def _run(command: list[str], directory: Path, what: str) -> None:
    # MAKEFLAGS and PATH of a `make` around this one are about this tree.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYINFRA_", "MAKE")) and name not in {"MFLAGS", "VIRTUAL_ENV", "PYTHONPATH"}
    }
    result = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        end = "\n".join(result.stdout.splitlines()[-60:])
        raise ReleaseError(f"{what} exits {result.returncode}:\n{end}")


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where it refuses."""
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _version(pyproject: str) -> str:
    """The version, or nothing if the file has none that can be read."""
    try:
        version = tomllib.loads(pyproject)["project"]["version"]
    except (tomllib.TOMLDecodeError, KeyError):
        return ""
    return str(version)

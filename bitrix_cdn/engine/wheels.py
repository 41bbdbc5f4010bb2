"""A Python application as one archive of wheels, built here for the Python of the hosts.

The hosts install from it without any package index; every file in it is named by a hash in the lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine.cache import CACHE

# glibc of Debian 12 is 2.36. Every older platform tag is named as well: pip takes the list literally,
# and with one tag alone it silently picks an older release of a package.
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")

WHEELS = CACHE / "wheels"


@dataclass(frozen=True)
class Bundle:
    """An application with all of its dependencies, as wheels."""

    id: str
    """Hash of what it was built from: the same sources and lock give the same id on every machine."""

    archive: Path
    """A tar archive: the wheels, and `requirements.txt` with a hash for each."""


def bundle(project: Path, python: str, machine: str) -> Bundle:
    """Builds the bundle of a project, or returns the one built before.

    :param project: directory with `pyproject.toml` and `requirements-<python>.lock`.
    :param python: the hosts' Python, such as `3.13`.
    :param machine: the hosts' hardware as `uname -m` names it.
    :raises PyinfraError: there is no lock for that Python, or a wheel for it can't be had.
    """
    lock = project / f"requirements-{python}.lock"
    if not lock.exists():
        known = ", ".join(sorted(p.name for p in project.glob("requirements-*.lock"))) or "none"
        raise PyinfraError(f"{project.name}: no wheels are locked for Python {python} (there is: {known})")
    identity = _identity(project, lock, python, machine)
    archive = WHEELS / f"{project.name}-{identity}.tar"
    if not archive.exists():
        WHEELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WHEELS) as work:
            _build(project, lock, python, machine, Path(work))
            built = Path(work) / "bundle.tar"
            built.rename(archive)
    return Bundle(identity, archive)


def _identity(project: Path, lock: Path, python: str, machine: str) -> str:
    digest = hashlib.sha256(f"{python} {machine}\n".encode())
    sources = [lock, project / "pyproject.toml", *sorted((project / "src").rglob("*"))]
    for path in sources:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(project)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(project: Path, lock: Path, python: str, machine: str, work: Path) -> None:
    wheels = work / "wheels"
    wheels.mkdir()
    # A copy, so that building leaves nothing in the sources.
    source = shutil.copytree(project, work / "source", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source))
    [own] = wheels.iterdir()
    platforms = [f"--platform={tag}_{machine}" for tag in _PLATFORMS]
    _pip(
        *("download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={python}", f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"),
        *(*platforms, "-d", str(wheels), "-r", str(lock)),
    )
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    name, version = own.name.split("-")[:2]
    (wheels / "requirements.txt").write_text(f"{lock.read_text()}{name}=={version} --hash=sha256:{digest}\n")
    with tarfile.open(work / "bundle.tar", "w") as archive:
        for path in sorted(wheels.iterdir()):
            archive.add(path, path.name)


def _pip(command: str, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pip", command, "-q", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"},  # a wheel is a zip: its times are content
        check=False,
    )
    if result.returncode:
        reason = next((line for line in result.stderr.splitlines() if line.startswith("ERROR")), "")
        raise PyinfraError(f"pip {command} failed: {reason or result.stderr.strip()[-300:]}")

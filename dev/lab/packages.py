"""Packages that hosts downloaded, kept so that the next host needn't.

Two hosts' apts can't share one archives directory, its lock stops the second. So each
new host gets hard links of the pool as a layer below its own (what it changes is copied
up first), and what it downloaded beyond that is linked back into the pool when it goes.
apt checks every file's size before it uses it.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from dev.lab import layout
from dev.lab.layout import HostLayout

ARCHIVES = Path("var/cache/apt/archives")
KEPT_VERSIONS = 2


def pool(suite: str) -> Path:
    """Return the directory with the packages of `suite`."""
    return layout.cache_directory() / "packages" / suite


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
            raise
        partial = target.with_name(f".{target.name}")
        shutil.copy2(source, partial)
        partial.rename(target)


def provide(suite: str, host: HostLayout) -> int:
    """Lay the pool out below `host`'s own layer; return how many packages it holds."""
    archives = host.packages / ARCHIVES
    archives.mkdir(parents=True)
    packages = sorted(pool(suite).glob("*.deb")) if pool(suite).is_dir() else []
    for package in packages:
        _link(package, archives / package.name)
    return len(packages)


def harvest(suite: str, host: HostLayout) -> int:
    """Add what `host` downloaded to the pool; return how many packages were new.

    Of each package the newest versions are kept, :data:`KEPT_VERSIONS` of them.
    """
    downloaded = host.upper / ARCHIVES
    if not downloaded.is_dir():
        return 0
    pool(suite).mkdir(parents=True, exist_ok=True)
    new = 0
    for package in sorted(downloaded.glob("*.deb")):
        target = pool(suite) / package.name
        # Whiteouts of overlayfs are character devices: a package that the host removed.
        if package.is_symlink() or not package.is_file() or target.exists():
            continue
        try:
            _link(package, target)
        except FileExistsError:
            continue
        new += 1
        _drop_old(pool(suite), package.name)
    return new


def _drop_old(directory: Path, name: str) -> None:
    parts = name.removesuffix(".deb").split("_")
    same = directory.glob(f"{parts[0]}_*_{parts[-1]}.deb")
    # The date of a package is that of its making: apt keeps the mirror's.
    for old in sorted(same, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_VERSIONS:]:
        old.unlink(missing_ok=True)

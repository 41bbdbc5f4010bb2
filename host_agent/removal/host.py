"""Finds what a deploy installed on this host, and removes it: units, files, accounts; apt removes packages.

The operator's machine sends this code, which removes the agent as well. All of it can be run again wherever
it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from host_agent.json_output import AgentError, print_result

MARK = b"Managed by bitrix-cdn from templates/"
"""What one of the first lines of each file from a template says."""

PLACES = ("etc", "usr/local")
"""Where these files are."""

STATE = "var/lib/bitrix-cdn"

# Never stopped, whoever enabled them.
_SYSTEM = {
    *("firewalld.service", "nftables.service", "ssh.service", "sshd.service"),
    *("systemd-journald.service", "logrotate.timer"),
}


# Every host has them, though no package may own them.
_OF_THE_SYSTEM = {
    *("/.", "/etc", "/mnt", "/opt", "/srv", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib"),
    *("/var", "/var/cache", "/var/lib", "/var/log"),
}


class Removal:
    """One host, as the settings describe it.

    :param spec: `accounts` that the deploy adds; `packages` that it installs; `owned` directories and files,
        `empty` directories, which go if nothing is in them, and `data`.
    """

    def __init__(self, spec: dict[str, list[str]], root: Path = Path("/")) -> None:
        self._spec = spec
        self._root = root

    def found(self, *, data: bool) -> dict[str, Any]:
        """The things that can be removed."""
        # What dnf brought can't be told from what it had to bring along.
        known = (self._root / STATE / "before").is_dir() and bool(shutil.which("dpkg-query"))
        return {
            "units": self.units(),
            "files": [*map(str, self.files()), *self.owned(data=data)],
            "accounts": self.accounts(),
            "packages": self.packages() if known else [],
            "known": known,
            "stays": self.present("data") if not data else [],
        }

    def remove(self, *, data: bool) -> None:
        """Removes them, except for the packages."""
        self._refuse_mounted(data=data)
        units, files = self.units(), self.files()
        for unit in reversed(units):
            _run("systemctl", "disable", "-q", "--now", unit)
        for path in files:
            path.unlink(missing_ok=True)
            self._tidy(path.parent)
        self._apply(files)
        for name in self.accounts():
            # The account that writes resize_cache has the number of www-data, whose processes may run.
            _run("userdel", "-f", name)
        self._refuse_mounted(data=data)
        for name in self.owned(data=data):
            _gone(self._root / name.lstrip("/"))
            self._tidy(self._root.joinpath(name.lstrip("/")).parent)
        for name in self._spec["empty"]:
            with contextlib.suppress(OSError):
                self._root.joinpath(name.lstrip("/")).rmdir()
                self._tidy(self._root.joinpath(name.lstrip("/")).parent)

    def forget(self) -> None:
        """Removes the record of the deploy, when nothing else is left."""
        _gone(self._root / STATE)

    def units(self) -> list[str]:
        """Units that the deploy runs, in no order; those that ran before the first one stay."""
        ours = {
            path.name
            for path in self.files()
            if path.parent == self._root / "etc/systemd/system" and "@." not in path.name
        }
        stamped = self._root / STATE / "applied"
        if stamped.is_dir():
            ours |= {path.name for path in stamped.iterdir() if "." in path.name and path.suffix != ".new"}
        return sorted(ours - self._before("units") - _SYSTEM)

    def files(self) -> list[Path]:
        """Files from our templates that no package owns."""
        found = []
        for place in PLACES:
            for directory, _, names in os.walk(self._root / place):
                found += [path for name in names if _marked(path := Path(directory, name))]
        owned = set(self._packaged(found))
        return sorted(path for path in found if str(path) not in owned)

    def owned(self, *, data: bool) -> list[str]:
        """Directories and files that are the project's alone."""
        return [*self.present("owned"), *(self.present("data") if data else [])]

    def present(self, kind: str) -> list[str]:
        """Of the paths of a kind, those that there are."""
        return [name for name in self._spec[kind] if os.path.lexists(self._root / name.lstrip("/"))]

    def accounts(self) -> list[str]:
        """Accounts that the deploy added."""
        with self._root.joinpath("etc/passwd").open() as lines:
            here = {line.partition(":")[0] for line in lines}
        return [name for name in self._spec["accounts"] if name in here - self._before("accounts")]

    def packages(self) -> list[str]:
        """Packages that the deploy installed, and that are still there."""
        said = _run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").stdout.splitlines()
        here = {line.partition(" ")[2] for line in said if line.startswith("installed ")}
        return sorted((set(self._spec["packages"]) & here) - self._before("packages"))

    def _before(self, what: str) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return set((self._root / STATE / "before" / what).read_text().split())
        return set()

    def _packaged(self, paths: Sequence[Path]) -> Iterable[str]:
        """Those that a package brought, such as /etc/nginx/nginx.conf: they go with it."""
        if not paths:
            return
        for line in _run("dpkg-query", "-S", *map(str, paths)).stdout.splitlines():
            yield line.partition(": ")[2]

    def _tidy(self, directory: Path) -> None:
        """Removes a directory that is empty now and no package's, and those above it."""
        while f"/{directory.relative_to(self._root)}" not in _OF_THE_SYSTEM:
            if not directory.is_dir() or any(directory.iterdir()) or list(self._packaged([directory])):
                return
            directory.rmdir()
            directory = directory.parent

    def _apply(self, removed: Sequence[Path]) -> None:
        """Makes the services that keep running load the configuration that is left."""
        _run("systemctl", "daemon-reload")
        _run("systemctl", "reset-failed")
        places = {path.parent for path in removed}
        if self._root / "etc/ssh/sshd_config.d" in places and not _run("sshd", "-t").returncode:
            for unit in ("ssh.service", "sshd.service"):
                _run("systemctl", "try-reload-or-restart", unit)
        if any(self._root / "etc/firewalld" in place.parents for place in places):
            _run("firewall-cmd", "--reload")
        if self._root / "etc/systemd/journald.conf.d" in places:
            _run("systemctl", "restart", "systemd-journald.service")

    def _refuse_mounted(self, *, data: bool) -> None:
        """Never removes through a mount: what is behind it is another host's, or the shop's.

        :raises AgentError: something is mounted there.
        """
        with open("/proc/self/mounts") as lines:  # noqa: PTH123
            points = [line.split()[1] for line in lines]
        for name in self.owned(data=data):
            real = os.path.realpath(self._root / name.lstrip("/"))
            for point in points:
                if point == real or point.startswith(f"{real}/"):
                    raise AgentError(f"{point} is mounted: unmount it, then run this again")


def _marked(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return MARK in file.read(400)
    except OSError:
        return False


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:  # an RPM host has no dpkg
        return subprocess.CompletedProcess(command, 127, "", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, for the description of the host on standard input."""
    parser = argparse.ArgumentParser(prog="removal", description="What `bitrix-cdn remove` does on a host.")
    parser.add_argument("command", choices=("list", "remove", "forget"))
    parser.add_argument("--data", action="store_true", help="data as well")
    options = parser.parse_args(arguments)
    removal = Removal(json.load(sys.stdin))
    commands: dict[str, Callable[[], object]] = {
        "list": lambda: removal.found(data=options.data),
        "remove": lambda: removal.remove(data=options.data),
        "forget": removal.forget,
    }
    return print_result(commands[options.command])

"""The bare Debian that every host starts from: one tree per suite, made by mmdebstrap.

A tree never changes once it has its name, so that hosts can run on it and a killed build
leaves nothing that looks whole. It is rebuilt when its recipe changes and when its
package lists are older than a day: a mirror no longer has the packages of old lists. When
that fails, as it does offline, the older tree serves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev.lab import layout
from dev.lab.errors import LabError
from dev.lab.state import all_records

MAX_AGE = 86_400  # seconds

# What a provider's image has beyond Debian's essential packages and apt.
# Not libpam-systemd: a login can hang 100 s when the host's systemd fails to stop user@0.
PACKAGES = (
    "ca-certificates",
    "cron",
    "dbus",
    "iproute2",
    "iputils-ping",
    "less",
    "logrotate",
    "nano",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)

# No console to log in at, no network to wait for, and nothing that takes apt's lock by itself.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "getty.target",
    "systemd-networkd-wait-online.service",
)

FILES = {
    # The lab harvests these, so that the next host doesn't download them again.
    "etc/apt/apt.conf.d/90lab": 'Binary::apt::APT::Keep-Downloaded-Packages "true";\n'
    'APT::Keep-Downloaded-Packages "true";\n'
    'Acquire::Languages "none";\n',
    # Nothing may pull it in as a mere recommendation, see PACKAGES.
    "etc/apt/preferences.d/lab": "Package: libpam-systemd\nPin: release *\nPin-Priority: -1\n",
    # Hosts are thrown away: an fsync per unpacked file would only cost time.
    "etc/dpkg/dpkg.cfg.d/lab": "force-unsafe-io\n",
    # Installers set a locale; without the file each login complains.
    "etc/default/locale": "LANG=C.UTF-8\n",
}


@dataclass(frozen=True)
class Recipe:
    """All that decides what a base tree holds.

    `sources` are lines for apt, none for mmdebstrap's default; `apt_options` are the
    machine's own settings of how to reach mirrors.
    """

    suite: str
    sources: tuple[str, ...]
    apt_options: tuple[str, ...]

    def digest(self) -> str:
        """Return 12 hexadecimal digits that change with the recipe."""
        text = json.dumps([self.suite, self.sources, self.apt_options, PACKAGES, MASKED, FILES])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def recipe(suite: str) -> Recipe:
    """Return the recipe for `suite` on this machine, using its own apt sources if they are Debian's."""
    return Recipe(
        suite, tuple(debian_sources(suite, _apt_source_files(), _codename())), tuple(_apt_options())
    )


def _codename() -> str | None:
    """Return the machine's Debian codename, None when it doesn't run Debian."""
    settings = {}
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/etc/os-release").read_text().splitlines():
            key, _, value = line.partition("=")
            settings[key] = value.strip('"')
    return settings.get("VERSION_CODENAME") if settings.get("ID") == "debian" else None


def _apt_source_files() -> list[str]:
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return [file.read_text() for file in files if file.suffix in {".list", ".sources"} and file.is_file()]


def debian_sources(suite: str, files: Iterable[str], codename: str | None) -> list[str]:
    """Return apt lines for `suite` from the machine's sources, with its codename exchanged.

    Empty, which means mmdebstrap's default, when the machine isn't Debian or its sources
    don't name its release over the network.
    """
    if codename is None:
        return []
    wanted = {f"{codename}{part}": f"{suite}{part}" for part in ("", "-updates", "-security")}
    lines: list[str] = []
    for text in files:
        for uris, suites, components in [*_deb822(text), *_one_line(text)]:
            lines += [
                f"deb {uri} {wanted[name]} {' '.join(components)}"
                for uri in uris
                if uri.startswith(("http://", "https://"))
                for name in suites
                if name in wanted and "main" in components
            ]
    has_release = any(line.split()[2] == suite for line in lines)
    return list(dict.fromkeys(lines)) if has_release else []


_Source = tuple[list[str], list[str], list[str]]


def _deb822(text: str) -> list[_Source]:
    sources: list[_Source] = []
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            sources.append(
                (
                    fields.get("uris", "").split(),
                    fields.get("suites", "").split(),
                    fields.get("components", "").split(),
                )
            )
    return sources


def _one_line(text: str) -> list[_Source]:
    sources: list[_Source] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        if len(words) > 1 and words[1].startswith("["):
            end = next((i for i, word in enumerate(words) if word.endswith("]")), len(words))
            words = ["deb", *words[end + 1 :]]
        if len(words) > 3:
            sources.append(([words[1]], [words[2]], words[3:]))
    return sources


def _apt_options() -> list[str]:
    """Return the machine's settings of proxies and of how strict to be with a mirror's dates."""
    result = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    prefixes = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries")
    return [
        line for line in result.stdout.splitlines() if line.startswith(prefixes) and not line.endswith('"";')
    ]


def for_guests(apt_options: Iterable[str]) -> list[str]:
    """Return the settings that hold inside a host too: a proxy on the machine's loopback doesn't."""
    local = ("://localhost", "://127.", "://[::1]")
    return [line for line in apt_options if not any(name in line for name in local)]


def directory() -> Path:
    """Return where the trees are."""
    return layout.cache_directory() / "base"


def _trees(wanted: Recipe) -> list[Path]:
    """Return the finished trees of this recipe, oldest first."""
    return sorted(directory().glob(f"{wanted.suite}-{wanted.digest()}-*"), key=_made)


def _made(tree: Path) -> int:
    """Return when `tree` was made, seconds since the epoch."""
    return int(tree.name.rsplit("-", 1)[1])


def newest(wanted: Recipe) -> Path | None:
    """Return the newest finished tree of this recipe."""
    trees = _trees(wanted)
    return trees[-1] if trees else None


def is_fresh(tree: Path) -> bool:
    """Tell whether the tree's package lists are at most a day old."""
    return 0 <= time.time() - _made(tree) <= MAX_AGE


def build(wanted: Recipe) -> Path:
    """Make a tree of this recipe and return it; about 20 s and 100 MB of downloads.

    The caller holds the cache's lock.

    :raises LabError: mmdebstrap failed, and why; its whole log is `build.log` beside the trees.
    """
    directory().mkdir(parents=True, exist_ok=True)
    for leftover in directory().glob(".building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    building = directory() / f".building-{os.getpid()}"
    log = directory() / "build.log"
    command = [
        # A killed `up` takes mmdebstrap, its children and their mounts with it.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *(
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ),
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase"),
        f"--include={','.join(PACKAGES)}",
        # Hosts can install packages at once, offline too.
        "--skip=cleanup/apt/lists",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--aptopt={option}" for option in wanted.apt_options),
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service',
        f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}',
        *(wanted.suite, str(building), *wanted.sources),
    ]
    with log.open("wb") as output:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LC_ALL": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )
    if result.returncode != 0:
        shutil.rmtree(building, ignore_errors=True)
        lines = log.read_text(errors="replace").splitlines()
        reason = next((line for line in lines if line.startswith("E:")), lines[-1] if lines else "no message")
        raise LabError(f"mmdebstrap failed: {reason.removeprefix('E:').strip()} (log: {log})")
    _finish(building, wanted)
    tree = directory() / f"{wanted.suite}-{wanted.digest()}-{int(time.time())}"
    # On disk before it gets its name: after a power loss of the machine it is whole or not there.
    subprocess.run(["sync", "-f", str(building)], check=False)
    building.rename(tree)
    return tree


def _finish(tree: Path, wanted: Recipe) -> None:
    """Turn what mmdebstrap made into a base: nothing in it may be common to all hosts that must differ."""
    for key in tree.glob("etc/ssh/ssh_host_*"):
        key.unlink()
    (tree / "etc/machine-id").write_text("")
    for name, text in FILES.items():
        (tree / name).write_text(text)
    # mmdebstrap's own copy of its options names what is only right on the machine.
    for name in ("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"):
        (tree / name).unlink(missing_ok=True)
    (tree / "etc/apt/apt.conf.d/91machine").write_text(
        "".join(f"{line}\n" for line in for_guests(wanted.apt_options))
    )
    # What tools look at before they fetch the package lists again.
    stamp = tree / "var/lib/apt/periodic/update-success-stamp"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def prune(suite: str) -> None:
    """Remove superseded trees of `suite` that no lab runs on. The caller holds the cache's lock."""
    used = {host.base for record in all_records() for host in record.hosts}
    trees = sorted((tree for tree in directory().glob(f"{suite}-*-*")), key=_made)
    for tree in trees[:-1]:
        if tree.name not in used:
            # Renamed first: half a tree must not look like one.
            doomed = directory() / f".building-{tree.name}"
            tree.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bitrix_cdn.engine.distribution import DEBIAN, Distribution, known, read, supported
from bitrix_cdn.engine.packages import NotInstalled


def of(name: str, version: str) -> Distribution:
    found = known({"id": name, "version": version})
    assert found is not None
    return found


ROCKY, JAMMY = of("rocky", "9.4"), of("ubuntu", "22.04")


@pytest.mark.parametrize(
    ("name", "version", "title"),
    [
        ("debian", "12", "Debian 12"),
        ("debian", "13", "Debian 13"),
        ("ubuntu", "22.04", "Ubuntu 22.04"),
        ("ubuntu", "24.04", "Ubuntu 24.04"),
        ("rocky", "9.4", "Rocky Linux 9"),
        ("almalinux", "9.6", "AlmaLinux 9"),
        ("centos", "9", "CentOS Stream 9"),
        # Releases with other numbers, and untested ones.
        ("ubuntu", "22.10", None),
        ("ubuntu", "22", None),
        ("rocky", "8.10", None),
        ("debian", "11", None),
        ("debian", "", None),
        ("fedora", "41", None),
    ],
)
def test_a_host_is_what_its_os_release_says(name: str, version: str, title: str | None) -> None:
    found = known({"id": name, "version": version})
    assert (found and found.title) == title
    assert read(f"id {name}\nversion {version}\n") == found


def test_only_the_shops_host_may_be_another_than_debian() -> None:
    assert supported(only_shop=False) == "Debian 12 or Debian 13"
    assert supported(only_shop=True).startswith("Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04, Rocky")


def test_packages_have_their_own_names_on_each() -> None:
    wanted = ["sshfs", "openssh-sftp-server", "python3", "rsync"]
    assert DEBIAN.named(wanted) == wanted
    assert JAMMY.named(wanted) == ["sshfs", "openssh-sftp-server", "python3.11", "rsync"]
    assert ROCKY.named(wanted) == ["fuse-sshfs", "python3.11", "rsync"]


class Shell:
    """A directory of programs that note how they were called; those that fail say so by name."""

    def __init__(self, place: Path) -> None:
        self.bin, self.log = place / "bin", place / "log"
        self.bin.mkdir()
        self.log.touch()

    def program(self, name: str, *, fails: str = "nothing") -> None:
        path = self.bin / name
        path.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {self.log}\ncase "$*" in *{fails}*) exit 1 ;; esac\n'
        )
        path.chmod(0o755)

    def run(self, script: str) -> tuple[int, list[str]]:
        """The status, and what was called."""
        found = subprocess.run(
            ["/bin/sh", "-c", f"set -e\n{script}\necho went on >> {self.log}"],
            env={"PATH": str(self.bin)},
            check=False,
            capture_output=True,
        )
        return found.returncode, self.log.read_text().splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def script(distribution: Distribution) -> str:
    return distribution.install_script(["rsync", "sshfs"], commands=["rsync", "sshfs"])


def test_an_rpm_host_gets_epel_before_what_comes_from_there(shell: Shell) -> None:
    shell.program("rpm", fails="epel-release")
    shell.program("dnf")
    assert shell.run(script(ROCKY)) == (
        0,
        [
            "rpm -q epel-release",
            "dnf install -y -q epel-release",
            "dnf install -y -q --setopt=install_weak_deps=False rsync fuse-sshfs",
            "went on",
        ],
    )


@pytest.mark.parametrize("missing", ["epel-release", "fuse-sshfs"])
def test_a_package_that_cant_be_had_ends_the_script(shell: Shell, missing: str) -> None:
    shell.program("rpm", fails="epel-release")
    shell.program("dnf", fails=missing)
    status, called = shell.run(script(ROCKY))
    assert status == 1
    assert "went on" not in called


def test_debian_asks_its_mirror_again_before_it_gives_up(shell: Shell) -> None:
    shell.program("apt-get", fails="sshfs")
    status, called = shell.run(script(DEBIAN))
    assert (status, [line.split()[1] for line in called]) == (1, ["install", "update", "install"])


@pytest.mark.parametrize("distribution", [DEBIAN, ROCKY])
def test_nothing_is_installed_where_the_commands_are_there(shell: Shell, distribution: Distribution) -> None:
    for name in ("rsync", "sshfs"):
        shell.program(name)
    assert shell.run(script(distribution)) == (0, ["went on"])


def test_a_program_counts_whoever_put_it_there(shell: Shell, tmp_path: Path) -> None:
    shell.program("rpm", fails="restic")
    (tmp_path / "node_exporter").touch()
    names = [str(tmp_path / "node_exporter"), str(tmp_path / "curl"), "fuse3", "restic"]
    found = subprocess.run(
        ["/bin/sh", "-c", NotInstalled().command(names)],
        env={"PATH": str(shell.bin)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.splitlines() == [str(tmp_path / "curl"), "restic"]

"""The machine that the lab runs on: what it must have, what is set on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from dev.lab import layout
from dev.lab.errors import LabError, RequirementError
from dev.lab.state import write_atomically

# Program -> Debian package.
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
# Debian's archive keys: there on Debian, not on Ubuntu.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Guests share these with the machine and can't write them. A minimum each; what is higher stays.
SYSCTLS = {
    "fs.inotify.max_user_watches": 1_048_576,
    "fs.inotify.max_user_instances": 1_024,
    "fs.inotify.max_queued_events": 65_536,
    "net.ipv4.ip_forward": 1,
    # Redis forks to save; without this its background save fails when memory is tight.
    "vm.overcommit_memory": 1,
}


def packages() -> list[str]:
    """Return the Debian packages that the lab needs on this machine."""
    return sorted({*PROGRAMS.values(), "debian-archive-keyring"})


def run(*command: str, stdin: str | None = None) -> str:
    """Run `command` and return its standard output.

    :raises LabError: it fails; has the last line of its standard error.
    """
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"{command[0]}: {error.strerror}") from None
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        reason = next((line for line in lines if "rror" in line), lines[-1] if lines else "no message")
        raise LabError(f"`{' '.join(command)}` failed ({result.returncode}): {reason.strip()}")
    return result.stdout


def require_root() -> None:
    """Raise :class:`RequirementError` unless we are root."""
    if os.geteuid() != 0:
        raise RequirementError("the lab needs root: run it with sudo")


def require() -> None:
    """Raise :class:`RequirementError` for the first thing that this machine lacks."""
    require_root()
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        names = " ".join(missing)
        raise RequirementError(f"the lab needs packages that aren't installed: apt-get install {names}")
    if not Path("/dev/fuse").is_char_device():
        raise RequirementError("the lab needs /dev/fuse: load the kernel module with `modprobe fuse`")
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        modprobe = shutil.which("modprobe")
        if modprobe is None or subprocess.run([modprobe, "-q", "overlay"], check=False).returncode != 0:
            raise RequirementError("the lab needs overlayfs: `modprobe overlay`, or a kernel that has it")
    cgroup_root()
    state = layout.state_root()
    nearest = next(path for path in (state, *state.parents) if path.exists())
    if run("stat", "--file-system", "--format=%T", str(nearest)).strip() == "overlayfs":
        raise RequirementError(
            f"{state} is on overlayfs, which holds no other: set LAB_STATE to a directory on a disk"
        )


def _cgroup_mounts(*kinds: str) -> list[Path]:
    """Return where control group hierarchies of these kinds (`cgroup2`, `cgroup`) are mounted."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if source.split()[:1] and source.split()[0] in kinds:
            mounts.append(Path(mount.split()[4]))
    return mounts


def cgroup_root() -> Path:
    """Return where the unified cgroup hierarchy is mounted.

    :raises RequirementError: it isn't, or can't be written.
    """
    for mount in _cgroup_mounts("cgroup2"):
        if os.access(mount, os.W_OK):
            return mount
    raise RequirementError("the lab needs a writable cgroup2 mount: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def cgroups_below(group: Path) -> list[Path]:
    """Return `group` and those below it, parents first; groups come and go while we look."""
    return [Path(path) for path, _, _ in os.walk(group)]


def remove_cgroup(group: Path) -> None:
    """Remove control group `group` and those below it, if they are empty.

    nspawn mirrors it in the other hierarchies where v1 is mounted too: there it goes as well.
    """
    relative = group.relative_to(cgroup_root())
    for root in _cgroup_mounts("cgroup2", "cgroup"):
        for path in reversed(cgroups_below(root / relative)):
            with contextlib.suppress(OSError):
                path.rmdir()


def make_cgroup(group: Path) -> None:
    """Make control group `group` (a path below :func:`cgroup_root`) with what controllers there are.

    :raises RequirementError: the kernel refuses.
    """
    try:
        group.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequirementError(f"the lab can't make control group {group}: {error.strerror}") from None
    root = cgroup_root()
    for path in [*reversed(group.relative_to(root).parents)]:
        for controller in (root / path / "cgroup.controllers").read_text().split():
            # Not every controller can be had everywhere; hosts do without.
            with contextlib.suppress(OSError):
                (root / path / "cgroup.subtree_control").write_text(f"+{controller}")


def booted_by_systemd() -> bool:
    """Tell whether systemd is this machine's init, as `sd_booted(3)` does."""
    return Path("/run/systemd/system").is_dir()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def _before() -> Path:
    return layout.state_root() / ".sysctl-before.json"


def raise_limits() -> None:
    """Set what guests need and can't set; the former values are kept for :func:`restore_limits`.

    :raises RequirementError: the kernel refuses.
    """
    before: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        before = json.loads(_before().read_text())
    for name, wanted in SYSCTLS.items():
        current = int(_sysctl(name).read_text())
        if current >= wanted:
            continue
        if name not in before:
            before[name] = current
            _before().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(_before(), json.dumps(before))
        try:
            _sysctl(name).write_text(str(wanted))
        except OSError as error:
            raise RequirementError(
                f"the lab needs {name}={wanted}, and can't set it: {error.strerror}"
            ) from None


def restore_limits() -> None:
    """Restore what :func:`raise_limits` changed, unless it was changed again since."""
    try:
        before: dict[str, int] = json.loads(_before().read_text())
    except (FileNotFoundError, ValueError):
        return
    for name, former in before.items():
        if name in SYSCTLS and int(_sysctl(name).read_text()) == SYSCTLS[name]:
            with contextlib.suppress(OSError):
                _sysctl(name).write_text(str(former))
    _before().unlink(missing_ok=True)

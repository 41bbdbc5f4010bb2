"""One host: its files, its processes, its power switch.

A host's processes live in a control group of their own, which is how they are found and
killed, whoever started them. Its root is mounted in its own mount namespace: when
its last process ends, nothing is left mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dev.lab import image, machine, network, packages
from dev.lab.errors import LabError
from dev.lab.layout import Layout
from dev.lab.machine import run
from dev.lab.state import HostRecord, Record, write_atomically

_NSPAWN_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    # Hosts get cgroup v2 where the machine still mounts v1 controllers beside it.
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # Whether /tmp is in memory is the release's own choice.
    "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
}
BOOT_TIMEOUT = 180.0  # seconds; 2 to 4 when the machine is idle
_KILL_TIMEOUT = 20.0

# Runs in its own mount namespace: what it mounts goes with the host's last process.
# Arguments: control group, lower, upper, work, root, device number of /dev/fuse (major, minor), nspawn's.
_START = """\
set -eu
group=$1
mkdir -p "$group/keeper"
echo $$ > "$group/keeper/cgroup.procs"
exec < /dev/null  # was the lock of _power: from here on the control group shows that the host runs
for controller in $(cat "$group/cgroup.controllers"); do
    echo "+$controller" > "$group/cgroup.subtree_control" || true
done 2>/dev/null
mount -t overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" overlay "$5"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn
# Where nothing like udev runs, the machine's own node is for root alone.
fuse=/run/systemd/nspawn/fuse
mknod -m 0666 "$fuse" c "$6" "$7" || fuse=/dev/fuse
shift 7
boot=0
while :; do
    boot=$((boot + 1))
    mkdir -p "$group/boot-$boot"
    status=0
    sh -c 'echo $$ > "$0/cgroup.procs"; exec systemd-nspawn "$@"' "$group/boot-$boot" \
        "--bind=$fuse:/dev/fuse" "$@" || status=$?
    [ "$status" -eq 133 ] || exit "$status"  # 133: the host wants to be booted again
done
"""


def cgroup(files: Layout, host: HostRecord) -> Path:
    """Return the control group that holds all processes of `host`, there or not."""
    if machine.booted_by_systemd():
        return machine.cgroup_root() / "machine.slice" / f"{_unit(files, host)}.scope"
    return machine.cgroup_root() / "bitrix-cdn-lab" / files.name / host.name


def _unit(files: Layout, host: HostRecord) -> str:
    # Names have no '.', so no two hosts of two labs share a unit.
    return f"bitrix-cdn-lab-{files.name}.{host.name}"


def _processes(group: Path) -> Iterator[int]:
    for path in machine.cgroups_below(group):
        with contextlib.suppress(OSError):
            yield from map(int, (path / "cgroup.procs").read_text().split())


def runs(files: Layout, host: HostRecord) -> bool:
    """Tell whether `host` has any process."""
    return _populated(cgroup(files, host))


def _populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def leader(files: Layout, host: HostRecord) -> int | None:
    """Return the process that is PID 1 inside `host`, None when there is none (yet)."""
    own_depth = len(_namespace_pids(os.getpid()))
    for pid in _processes(cgroup(files, host)):
        if _namespace_pids(pid)[own_depth:] == [1] and Path(f"/proc/{pid}/root/etc/machine-id").exists():
            return pid
    return None


def _namespace_pids(pid: int) -> list[int]:
    """Return the process's number in each PID namespace from ours inwards."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def prepare(files: Layout, record: Record, host: HostRecord) -> None:
    """Lay out a bare host on its base tree, complete or not at all; needs its SSH host keys."""
    where = files.host(host.name)
    unfinished = files.hosts / f".{host.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    fresh = type(where)(unfinished)
    fresh.upper.mkdir(parents=True, mode=0o755)
    unfinished.chmod(0o700)
    for directory in (fresh.work, fresh.root):
        directory.mkdir()
    packages.provide(record.suite, fresh)

    gateway = network.address(record.index, network.GATEWAY_NUMBER)
    own = network.address(record.index, host.number)
    prefix = network.subnet(record.index).prefixlen
    _write(fresh.upper, "etc/hostname", f"{host.name}\n")
    _write(
        fresh.upper, "etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" + hosts_lines(record)
    )
    # A new id from the start: systemd would otherwise take this for a first boot and apply presets.
    _write(fresh.upper, "etc/machine-id", f"{uuid.uuid4().hex}\n")
    _write(fresh.upper, "etc/resolv.conf", resolver_configuration())
    _write(
        fresh.upper,
        "etc/systemd/network/10-lab.network",
        f"[Match]\nName=host0\n\n[Network]\nAddress={own}/{prefix}\nGateway={gateway}\nIPv6AcceptRA=no\n",
    )
    _write(
        fresh.upper, "root/.ssh/authorized_keys", (files.client_keys / "ssh_key.pub").read_text(), mode=0o600
    )
    for directory in (fresh.upper / "root", fresh.upper / "root/.ssh"):
        directory.chmod(0o700)
    ssh = fresh.upper / "etc/ssh"
    ssh.mkdir()
    for key in files.host_keys(host.name).glob("ssh_host_*"):
        shutil.copy2(key, ssh)
    unfinished.rename(where.directory)


def _write(tree: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def hosts_lines(record: Record) -> str:
    """Return the lines of `/etc/hosts` that let the lab's hosts find each other."""
    return "".join(f"{network.address(record.index, host.number)} {host.name}\n" for host in record.hosts)


def resolver_configuration() -> str:
    """Return a `resolv.conf` that holds inside a host: the machine's, without resolvers on its loopback."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        with contextlib.suppress(OSError):
            lines = path.read_text().splitlines()
            kept = [line for line in lines if not line.startswith(("nameserver 127.", "nameserver ::1"))]
            if any(line.startswith("nameserver") for line in kept):
                return "\n".join(kept) + "\n"
    return "# The machine has no resolver that a host could reach.\n"


@contextlib.contextmanager
def _power(files: Layout, host: HostRecord) -> Iterator[int]:
    """Hold the power switch of `host`.

    A host that is being started holds it too until its control group shows it, whatever
    became of the command that started it: so it can't be overlooked.
    """
    path = files.host(host.name).directory / "power"
    deadline = time.monotonic() + _KILL_TIMEOUT
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(f"{host.name} has been starting for {_KILL_TIMEOUT:.0f} s") from None
                time.sleep(0.02)
        yield file.fileno()


def start(files: Layout, record: Record, host: HostRecord) -> None:
    """Power `host` on if it is off; it outlives this process.

    :raises LabError: its base tree is gone.
    """
    with _power(files, host) as lock:
        if not runs(files, host):
            _start(files, record, host, lock)


def _start(files: Layout, record: Record, host: HostRecord, lock: int) -> None:
    where = files.host(host.name)
    base = image.directory() / host.base
    if not base.is_dir():
        raise LabError(
            f"{host.name}'s base tree {base} is gone: `python -m dev.lab reset {host.name}` rebuilds it"
        )
    # A host that was killed leaves overlayfs' scratch directory behind; a mount wants it empty.
    shutil.rmtree(where.work, ignore_errors=True)
    where.work.mkdir(exist_ok=True)
    network.remove_port(record, host)
    scope: tuple[str, ...] = ()
    if machine.booted_by_systemd():
        unit = _unit(files, host)
        scope = ("systemd-run", "--scope", "--quiet", "--collect", "--slice=machine.slice", f"--unit={unit}")
        scope = (
            *scope,
            f"--description=Host {host.name} of lab {files.name}",
            "--property=Delegate=yes",
            "--",
        )
    else:
        machine.make_cgroup(cgroup(files, host))
    device = Path("/dev/fuse").stat().st_rdev
    command = [
        *scope,
        *("unshare", "--mount", "--propagation", "private", "--"),
        *("sh", "-c", _START, "sh", str(cgroup(files, host))),
        *(f"{where.packages}:{base}", str(where.upper), str(where.work), str(where.root)),
        *(str(os.major(device)), str(os.minor(device))),
        f"--directory={where.root}",
        f"--machine={network.machine_name(record.index, host.number)}",
        f"--hostname={host.name}",
        f"--network-bridge={network.bridge(record.index)}",
        # No machined and no unit of nspawn's own: works wherever there is a kernel.
        *("--register=no", "--keep-unit", "--settings=no"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        # Root of a real host may lock memory, and services drop from a set that has it.
        *("--capability=CAP_IPC_LOCK", "--quiet", "--boot"),
    ]
    with where.console_log.open("ab") as console:
        subprocess.Popen(
            command,
            stdin=lock,
            stdout=console,
            stderr=console,
            cwd="/",
            start_new_session=True,
            env=_NSPAWN_ENVIRONMENT,
        )


def kill(files: Layout, hosts: Sequence[HostRecord]) -> None:
    """Take the power from `hosts`: SIGKILL for all processes, nothing gets to flush or say goodbye.

    What a real power loss also takes, the written but unsynced pages, stays: the kernel
    that holds them goes on running.

    :raises LabError: a process survives.
    """
    groups = [cgroup(files, host) for host in hosts]
    for host, group in zip(hosts, groups, strict=True):
        if files.host(host.name).directory.is_dir():
            with _power(files, host):
                _kill_group(group)
        else:
            _kill_group(group)
    deadline = time.monotonic() + _KILL_TIMEOUT
    for host, group in zip(hosts, groups, strict=True):
        while _populated(group):
            if time.monotonic() > deadline:
                raise LabError(f"processes of {host.name} survive SIGKILL: {sorted(_processes(group))}")
            time.sleep(0.02)
            _kill_group(group)
        machine.remove_cgroup(group)


def _kill_group(group: Path) -> None:
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")


def kill_all(files: Layout) -> None:
    """Kill every host of the lab, recorded or not, and remove their control groups.

    :raises LabError: a process survives.
    """
    if machine.booted_by_systemd():
        prefix, suffix = _unit(files, HostRecord("", 0, "")), ".scope"
        groups = (machine.cgroup_root() / "machine.slice").glob(f"{prefix}*{suffix}")
    else:
        prefix, suffix = "", ""
        groups = (machine.cgroup_root() / "bitrix-cdn-lab" / files.name).glob("*/")
    names = {path.name.removeprefix(prefix).removesuffix(suffix) for path in groups if path.is_dir()}
    # One that is only just being started has no control group yet.
    names |= {path.name for path in files.hosts.glob("[!.]*/")}
    kill(files, [HostRecord(name, 0, "") for name in sorted(names)])
    if not machine.booted_by_systemd():
        own = machine.cgroup_root() / "bitrix-cdn-lab" / files.name
        machine.remove_cgroup(own)
        if not any(own.parent.glob("*/")):
            machine.remove_cgroup(own.parent)


def command_line(files: Layout, host: HostRecord, command: Sequence[str]) -> list[str]:
    """Return how to run `command` inside `host` without its network.

    :raises LabError: the host doesn't run.
    """
    pid = leader(files, host)
    if pid is None:
        raise LabError(f"{host.name} isn't running: `python -m dev.lab start {host.name}`")
    environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LANG=C.UTF-8",
    ]
    if "TERM" in os.environ:
        environment.append(f"TERM={os.environ['TERM']}")
    return [
        *("nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"),
        *("/usr/bin/env", "-i", "-C", "/root", *environment, *command),
    ]


def enter_cgroup(files: Layout, host: HostRecord) -> None:
    """Move this process beside `host`'s init, where it counts as the host's and no unit's."""
    pid = leader(files, host)
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                group = machine.cgroup_root() / line.removeprefix("0::").lstrip("/")
                (group / "cgroup.procs").write_text(str(os.getpid()))


def _ask(files: Layout, host: HostRecord, *command: str, timeout: float = 10) -> str:
    """Return what `command` says inside `host`, empty when the host can't be asked."""
    try:
        inside = command_line(files, host, command)
        result = subprocess.run(
            inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout
        )
    except (LabError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()


def system_state(files: Layout, host: HostRecord) -> str:
    """Return what `systemctl is-system-running` says inside `host`, empty when it can't be asked."""
    return _ask(files, host, "systemctl", "is-system-running")


def failed_units(files: Layout, host: HostRecord) -> list[str]:
    """Return the units that failed inside `host`."""
    listing = _ask(files, host, "systemctl", "list-units", "--state=failed", "--plain", "--no-legend")
    return [line.split()[0] for line in listing.splitlines() if line]


def answers_ssh(address: str, timeout: float = 1) -> bool:
    """Tell whether an SSH server greets us at `address`."""
    try:
        with socket.create_connection((address, 22), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def state(files: Layout, host: HostRecord, *, cut: bool) -> str:
    """Return `running`, `starting`, `partitioned` or `stopped`."""
    if not runs(files, host):
        return "stopped"
    if system_state(files, host) not in {"running", "degraded"}:
        return "starting"
    return "partitioned" if cut else "running"


def wait_until_ready(files: Layout, record: Record, host: HostRecord) -> list[str]:
    """Wait until `host` has booted and its sshd answers; return the units that failed.

    :raises LabError: it ends, or takes longer than :data:`BOOT_TIMEOUT`; names the console log.
    """
    address = network.address(record.index, host.number)
    deadline = time.monotonic() + BOOT_TIMEOUT
    console = files.host(host.name).console_log
    with _power(files, host):
        pass  # its control group shows it by now, or it is gone
    while True:
        answer = system_state(files, host)
        if answer in {"running", "degraded"} and answers_ssh(address):
            return failed_units(files, host) if answer == "degraded" else []
        if not runs(files, host):
            raise LabError(f"{host.name} ended while booting{_last_line(console)} (console: {console})")
        if time.monotonic() > deadline:
            late = f"{host.name} isn't up after {BOOT_TIMEOUT:.0f} s"
            raise LabError(f"{late}: systemd says {answer or 'nothing'} (console: {console})")
        time.sleep(0.1)


def _last_line(console: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in console.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f": {lines[-1]}"
    return ""


def make_keys(files: Layout, record: Record) -> None:
    """Make the lab's SSH key pair and its hosts' keys where they are missing, and pin the latter."""
    _make_keys(files.client_keys, {"ed25519": "ssh_key"}, f"lab {files.name}")
    lines = []
    for host in record.hosts:
        kinds = ("ecdsa", "ed25519", "rsa")
        directory = files.host_keys(host.name)
        _make_keys(directory, {kind: f"ssh_host_{kind}_key" for kind in kinds}, f"root@{host.name}")
        names = f"{host.name},{network.address(record.index, host.number)}"
        for public in sorted(directory.glob("*.pub")):
            algorithm, key = public.read_text().split()[:2]
            lines.append(f"{names} {algorithm} {key}\n")
    write_atomically(files.known_hosts, "".join(lines))


def _make_keys(directory: Path, names: Mapping[str, str], comment: str) -> None:
    """Make `directory` with a key pair of each kind under its name, complete or not at all."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Unique: the ssh-keygen of a killed `up` may still be writing.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    for kind, name in names.items():
        # An RSA key of ssh-keygen's default size would be the slowest part of a host's start.
        size = ("-b", "2048") if kind == "rsa" else ()
        run("ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", str(unfinished / name))
    unfinished.rename(directory)

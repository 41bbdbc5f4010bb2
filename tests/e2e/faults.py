"""Faults that need more than a command: hosts short of CPU time, of memory or of luck, made for a while."""

from __future__ import annotations

import base64
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.lab import machine
from dev.lab.errors import LabError
from tests.kit.hosts import Cdn, Shop
from tests.kit.pictures import photo
from tests.kit.support import Remote, wait_until

# Workers are the children of the daemon's only child that has any.
WORKERS = """
import os, signal, time
def workers_of(main):
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    return [pid for pid, parent in parents.items() if parents.get(parent) == main]
def tell(pid, what):
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass
"""

_SLOWED = (
    WORKERS
    + """
import sys
main, stopped_s, going_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
over = False
def end(*_):
    global over
    over = True
signal.signal(signal.SIGTERM, end)
while not over:
    until = time.monotonic() + stopped_s
    # Also those that begin meanwhile.
    while not over and time.monotonic() < until:
        for pid in workers_of(main):
            tell(pid, signal.SIGSTOP)
        time.sleep(min(0.02, stopped_s))
    if going_s or over:
        for pid in workers_of(main):
            tell(pid, signal.SIGCONT)
        time.sleep(0 if over else going_s)
"""
)

_IMPORT = """
import os, sys, time
directory, picture, pause_s, most = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
os.makedirs(directory, exist_ok=True)
with open(picture, "rb") as file:
    content = file.read()
for number in range(most):
    with open(f"{directory}/{number}.jpg", "wb") as file:
        file.write(content)
    time.sleep(pause_s)
"""


@contextmanager
def unit(remote: Remote, name: str, script: str, *arguments: str, user: str = "root") -> Iterator[None]:
    """A script in Python that runs on a host as a service, and is ended with SIGTERM."""
    path = f"/run/{name}.py"
    remote.put(path, script.encode())
    remote.run(
        "systemd-run", "-q", "--collect", f"--unit={name}", f"--uid={user}", "python3", path, *arguments
    )
    try:
        yield
    finally:
        remote.run("systemctl", "stop", name, check=False)
        remote.run("rm", "-f", path)


@contextmanager
def workers_slowed(cdn: Cdn, *, stopped_s: float, going_s: float) -> Iterator[None]:
    """The converter's workers get no CPU time for `stopped_s` seconds, then for `going_s`, in turn."""
    arguments = (str(cdn.daemon()[0]), str(stopped_s), str(going_s))
    with unit(cdn.remote, "alarm-workers", _SLOWED, *arguments):
        yield


@contextmanager
def importing(cdn: Cdn, shop: Shop, *, per_s: float, most: int) -> Iterator[None]:
    """Small pictures are written on the CDN host one after the other, `per_s` in a second, `most` in all."""
    owner, directory = cdn.settings.converter.store.owner, cdn.file(shop.directory("320_240_1"))
    picture = f"/tmp/{shop.token}.jpg"
    cdn.remote.put(picture, shop.photo(320, 240))
    # Through the mount the site makes it; here another account would own what is above.
    cdn.remote.run("mkdir", "-p", directory.rsplit("/", 1)[0], user=owner)
    try:
        with unit(
            cdn.remote, "alarm-import", _IMPORT, directory, picture, str(1 / per_s), str(most), user=owner
        ):
            yield
    finally:
        cdn.remote.run("rm", "-f", picture)
        # A variant may be published meanwhile.
        wait_until(
            "the pictures to be removed",
            lambda: cdn.remote.run("sh", "-c", 'rm -rf "$1"; ls -d "$1"', "sh", directory, check=False),
            lambda left: not left,
            interval=1,
        )


_WRITE = """
import base64, os
directory, pictures = arguments
os.makedirs(directory, exist_ok=True)
for number, picture in enumerate(pictures):
    with open(f"{directory}/{number}.jpg", "wb") as file:
        file.write(base64.b64decode(picture))
"""


def write_pictures(cdn: Cdn, shop: Shop, name: str, pictures: list[bytes]) -> str:
    """Writes pictures into a directory of the test's own, on the CDN host; returns the directory there."""
    owner, directory = cdn.settings.converter.store.owner, cdn.file(shop.directory(name))
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    cdn.remote.python(_WRITE, directory, encoded, user=owner)
    return directory


def photos(shop: Shop, number: int, quality: int) -> list[bytes]:
    """Small photographs, each another one."""
    return [photo(f"{shop.token}-{quality}-{one}", 320, 240, quality=quality) for one in range(number)]


_OVERFLOW = """
import os, signal, time, urllib.request
main, directory, url = arguments
def lost():
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    name = "webp_converter_watch_lost_total "
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))
with open("/proc/sys/fs/inotify/max_queued_events") as file:
    most = int(file.read())
one, other = f"{directory}/one.tmp", f"{directory}/other.tmp"
open(one, "w").close()
time.sleep(1)
before = lost()
os.kill(main, signal.SIGSTOP)
try:
    # Each is two events; twice as many as there is room for.
    for _ in range(most // 2):
        os.rename(one, other)
        os.rename(other, one)
finally:
    os.kill(main, signal.SIGCONT)
deadline = time.monotonic() + 30
while lost() == before and time.monotonic() < deadline:
    time.sleep(0.2)
result = lost() - before
"""


def overflow(cdn: Cdn, shop: Shop) -> None:
    """More is written than the kernel keeps events of, while the daemon gets no CPU time."""
    url = f"http://127.0.0.1:{cdn.settings.converter.metrics.port}/metrics"
    directory = cdn.file(shop.directory("overflow"))
    cdn.remote.run("mkdir", "-p", directory, user=cdn.settings.converter.store.owner)
    lost = cdn.remote.python(_OVERFLOW, cdn.daemon()[0], directory, url, timeout=120)
    assert lost, "no event was lost: nothing was tested"


_LINK = """
import os
directory, content, number = arguments
os.makedirs(directory, exist_ok=True)
with open(f"{directory}/first", "wb") as file:
    file.write(bytes.fromhex(content))
for one in range(number):
    os.link(f"{directory}/first", f"{directory}/{one}.jpg")
"""


@contextmanager
def originals(shop: Shop, number: int) -> Iterator[list[str]]:
    """Originals that were never requested; their paths below the site's root."""
    path = f"/upload/alarm/{shop.token}"
    directory = shop.settings.site.root + path
    user = shop.settings.site.user
    shop.bitrix.python(_LINK, directory, shop.photo(200, 150).hex(), number, user=user)
    try:
        yield [f"{path}/{one}.jpg" for one in range(number)]
    finally:
        shop.bitrix.run("rm", "-rf", directory)
        shop.bitrix.run("rmdir", "--ignore-fail-on-non-empty", f"{shop.settings.site.root}/upload/alarm")


def end_for_lack_of_memory() -> None:
    """A process of this machine asks for more memory than its group of processes may have; the kernel, which
    all hosts of the lab share, ends it.

    Skips the test where the machine has no controller of memory.
    """
    v1 = Path("/sys/fs/cgroup/memory")
    if (v1 / "memory.limit_in_bytes").exists():
        root, limits = v1, {"memory.limit_in_bytes": "32M"}
    else:
        with contextlib.suppress(LabError):
            root, limits = machine.cgroup_root(), {"memory.max": "32M", "memory.swap.max": "0"}
            if "memory" not in (root / "cgroup.subtree_control").read_text().split():
                limits = {}
        if not limits:
            pytest.skip("this machine has no cgroup controller of memory")
    group = root / "bitrix-cdn-alarm"
    group.mkdir(exist_ok=True)
    try:
        for name, limit in limits.items():
            if (group / name).exists():
                (group / name).write_text(limit)
        join = 'echo $$ > "$1/cgroup.procs" && exec "$2" -c \'b"x" * (256 << 20)\''
        status = subprocess.run(["sh", "-c", join, "sh", group, sys.executable], check=False).returncode
        assert status == -signal.SIGKILL, f"the process was not ended for lack of memory: status {status}"
    finally:
        group.rmdir()

"""The mounts of the hosts, their guards and the spool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kit.hosts import Shop
from tests.kit.support import Remote

_MOUNTED = """
import json, time
name, since, timeout = arguments
deadline = time.time() + timeout
while time.time() < deadline:
    try:
        status = json.load(open(f"/run/mount-guard/{name}/status.json"))
        if status["state"] == "mounted" and status["since"] > since:
            result = status["since"]
            break
    except (OSError, ValueError):
        pass
    time.sleep(0.02)
"""


def mounted_since(remote: Remote, name: str, since: float, timeout: float = 60) -> float:
    """Waits until the guard says that it has mounted after `since`; returns when that was."""
    when = remote.python(_MOUNTED, name, since, timeout, timeout=timeout + 30)
    if when is None:
        log = remote.run("journalctl", "-u", "mount-guard@*", "-n", "20", "--no-pager", "-o", "short-precise")
        raise AssertionError(f"{remote.name}: not mounted within {timeout} s:\n{log}")
    return float(when)


def guard_pid(remote: Remote, name: str) -> int:
    return int(remote.run("systemctl", "show", f"mount-guard@{name}", "-p", "MainPID", "--value"))


def spooled(bitrix: Remote) -> list[str]:
    """The files in the directory below the mount."""
    below = "/run/mount-guard/resize-cache/below/resize_cache"
    # Not there while the guard itself is being restarted.
    script = f"until [ -d {below} ]; do sleep 0.05; done; find {below} -type f"
    return bitrix.run("sh", "-c", script).splitlines()


# Not every kernel has netem: a relay on a host delays what its guard's ssh sends and receives.
_RELAY = """
import asyncio, sys
address, delay = sys.argv[1], float(sys.argv[2])

async def pump(reader, writer):
    line = asyncio.Queue()
    async def deliver():
        while True:
            due, data = await line.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not data:
                return writer.close()
            writer.write(data)
    delivery = asyncio.create_task(deliver())
    while True:
        data = await reader.read(65536)
        line.put_nowait((asyncio.get_running_loop().time() + delay, data))
        if not data:
            return await delivery

async def relay(reader, writer):
    there_reader, there_writer = await asyncio.open_connection(address, 22)
    await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(relay, "127.0.0.1", 2222) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def delayed(remote: Remote, other: Remote, mount: str, seconds: float) -> Iterator[None]:
    """What a host's guard sends to the other host, and receives, takes so many seconds longer each way."""
    config = "/etc/mount-guard/ssh_config"
    remote.put("/run/relay.py", _RELAY.encode())
    relay = ("python3", "/run/relay.py", other.address, str(seconds))
    remote.run("systemd-run", "-q", "--collect", "--unit=relay", *relay)
    remote.run("sh", "-c", f"cp -a {config} /run/ssh_config && sed -i 's/HostName.*/HostName 127.0.0.1/; "
               f"s/Port .*/Port 2222/' {config}")  # fmt: skip
    try:
        since = time.time()
        remote.run("pkill", "-KILL", "-x", "sshfs")
        mounted_since(remote, mount, since)
        yield
    finally:
        since = time.time()
        remote.run(
            "sh", "-c", f"cp -a /run/ssh_config {config}; systemctl stop relay; pkill -KILL -x sshfs; true"
        )
        mounted_since(remote, mount, since)


_SPOOL = """
import hashlib, os
root, files, size, seed = arguments
os.umask(0o022)
result = {}
for number in range(files):
    directory = f"{root}/{number % 50}"
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/{number}.bin"
    content = hashlib.sha256(f"{seed} {number}".encode()).digest() * (size // 32)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o640 if number % 2 else 0o644)
    os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
"""


_TREE = """
import hashlib, os
root, = arguments
result = {}
for directory, _, names in os.walk(root):
    for name in names:
        path = os.path.join(directory, name)
        status = os.stat(path)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        result[os.path.relpath(path, root)] = [digest, status.st_mode & 0o777, int(status.st_mtime)]
"""


def spool_files(bitrix: Remote, shop: Shop, directory: str, files: int) -> dict[str, list[object]]:
    user = shop.settings.site.user
    bitrix.run("mkdir", "-p", shop.mounted(directory), user=user)
    bitrix.python(_SPOOL, shop.mounted(directory), files, 20_480, shop.token, user=user, timeout=120)
    tree: dict[str, list[object]] = bitrix.python(_TREE, shop.mounted(directory), timeout=120)
    assert len(tree) == files
    return tree

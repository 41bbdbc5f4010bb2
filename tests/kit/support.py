"""What tests against running hosts need: commands on a host, bounded waits, photographs, SSIM."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

Figure = Callable[[str], None]
"""Takes a line for the summary of the run."""


class Remote:
    """A host of the lab, reached as root over one multiplexed SSH connection."""

    def __init__(self, name: str, address: str, *, key: Path, known_hosts: Path, sockets: Path) -> None:
        self.name = name
        self.address = address
        self._ssh = [
            "ssh",
            *("-i", str(key)),
            *("-o", f"UserKnownHostsFile={known_hosts}"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "BatchMode=yes"),
            *("-o", "LogLevel=ERROR"),
            *("-o", "ConnectTimeout=10"),
            *("-o", "ServerAliveInterval=5"),
            *("-o", "ServerAliveCountMax=2"),
            *("-o", "ControlMaster=auto"),
            *("-o", "ControlPersist=60"),
            *("-o", f"ControlPath={sockets}/%C"),
            f"root@{address}",
        ]

    def run(
        self,
        *command: str,
        input: bytes = b"",
        user: str | None = None,
        check: bool = True,
        timeout: float = 60,
    ) -> str:
        """Return what the command prints.

        :raises AssertionError: it fails (unless `check` is False) or takes longer than `timeout` seconds.
        """
        if user is not None:
            command = ("runuser", "-u", user, "--", *command)
        line = shlex.join(command)
        try:
            result = subprocess.run(
                [*self._ssh, "--", line], input=input, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name}: `{line[:200]}` takes longer than {timeout} s") from None
        if check and result.returncode != 0:
            errors = result.stderr.decode(errors="replace").strip()
            raise AssertionError(f"{self.name}: `{line[:200]}` exits {result.returncode}: {errors[-500:]}")
        return result.stdout.decode(errors="replace")

    def python(self, script: str, *arguments: Any, user: str | None = None, timeout: float = 60) -> Any:
        """Run a script that finds its arguments in `arguments`; return what it leaves in `result`."""
        wrapped = (
            "import json, sys\n"
            f"arguments = json.load(sys.stdin)\nresult = None\n{script}\njson.dump(result, sys.stdout)\n"
        )
        output = self.run(
            "python3", "-c", wrapped, input=json.dumps(arguments).encode(), user=user, timeout=timeout
        )
        return json.loads(output)

    def put(self, path: str, content: bytes, *, user: str | None = None) -> None:
        """Write a file in place: open, truncate, write, close."""
        self.run("sh", "-c", 'cat > "$1"', "sh", path, input=content, user=user)

    def disconnect(self) -> None:
        """Drop the connection: after a partition it would only hang."""
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._ssh[-1]], capture_output=True, check=False)


@dataclass(frozen=True)
class Status:
    """A file as `stat` sees it, and the daemon's mark on it."""

    uid: int
    gid: int
    mode: int
    size: int
    mtime_ns: int
    mark: str | None


_STATUS = """
import os, stat
result = {}
for path in arguments:
    try:
        s = os.lstat(path)
    except OSError:
        continue
    try:
        mark = os.getxattr(path, "user.webp-converter", follow_symlinks=False).decode()
    except OSError:
        mark = None
    result[path] = dict(uid=s.st_uid, gid=s.st_gid, mode=stat.S_IMODE(s.st_mode), size=s.st_size,
                        mtime_ns=s.st_mtime_ns, mark=mark)
"""


def statuses(remote: Remote, paths: Sequence[str]) -> dict[str, Status]:
    """The status of those of the paths that exist."""
    return {path: Status(**status) for path, status in remote.python(_STATUS, *paths).items()}


def wait_until(
    what: str,
    look: Callable[[], T],
    good: Callable[[T], object] = bool,
    *,
    timeout: float = 30,
    interval: float = 0.1,
) -> T:
    """Look again and again until what is seen is good, and return it.

    :param what: what is awaited, for the failure's message.
    :raises AssertionError: it isn't good within `timeout` seconds; says what was seen last.
    """
    started = time.monotonic()
    while True:
        seen = look()
        if good(seen):
            return seen
        waited = time.monotonic() - started
        if waited > timeout:
            raise AssertionError(f"waited {waited:.0f} s for {what}; last seen: {_brief(seen)}")
        time.sleep(interval)


def never(what: str, look: Callable[[], T], bad: Callable[[T], object] = bool, *, during: float) -> None:
    """Look again and again for `during` seconds.

    :param what: what must not be, for the failure's message.
    :raises AssertionError: it was seen.
    """
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < during:
        seen = look()
        assert not bad(seen), f"after {elapsed:.1f} s: {what}: {_brief(seen)}"
        time.sleep(0.05)


def _brief(seen: object) -> str:
    text = repr(seen)
    return text if len(text) <= 600 else f"{text[:600]}..."

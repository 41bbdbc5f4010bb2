"""Real Redis servers and real daemons, each in a separate directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis


def wait_until(condition: Callable[[], Any], timeout_s: float = 15, every_s: float = 0.005) -> Any:
    """Waits for a condition and returns its value; fails when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not true after {timeout_s} s"
        time.sleep(every_s)


TOKEN = "0123456789abcdef0123456789abcdef"
RULES = Path(__file__).parents[2] / "templates/redis/etc/redis"


def rules_of(instance: str, user: str = "converter") -> str:
    """What a user of an instance may, as the deploy's template says it."""
    text = (RULES / f"redis-{instance}.users.j2").read_text()
    [rules] = [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{user} ")]
    return re.sub(r"{{.*?prefix }}", "webp", rules)


class RedisServer:
    """One instance; with `users`, it is asked as the deploy has it: as a user who may what he needs, and no
    more."""

    def __init__(self, directory: Path, users: bool = False) -> None:
        directory.mkdir()
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.users = directory / "users.acl" if users else None
        self.passwords = "{}"
        """Of each user, with the name in it."""
        self.process: subprocess.Popen[bytes] | None = None

    def settings(self, user: str) -> dict[str, Any]:
        """Where it is, and that `queue` or `cache` asks, as the section of that name has it."""
        if not self.users:
            return {"url": self.url}
        password_file = self.directory / f"{user}-password"
        password_file.write_text(f"{self.passwords.format(user)}\n")
        return {"url": self.url, "user": user, "password_file": str(password_file)}

    def operator(self) -> redis.Redis:
        """A client that may do anything."""
        name = "operator" if self.users else None
        return redis.Redis(unix_socket_path=str(self.socket), username=name, password=name)

    def start(self) -> None:
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        arguments += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        if self.users:
            lines = [
                f"user {one} on >{self.passwords.format(one)} {rules_of(one)}" for one in ("queue", "cache")
            ]
            lines += ["user default off -@all", "user operator on >operator ~* &* +@all", ""]
            self.users.write_text("\n".join(lines))
            arguments += ["--aclfile", str(self.users)]
        self.process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.socket.unlink(missing_ok=True)


@contextlib.contextmanager
def redis_in(directory: Path, users: bool = False) -> Iterator[RedisServer]:
    """A Redis that runs meanwhile."""
    server = RedisServer(directory, users)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def daemon_in(directory: Path, **sections: dict[str, Any]) -> Iterator[DaemonProcess]:
    """A daemon that runs meanwhile, with its own Redis and a token; its worker has little memory."""
    token_file = directory / "token"
    token_file.write_text(TOKEN + "\n")
    sections["api"] = {"token_file": str(token_file), **sections.get("api", {})}
    few = {"workers": {"memory_limit_mib": 256, "count": 1}, "queue": {"tries": 1, "retry_pause_s": 0}}
    with redis_in(directory / "redis") as server:
        daemon = DaemonProcess(directory / "cdn", server.url, **few, **sections)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class DaemonProcess:
    """A daemon over a separate tree."""

    def __init__(self, directory: Path, redis_url: str, **sections: dict[str, Any]) -> None:
        self.root = directory / "upload" / "resize_cache"
        self.root.mkdir(parents=True)
        self.temporary = directory / ".webp-converter"
        self.log_file = directory / "daemon.log"
        self.config_file = directory / "config.toml"
        self.api_port, self.metrics_port = free_port(), free_port()
        owner = {"owner": "root", "group": "root"} if os.geteuid() == 0 else {}
        values: dict[str, dict[str, Any]] = {
            "store": {"root": str(self.root), "temporary": str(self.temporary), **owner},
            "queue": {"url": redis_url},
            "cache": {"url": redis_url},
            "api": {"port": self.api_port},
            "metrics": {"port": self.metrics_port},
            "log": {"level": "debug"},
            # There is no site that a large picture could be compared with.
            "watch": {"remove_copies": False},
            # Variants don't change in the hands of tests that are about something else.
            "encoding": {"second_pass_idle_s": 3600.0},
        }
        for name, section in sections.items():
            values.setdefault(name, {}).update(section)
        lines = []
        for name, section in values.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        self.config_file.write_text("\n".join(lines))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: bool = True) -> None:
        command = [
            str(Path(sys.executable).parent / "webp-converter"),
            "run",
            "--config",
            str(self.config_file),
        ]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        if ready:
            wait_until(
                lambda: (health := self.health()) and health["status"] == "ok" and not health["scanning"]
            )

    def health(self) -> dict[str, Any] | None:
        try:
            with urlopen(f"http://127.0.0.1:{self.api_port}/health", timeout=5) as answer:
                return dict(json.load(answer))
        except HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return None

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it logged, but for lines that a full disk cut off."""
        lines = []
        for text in self.log_file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines += [json.loads(text)] if text.startswith("{") else []
        return [line for line in lines if event in (None, line["event"])]

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(15)
        self.process = None
        return status


StartDaemon = Callable[..., DaemonProcess]


def children_of(pid: int) -> list[int]:
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line) for line in text.split()]


MARK = "user.webp-converter"


def variant_of(path: Path) -> Path:
    return path.with_name(path.name + ".webp")


def decided(path: Path) -> bool:
    """Whether the decision about a picture is there, and describes what the picture is now."""
    status = path.stat()
    for decision in (variant_of(path), verdict_of(path)):
        try:
            mark = os.getxattr(decision, MARK).split(b" ")
        except FileNotFoundError:
            continue
        return mark[1:3] == [b"%d" % status.st_size, b"%d" % status.st_mtime_ns]
    return False


def read_days_ago(path: Path, days: float) -> None:
    os.utime(path, ns=(time.time_ns() - int(days * DAY_NS), path.stat().st_mtime_ns))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "webp-converter"
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False)


def verdict_of(path: Path) -> Path:
    return path.with_name(path.name + ".keep")


DAY_NS = 86_400 * 1_000_000_000

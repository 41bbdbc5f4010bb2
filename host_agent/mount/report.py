"""A guard's report about its mount: for people, programs and Prometheus."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from host_agent.mount.machine import State

ACCESS = "access"


@dataclass(frozen=True)
class Status:
    """One moment of one mount. Times are seconds since 1970 where they are points in time."""

    name: str
    state: str
    since: float
    reason: str
    mount_point: str
    latency: float
    """Seconds that the last probe took."""
    last_good_probe: float | None
    reconnects: int
    refused: str
    """`host_key` or `login` when the other host can't be trusted or doesn't let us in, `access` when the
    account can't use the files; else empty."""
    free: int
    """Bytes free on the other host."""
    spool_files: int
    spool_bytes: int
    pushed_files: int
    """Files pushed since the guard was started."""
    pushed_bytes: int
    pid: int
    written: float


def sentence(status: Status, now: float) -> str:
    """A line for a person."""
    text = f"{status.name}: {status.state} for {_span(now - status.since)}"
    if status.state == State.MOUNTED:
        text += f", answers in {status.latency * 1000:.0f} ms"
    elif status.reason:
        text += f": {status.reason}"
    if status.spool_files:
        text += f"; {status.spool_files:,} files ({status.spool_bytes:,} bytes) wait in the spool"
    if status.reconnects:
        text += f"; {status.reconnects} reconnects"
    return text


def pair(numbers: tuple[int, int]) -> str:
    """The numbers of an account and its group, as `chown` takes them."""
    return "{}:{}".format(*numbers)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


_METRICS = (
    ("mount_guard_up", "gauge", "1 while the mount is over its real path."),
    ("mount_guard_full", "gauge", "1 while the other host has no room and files wait in the spool."),
    (
        "mount_guard_refused",
        "gauge",
        "1 while the other host's key, our login or the account is refused, by reason.",
    ),
    ("mount_guard_probe_seconds", "gauge", "What the last probe took."),
    ("mount_guard_last_good_probe_timestamp_seconds", "gauge", "When a probe last came back well."),
    ("mount_guard_seconds_since_last_good_probe", "gauge", "The same as an age, when this was written."),
    ("mount_guard_state_timestamp_seconds", "gauge", "Since when it is in its state, by state."),
    ("mount_guard_reconnects_total", "counter", "Times that a mount which was up was given up."),
    ("mount_guard_free_bytes", "gauge", "Room on the other host."),
    ("mount_guard_spool_files", "gauge", "Files that wait to be pushed."),
    ("mount_guard_spool_bytes", "gauge", "Their size."),
    ("mount_guard_pushed_files_total", "counter", "Files pushed from the spool."),
    ("mount_guard_pushed_bytes_total", "counter", "Their size."),
)


def metrics(status: Status) -> str:
    """The text that node_exporter's textfile collector reads."""
    mount = f'mount="{status.name}"'
    age = 0.0 if status.last_good_probe is None else max(0.0, status.written - status.last_good_probe)
    values: dict[str, list[tuple[str, float]]] = {
        "mount_guard_up": [(mount, status.state == State.MOUNTED)],
        "mount_guard_full": [(mount, status.state == State.FULL)],
        "mount_guard_refused": [
            (f'{mount},reason="{reason}"', status.refused == reason)
            for reason in ("host_key", "login", ACCESS)
        ],
        "mount_guard_probe_seconds": [(mount, status.latency)],
        "mount_guard_last_good_probe_timestamp_seconds": [(mount, status.last_good_probe or 0.0)],
        "mount_guard_seconds_since_last_good_probe": [(mount, age)] if status.last_good_probe else [],
        "mount_guard_state_timestamp_seconds": [(f'{mount},state="{status.state}"', status.since)],
        "mount_guard_reconnects_total": [(mount, status.reconnects)],
        "mount_guard_free_bytes": [(mount, status.free)],
        "mount_guard_spool_files": [(mount, status.spool_files)],
        "mount_guard_spool_bytes": [(mount, status.spool_bytes)],
        "mount_guard_pushed_files_total": [(mount, status.pushed_files)],
        "mount_guard_pushed_bytes_total": [(mount, status.pushed_bytes)],
    }
    lines = []
    for name, kind, meaning in _METRICS:
        if values[name]:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{{{labels}}} {float(value)!r}" for labels, value in values[name]]
    return "\n".join(lines) + "\n"


def as_json(status: Status) -> str:
    return json.dumps(asdict(status))


def read(path: Path) -> Status:
    """Reads what a guard wrote.

    :raises OSError: there is no such file.
    """
    return Status(**json.loads(path.read_text()))


def write(path: Path, text: str) -> None:
    """Replaces a file in one rename: no reader sees half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


# What ssh says, and what it means to us.
_REFUSALS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host_key"),
    ("Host key verification failed", "host_key"),
    ("No ED25519 host key is known", "host_key"),
    ("Permission denied", "login"),
)


def explain(lines: list[str], peer_keys: str) -> tuple[str, str]:
    """The reason why sshfs ended, and `host_key`, `login` or nothing, from what it printed.

    :param peer_keys: the file with the pinned host keys, for the message.
    """
    text = "\n".join(lines)
    kind = next((kind for words, kind in _REFUSALS if words in text), "")
    if kind == "host_key":
        said = f"the other host shows another host key than the one pinned in {peer_keys}: if its key was "
        return said + "changed on purpose, deploy again; if not, somebody else answers at its address", kind
    # sshfs's own "read: Connection reset by peer" hides the line above it, which is ssh's.
    telling = [line for line in lines if line and not line.startswith("read: ")]
    return (telling[-1] if telling else "sshfs ended"), kind

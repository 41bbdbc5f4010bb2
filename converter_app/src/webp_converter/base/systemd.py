"""Notifies systemd of readiness, state and signs of life (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(**state: str | int) -> None:
    """Tells the service manager, where there is one: `notify(READY=1, STATUS="watching")`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{key}={value}" for key, value in state.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(address)
            sender.send(message.encode())
        except OSError:  # the daemon works as well without anybody listening
            return


def watchdog_interval_s() -> float | None:
    """How often the service manager wants a sign of life, in seconds; None: it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 / 2

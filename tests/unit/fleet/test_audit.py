"""What tells a host that a run is there, and how that ends."""

from __future__ import annotations

import threading
from typing import cast

import paramiko
import pytest

from bitrix_cdn.fleet import audit


class Channel:
    """A channel of paramiko's: after its last line it takes nothing, and says so by 0 each time."""

    def __init__(self, takes: int) -> None:
        self.left = takes

    def exit_status_ready(self) -> bool:
        return False

    def send(self, data: bytes) -> int:
        self.left -= 1
        return len(data) if self.left >= 0 else 0

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self.send(data) :]


def test_the_beat_ends_with_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_BEAT", 0.01)
    channel = Channel(takes=3)
    beat = threading.Thread(target=audit._beat, args=(cast(paramiko.Channel, channel),), daemon=True)
    beat.start()
    beat.join(timeout=5)
    assert not beat.is_alive()
    assert channel.left == -1

"""What becomes of a scan whose processes fail."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import pytest
from converter_app.tests.harness import wait_until

from webp_converter.config import Config, Store
from webp_converter.events import scanner
from webp_converter.events.long_names import LongNames
from webp_converter.events.scanner import Scanner
from webp_converter.metrics import Metrics
from webp_converter.queue.state import QueueState


def not_started(*_: object) -> tuple[Mock, Connection]:
    raise OSError("no more processes")


def killed(*_: object) -> tuple[Mock, Connection]:
    ours, theirs = Pipe()
    theirs.close()
    return Mock(), ours


def killed_amid_its_answer(*_: object) -> tuple[Mock, Connection]:
    ours, theirs = Pipe()
    with open(theirs.fileno(), "wb", closefd=False) as raw:
        raw.write(struct.pack("!i", 1000) + b"the first part of it")
    theirs.close()
    return Mock(), ours


@pytest.mark.parametrize("child", [not_started, killed, killed_amid_its_answer])
def test_it_is_run_again(
    child: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "child", Mock(side_effect=child))
    monkeypatch.setattr(scanner, "_PAUSE_S", 0.01)
    wanted, stopping = threading.Event(), threading.Event()
    config = Config(store=Store(root=tmp_path / "upload", temporary=tmp_path / "tmp"))
    queue = QueueState(wanted)
    assert queue.reached(queue.losses)
    one = Scanner(config, queue, Metrics(), LongNames(), wanted)
    thread = threading.Thread(target=one.run, args=(stopping,), daemon=True)
    thread.start()
    try:
        first = wait_until(lambda: one.last)
        assert not first.complete
        wait_until(lambda: one.last is not first)
    finally:
        stopping.set()
        thread.join()

"""Locks between processes, as `flock` of util-linux takes them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX


def locked(descriptor: int, kind: int, seconds: float) -> bool:
    """Locks an open file until all its descriptors are closed; False if others keep it for longer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.02)


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    """A file to lock; what is started meanwhile has it open too, so that it stays locked while that lives."""
    descriptor = os.open(path, flags, 0o644)
    try:
        os.set_inheritable(descriptor, True)
        yield descriptor
    finally:
        os.close(descriptor)

"""Reads every variant and verdict of a tree over and over, as visitors do, and tells what was wrong with one.

    python -m converter_app.tests.reader ROOT < {"<bytes of an original>": [width, height], ...}

Prints `ready` when it begins. When its standard input ends, it prints how often it has looked, how many files
it has judged, and what was wrong. A separate process: nothing that a test waits for keeps it from looking.
"""

from __future__ import annotations

import io
import json
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

from PIL import Image

from webp_converter.picture.images import Reason
from webp_converter.variants.store import FAILED, KEEP, WEBP, XATTR, Mark

_PAUSE_S = 0.002


def decisions(root: bytes) -> Iterator[tuple[bytes, int]]:
    """Every variant and verdict below `root`: its path, and a descriptor of the file that it is now."""
    for top, _, names, directory in os.fwalk(root):
        for name in names:
            if name.endswith((WEBP, KEEP)):
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
                except FileNotFoundError:
                    continue
                yield os.path.join(top, name), fd


def fault_of(path: bytes, fd: int, sizes: dict[int, tuple[int, int]]) -> str | None:
    """What is wrong with a published file; None: nothing. A published file is never written to, so whatever
    happens to its name meanwhile, what is read here is one state of it."""
    status = os.fstat(fd)
    try:
        mark = Mark.parse(os.getxattr(fd, XATTR))
    except OSError as error:
        return f"mark: {error.strerror}"
    if mark is None:
        return "a mark that can't be read"
    if mark.size not in sizes:
        return f"made from {mark.size} bytes, which no original ever had"
    if mark.mtime_ns != status.st_mtime_ns:
        return "its time isn't its original's"
    if status.st_mode != 0o100644:
        return f"mode {status.st_mode:o}"
    with open(fd, "rb", closefd=False) as file:
        data = file.read()
    if path.endswith(KEEP):
        return (
            None
            if not data and mark.verdict in (*Reason, FAILED)
            else f"verdict {mark.verdict!r}, {len(data)} bytes"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=["WEBP"])
        image.load()
    except Exception as error:  # the point is to find out what it raises
        return f"{len(data)} bytes that can't be decoded: {error}"
    if image.size != sizes[mark.size]:
        return f"{image.size} instead of {sizes[mark.size]}"
    return None


def main() -> None:
    root = os.fsencode(sys.argv[1])
    sizes = {int(size): tuple(box) for size, box in json.loads(sys.stdin.readline()).items()}
    judged: set[tuple[int, int, int]] = set()
    faults: list[str] = []
    looks = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        for path, fd in decisions(root):
            status = os.fstat(fd)
            state = (status.st_ino, status.st_ctime_ns, status.st_size)
            if state not in judged and (fault := fault_of(path, fd, sizes)):
                faults.append(f"{os.fsdecode(path)!r}: {fault}")
            judged.add(state)
            os.close(fd)
        looks += 1
    result: dict[str, Any] = {"looks": looks, "judged": len(judged), "faults": faults[:20]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

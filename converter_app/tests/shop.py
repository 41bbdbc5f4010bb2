"""A tree of pictures that changes as a shop's does, watched by a reader, and what must hold of it at rest."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import redis
from converter_app.tests.harness import DaemonProcess
from PIL import Image
from tests.kit import pictures

from webp_converter.queue.jobs import GROUP, Priority
from webp_converter.variants.store import KEEP, WEBP, XATTR, Mark

_EXTENSIONS = (".jpg", ".png")


@cache
def contents() -> dict[bytes, tuple[int, int]]:
    """Small originals with their sizes in pixels. No two have the same number of bytes, so that from a mark
    it can be told what a variant was made from, nor the same size in pixels."""
    found: dict[bytes, tuple[int, int]] = {}
    for number, name in enumerate(pictures.PHOTOGRAPHS):
        photograph = pictures.photograph(name, 256)
        for form, options in (
            ("JPEG", {}),
            ("JPEG", {"quality": 12}),  # nothing to save: a verdict
            ("PNG", {}),
        ):
            size = (48 + len(found), 90 - 3 * number)
            found[pictures.encoded(photograph.resize(size), form, **options)] = size
    flat = Image.new("RGB", (120, 31), "white")
    found[pictures.encoded(flat, "PNG")] = flat.size
    found[b"<!DOCTYPE html><title>502 Bad Gateway</title>"] = (0, 0)
    assert len({len(data) for data in found}) == len(found) == len(set(found.values()))
    return found


class Shop:
    """Writes, rewrites, removes and moves pictures. Each picture keeps a unique name."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.outside = root.parent / "outside"
        self.outside.mkdir(exist_ok=True)
        self.random = random.Random(seed)
        self.pictures: dict[str, int] = {}
        """Bytes of each picture by its name, wherever it lies now."""

        self._count = 0

    def write(self, count: int = 1, directory: Path | None = None) -> list[Path]:
        """Writes new pictures, one after another; where they are."""
        made = []
        for _ in range(count):
            self._count += 1
            path = (directory or self._some_directory()) / f"{self._count}{self.random.choice(_EXTENSIONS)}"
            self._put(path)
            made.append(path)
        return made

    def put(self, path: Path, data: bytes) -> None:
        """Writes one picture."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.pictures[path.name] = len(data)

    def _put(self, path: Path, other_than: int = 0) -> None:
        self.put(path, self.random.choice([data for data in contents() if len(data) != other_than]))

    def _some_directory(self) -> Path:
        k = self.random.randrange(6)
        return self.root / "iblock" / f"{k:03x}" / self.random.choice(("200_200_1", "150_150_2"))

    def rewrite(self, path: Path) -> None:
        self._put(path, other_than=path.stat().st_size)

    def remove(self, path: Path) -> None:
        path.unlink()
        del self.pictures[path.name]

    def originals(self) -> list[Path]:
        """The pictures in the tree."""
        return originals_below(self.root)

    def storm(self, directories: int = 12) -> None:
        """A deep tree of new directories, each filled as soon as it is there."""
        top = self.root / f"storm{self._count}"
        for k in range(directories):
            self.write(1, top / f"{k % 3}" / f"{k:03x}" / "200_200_1")

    def move_a_tree(self) -> None:
        """Renames a whole tree within the root, out of it, or back into it."""
        inside = [path for path in self.root.iterdir() if path.is_dir()]
        outside = list(self.outside.iterdir())
        self._count += 1
        kind = self.random.choice(("within", "out", "back"))
        if kind == "back" and outside:
            self.random.choice(outside).rename(self.root / f"back{self._count}")
        elif kind == "out" and inside:
            self.random.choice(inside).rename(self.outside / f"out{self._count}")
        elif inside:
            self.random.choice(inside).rename(self.root / f"within{self._count}")

    def change(self) -> None:
        """One change of any kind."""
        known = self.originals()
        kinds: list[Callable[[], object]] = [lambda: self.write(2), lambda: self.write(1)]
        if known:
            kinds += [lambda: self.rewrite(self.random.choice(known))] * 3
            kinds += [lambda: self.remove(self.random.choice(known))]
        kinds += [self.move_a_tree]
        if len(known) < 60:
            kinds += [self.storm]
        self.random.choice(kinds)()

    def busy(self, seconds: float) -> None:
        """Changes until the time is over."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self.change()
            time.sleep(min(max(0, left_s), self.random.uniform(0, 0.04)))


@contextlib.contextmanager
def reader(root: Path, *others: bytes) -> Iterator[None]:
    """Reads the tree the whole time, and fails when anything that a visitor could have got was wrong.

    `others` are originals besides `contents()`.
    """
    sizes = {len(data): size for data, size in contents().items()}
    sizes |= {len(data): Image.open(io.BytesIO(data)).size for data in others}
    process = subprocess.Popen(
        [sys.executable, "-m", "converter_app.tests.reader", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(sizes) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    except BaseException:
        process.kill()
        raise
    output, _ = process.communicate()
    found = json.loads(output)
    assert found["faults"] == [], found["faults"]  # the text: pytest explains asserts of test modules alone
    assert found["looks"] > 0
    assert found["judged"] > 0


def unsettled(shop: Shop, queue: redis.Redis, daemons: Sequence[DaemonProcess]) -> list[str]:
    """What is still to come before all is decided and nothing is left over; empty: nothing."""
    problems: list[str] = []
    originals = shop.originals()
    where = {path.name: path.stat().st_size for path in (*originals, *originals_below(shop.outside))}
    if where != shop.pictures:
        lost = {name for name in shop.pictures if where.get(name) != shop.pictures[name]}
        problems.append(f"pictures lost or changed: {lost or where.keys() - shop.pictures.keys()}")
    known = set(originals)
    problems += [f"{path}: {complaint}" for path in originals if (complaint := _undecided(path))]
    decisions = [path for path in files_below(shop.root) if path.suffix in (".webp", ".keep")]
    problems += [f"{path}: an orphan" for path in decisions if path.with_suffix("") not in known]
    for name, count in {
        **{str(p): queue.xlen(f"webp:{p}") for p in Priority},
        "paths": queue.hlen("webp:paths"),
        "later": queue.zcard("webp:later"),
        "details": queue.hlen("webp:details"),
    }.items():
        if count:
            problems.append(f"{count} in {name}")
    for priority in Priority:
        with contextlib.suppress(redis.ResponseError):  # no such stream
            if pending := queue.xpending(f"webp:{priority}", GROUP)["pending"]:
                problems.append(f"{pending} pending in {priority}")
    for daemon in daemons:
        health = daemon.health()
        if not health or health["status"] != "ok" or health["scanning"] or health["running"]:
            problems.append(f"daemon: {health}")
        problems += [f"left over: {path}" for path in files_below(daemon.temporary)]
    return problems


def files_below(top: Path) -> Iterator[Path]:
    """All files; directories may come and go meanwhile."""
    for directory, _, names in os.walk(top):
        yield from (Path(directory, name) for name in names)


def originals_below(top: Path) -> list[Path]:
    return [path for path in files_below(top) if path.suffix in _EXTENSIONS]


def _undecided(path: Path) -> str | None:
    status = path.stat()
    decisions = []
    for suffix in (WEBP, KEEP):
        with contextlib.suppress(FileNotFoundError):
            decisions.append(Mark.parse(os.getxattr(os.fsencode(path) + suffix, XATTR)))
    if len(decisions) != 1:
        return f"{len(decisions)} decisions"
    return None if decisions[0] and decisions[0].describes(status) else "a stale decision"


def settle(shop: Shop, queue: redis.Redis, *daemons: DaemonProcess, timeout_s: float = 60) -> None:
    """Waits until every original has its decision and nothing else is left of any job."""
    deadline = time.monotonic() + timeout_s
    while problems := unsettled(shop, queue, daemons):
        assert time.monotonic() < deadline, "\n".join(problems[:20])
        time.sleep(0.05)

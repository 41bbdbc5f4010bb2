"""What a large tree costs: the reconcile scan and the watch over very many decided originals.

    python -m dev.bench.scan [--files 1000000] [--directories 100000] [--rounds 3] [--keep] [DIRECTORY]

Makes the tree below DIRECTORY (default: .cache/bench-scan), with variants and verdicts that bear the daemon's
marks, and measures the daemon's own code on it, in turn with `find` that asks for the same attributes of the
same files. Absolute figures are this machine's; the ratio to `find` isn't. Run as root it measures with cold
caches too: the kernel's are dropped before each such run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from webp_converter.base.processes import child, start_fork_server
from webp_converter.config import Config, Store
from webp_converter.events.scan import reconcile
from webp_converter.events.watch import Watch
from webp_converter.picture.images import Reason
from webp_converter.variants.store import KEEP, WEBP, XATTR, Mark

from converter_app.tests.harness import DaemonProcess, RedisServer

SIZES = 24
"""Directories `W_H_T` beside each other: pictures of one original, or of a few."""

ORIGINAL_BYTES = 43_210
VARIANT_BYTES = 12_345
_DROP = Path("/proc/sys/vm/drop_caches")
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
_SPARE_WATCHES = 10_000


def hash_directories(directories: int) -> int:
    """How many directories `iblock/<hash>` with `SIZES` directories each make about as many in all."""
    return max(1, round(directories / (SIZES + 1)))


def build(root: Path, files: int, directories: int) -> None:
    """Makes the tree: nothing but attributes matters here, so that files are as long as real ones, and hold
    no block of data."""
    hashes = hash_directories(directories)
    shares = os.cpu_count() or 1
    processes = [
        multiprocessing.Process(target=_build_share, args=(root, files, hashes, share, shares))
        for share in range(shares)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("the tree could not be made")


def _build_share(root: Path, files: int, hashes: int, share: int, shares: int) -> None:
    leaves = hashes * SIZES
    for number in range(share, hashes, shares):
        for size in range(SIZES):
            directory = root / "iblock" / f"{number:03x}" / f"{100 + 10 * size}_{100 + 10 * size}_1"
            directory.mkdir(parents=True)
            leaf = number * SIZES + size
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            for file in range(leaf * files // leaves, (leaf + 1) * files // leaves):
                _build_original(fd, file)
            os.close(fd)


def remove(root: Path) -> None:
    """Removes the tree, as fast as it was made."""
    with multiprocessing.Pool() as pool:
        pool.map(shutil.rmtree, list((root / "iblock").iterdir()), chunksize=20)


def _build_original(directory: int, number: int) -> None:
    name = b"%d.jpg" % number
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    os.ftruncate(fd, ORIGINAL_BYTES)
    mtime_ns = os.fstat(fd).st_mtime_ns
    os.close(fd)
    kept = number % 5 == 0
    mark = Mark(ORIGINAL_BYTES, mtime_ns, Reason.NO_SAVING.value if kept else "q80", 0.9531, 150, 35)
    suffix = KEEP if kept else WEBP
    fd = os.open(name + suffix, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    os.ftruncate(fd, 0 if kept else VARIANT_BYTES)
    os.setxattr(fd, XATTR, mark.pack())
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    os.close(fd)


class Run(NamedTuple):
    """One measurement."""

    seconds: float
    mib: float
    """Memory that belongs to the processes, shared pages by their part; the most at any time."""


def proportional_mib(pid: int | None) -> float:
    """PSS of a process, in MiB: what its end would free, and its part of what it shares."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def scan(root: Path, files: int) -> Run:
    """The scan as the daemon runs it: its share to each process, forked from its server."""
    config = Config(store=Store(root=root, temporary=root.with_name("tmp")))
    shares = config.watch.scan_processes
    processes, pipes = [], []
    started = time.monotonic()
    for share in range(shares):
        process, pipe = child(_scan_share, config, share, shares)
        processes.append(process)
        pipes.append(pipe)
    most = 0.0
    while any(process.is_alive() for process in processes):
        most = max(most, sum(proportional_mib(process.pid) for process in processes))
        processes[0].join(0.1)
        if not processes[0].is_alive():
            processes[-1].join(0.1)
    seconds = time.monotonic() - started
    tallies = [pipe.recv() for pipe in pipes]
    originals, queued, removed = (sum(counts) for counts in zip(*tallies, strict=True))
    if (originals, queued, removed) != (files, 0, 0):
        raise SystemExit(f"{originals} originals of {files}, {queued} undecided, {removed} stale")
    return Run(seconds, most)


def _scan_share(config: Config, share: int, shares: int, report: Connection) -> None:
    tally = reconcile(config, share, shares)
    report.send((tally.originals, tally.queued + tally.missed, tally.removed))


def find(root: Path) -> Run:
    """The baseline: the same attributes of the same files, in one process."""
    started = time.monotonic()
    subprocess.run(["find", str(root), "-printf", "%T@ %s\n"], stdout=subprocess.DEVNULL, check=True)
    return Run(time.monotonic() - started, 0)


def watch(root: Path, directories: int) -> Run:
    """A process that does nothing but watch: seconds until it is ready, and the memory that it takes."""
    process, receiver = child(_watch, os.fsencode(root))
    run, watched = receiver.recv()
    process.join()
    if watched != directories:
        raise SystemExit(f"{watched} directories watched of {directories}")
    return Run(*run)


def _watch(root: bytes, report: Connection) -> None:
    before = _resident_mib()
    started = time.monotonic()
    watch = Watch(root, frozenset({"jpg"}))
    report.send((Run(time.monotonic() - started, _resident_mib() - before), len(watch)))
    watch.close()


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


def daemon(directory: Path, root: Path) -> tuple[Run, Run]:
    """A whole daemon over the tree: its watch and its first scan as it logs them, and its main process's
    memory."""
    server = RedisServer(directory / "redis")
    server.start()
    process = DaemonProcess(directory / "cdn", server.url, store=_store_of(root))
    try:
        process.start(ready=False)
        while not process.log("scanned"):
            time.sleep(0.1)
        assert process.process
        mib = proportional_mib(process.process.pid)
        [watching], [scanned] = process.log("watching"), process.log("scanned")[:1]
        return Run(watching["seconds"], mib), Run(scanned["seconds"], mib)
    finally:
        process.kill()
        server.kill()


def _store_of(root: Path) -> dict[str, str]:
    return {"root": str(root), "temporary": str(root.with_name("tmp"))}


def drop_caches() -> None:
    os.sync()
    _DROP.write_text("3")


@contextmanager
def enough_watches(directories: int) -> Iterator[None]:
    """Raises the kernel's limit where it is too low, for as long as it takes."""
    limit = _WATCHES.read_text()
    needed = directories + _SPARE_WATCHES
    if int(limit) >= needed:
        yield
        return
    try:
        _WATCHES.write_text(str(needed))
    except OSError as error:
        raise SystemExit(
            f"fs.inotify.max_user_watches is {limit.strip()}, {needed} needed: {error}"
        ) from error
    try:
        yield
    finally:
        _WATCHES.write_text(limit)


def median(runs: list[Run]) -> Run:
    """The run in the middle by time, with the most memory of any."""
    return Run(statistics.median(run.seconds for run in runs), max(run.mib for run in runs))


def in_turn(rounds: int, cold: bool, *measured: Callable[[], Run]) -> list[Run]:
    """The median of each, measured in turn, so that what else the machine does falls on all alike."""
    runs: list[list[Run]] = [[] for _ in measured]
    for _ in range(rounds):
        for number, measure in enumerate(measured):
            if cold:
                drop_caches()
            runs[number].append(measure())
    return [median(of_one) for of_one in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directories", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="leave the tree, and use one that was left")
    parser.add_argument("directory", type=Path, nargs="?", default=Path(".cache/bench-scan"))
    options = parser.parse_args()
    directory: Path = options.directory.absolute()
    root = directory / "upload" / "resize_cache"
    start_fork_server()
    if not root.exists():
        root.mkdir(parents=True)
        started = time.monotonic()
        build(root, options.files, options.directories)
        print(f"tree made in {time.monotonic() - started:.0f} s", file=sys.stderr)
    hashes = hash_directories(options.directories)
    directories = 2 + hashes * (1 + SIZES)
    try:
        with enough_watches(directories):
            measure(root, options.files, directories, options.rounds)
    finally:
        if not options.keep:
            remove(root)
            shutil.rmtree(directory)


def measure(root: Path, files: int, directories: int, rounds: int) -> None:
    table = Table(
        *("", "s", "wanted", "MiB", "wanted", "s / find"),
        title=f"{files:,} decided originals in {directories:,} directories, {os.cpu_count()} cores",
    )
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, run: Run, seconds: str = "", mib: str = "", base: Run | None = None) -> None:
        ratio = f"{run.seconds / base.seconds:.2f}" if base else ""
        table.add_row(name, f"{run.seconds:.2f}", seconds, f"{run.mib:.0f}" if run.mib else "", mib, ratio)

    find(root)  # warms the caches
    base, scanned, watched = in_turn(
        rounds, False, lambda: find(root), lambda: scan(root, files), lambda: watch(root, directories)
    )
    row("find, warm", base)
    row("scan, warm", scanned, "<= 10", "<= 100", base)
    row("watch, warm", watched, "<= 5", "<= 50", base)
    with tempfile.TemporaryDirectory() as work:
        watching, scanning = daemon(Path(work), root)
    row("a daemon's watch", watching, base=base)
    row("a daemon's first scan", scanning, base=base)
    if os.access(_DROP, os.W_OK):
        base, scanned, watched = in_turn(
            rounds, True, lambda: find(root), lambda: scan(root, files), lambda: watch(root, directories)
        )
        row("find, cold", base)
        row("scan, cold", scanned, "<= 30", "<= 100", base)
        row("watch, cold", watched, base=base)
    Console(width=100).print(table)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

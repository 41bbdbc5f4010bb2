"""The daemon's encoding and nothing else: what a bare loop on all cores makes of a list of pictures.

    python -m dev.bench.bare LIST CORES

The list has a source and a target on each line, a tab between them. Prints the seconds that it took, and
those of CPU time. Each picture is read, converted as the daemon converts it by default, and written;
nothing is queued, compared, marked, synced or renamed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

from webp_converter.config import Encoding
from webp_converter.picture.images import Variant, convert

from dev.bench.meter import Meter

_ENCODING = Encoding()


def work(pair: tuple[str, str]) -> None:
    source, target = pair
    decision = convert(Path(source).read_bytes(), _ENCODING)
    if isinstance(decision, Variant):
        Path(target).write_bytes(decision.data)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dev.bench.bare", description="The encoding alone, for dev.bench.converter."
    )
    parser.add_argument("file", type=Path, help="has a line for each picture: source, target, by a tab")
    parser.add_argument("cores", type=int, help="processes")
    options = parser.parse_args()
    pairs = _pairs(options.file)
    with multiprocessing.get_context("fork").Pool(options.cores) as pool:
        pool.map(work, pairs[: 2 * options.cores], chunksize=1)  # everything is loaded
        with Meter(os.getpid()) as meter:
            started = time.monotonic()
            for _ in pool.imap_unordered(work, pairs, chunksize=16):
                pass
            seconds = time.monotonic() - started
        print(seconds, meter.cpu_s)


def _pairs(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text().splitlines()
    return [(source, target) for source, _, target in (line.partition("\t") for line in lines)]


if __name__ == "__main__":
    main()

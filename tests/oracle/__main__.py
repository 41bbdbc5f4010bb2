"""Plays seeded schedules of faults and says which ended wrong.

    python -m tests.oracle [--seed 1] [--count 1] [--jobs 1] [--show]

A seed always means the same schedule: `--seed N --show` plays one again and tells each step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.oracle.converter import play
from tests.oracle.schedules import schedule


def trial(seed: int, show: bool) -> tuple[int, float, list[str]]:
    """The seed, how many seconds it took, and what was wrong."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oracle-") as place:
        problems = play(schedule(seed), Path(place), print if show else lambda _: None)
    return seed, time.monotonic() - started, problems


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.oracle", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--count", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--show", action="store_true", help="tell each step")
    options = parser.parse_args()
    failed: list[int] = []
    seconds = 0.0
    seeds = range(options.seed, options.seed + options.count)
    with ThreadPoolExecutor(options.jobs) as pool:
        for seed, took, problems in pool.map(partial(trial, show=options.show), seeds):
            seconds += took
            if problems:
                failed.append(seed)
                print(
                    f"seed {seed}: {len(problems)} wrong; again: python -m tests.oracle --seed {seed} --show"
                )
                for line in problems[:10]:
                    print(f"  {line}")
            elif options.show or options.count <= 10:
                print(f"seed {seed}: nothing wrong, {took:.1f} s")
            sys.stdout.flush()
    print(f"{options.count} schedules, {seconds / options.count:.1f} s each, {len(failed)} wrong: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

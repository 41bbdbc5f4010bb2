"""`python -m dev.bench.http`: what negotiation, the cache and a miss cost, measured with wrk on the lab.

All are measured in turn, several rounds, so that what else the machine does falls on all alike; what counts
is the ratio. Absolute figures are this machine's: wrk and the hosts share its cores.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from rich.console import Console
from rich.table import Table

from dev.demo.photographs import photographs
from dev.lab import state
from dev.lab.errors import LabError
from dev.lab.site import PROPORTIONAL, Picture, Site

# Without AVIF, so that it is WebP that is compared.
BROWSER = "image/webp,image/apng,*/*;q=0.8"
CONNECTIONS = (1, 32, 256)
ROUNDS = 5
SECONDS = 3
MISSES = 20


@dataclass(frozen=True)
class Load:
    """What wrk is to ask for."""

    name: str
    url: str
    accept: str = BROWSER
    etag: str = ""
    """Of what the client has already."""


def wrk(load: Load, connections: int) -> float:
    """Requests a second, of which none may fail."""
    result = subprocess.run(
        [
            *("wrk", f"-d{SECONDS}", "-t1", f"-c{connections}", "--latency"),
            *("-H", f"Accept: {load.accept}", "-H", f"If-None-Match: {load.etag}", load.url),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in result.stdout or "Socket errors" in result.stdout:
        raise SystemExit(f"{load.name}: not every answer was a picture:\n{result.stdout}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)
    if not found:
        raise SystemExit(f"wrk says:\n{result.stdout}")
    return float(found[1])


def compared(loads: Sequence[Load], connections: int) -> list[list[float]]:
    """The rounds of each load, taken in turn."""
    rounds: list[list[float]] = [[] for _ in loads]
    for number in range(ROUNDS):
        # The first one of a round is not always the same.
        for offset in range(len(loads)):
            index = (number + offset) % len(loads)
            rounds[index].append(wrk(loads[index], connections))
    return rounds


def as_webp(client: httpx.Client, picture: Picture) -> httpx.Response:
    """The answer, once it is WebP."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get(picture.url_path, headers={"Accept": BROWSER})
        if answer.headers.get("Content-Type") == "image/webp":
            return answer
        if time.monotonic() > deadline:
            raise SystemExit(f"{picture.path} is not WebP after 60 s")
        time.sleep(0.1)


def milliseconds(client: httpx.Client, path: str) -> tuple[float, str]:
    """How long one answer took, and what the cache says of it."""
    started = time.perf_counter()
    answer = client.get(path, headers={"Accept": BROWSER})
    answer.raise_for_status()
    return (time.perf_counter() - started) * 1000, answer.headers["X-Cache"]


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m dev.bench.http",
        description="Loads the lab that `make demo` left up.",
    ).parse_args()
    console = Console()
    if not shutil.which("wrk"):
        console.print("wrk is missing: apt-get install wrk")
        return 1
    try:
        lab = state.load()
        address = f"http://{lab.host('cdn').address}"
        with Site(f"http://{lab.host('bitrix').address}") as site, httpx.Client(base_url=address) as client:
            show(console, site, client, address)
    except LabError as error:
        console.print(f"bench-http: {error}")
        return 1
    return 0


def show(console: Console, site: Site, client: httpx.Client, address: str) -> None:
    source = next(iter(photographs()))
    original = site.upload(source.name, source.content)
    resized = site.resize(original, 450, 450, PROPORTIONAL)
    variant = as_webp(client, resized)
    size = len(variant.content)
    unchanged = client.get(
        resized.url_path, headers={"Accept": BROWSER, "If-None-Match": variant.headers["ETag"]}
    )
    assert unchanged.status_code == 304, unchanged.status_code
    big = len(as_webp(client, original).content)

    loads = [
        Load("the same .webp by its name", f"{address}{resized.url_path}.webp"),
        Load("negotiated WebP", f"{address}{resized.url_path}"),
        Load(
            "negotiated WebP, which the client has: 304",
            f"{address}{resized.url_path}",
            etag=unchanged.headers["ETag"],
        ),
        Load("an original's WebP, Varnish warm", f"{address}{original.url_path}"),
    ]
    table = Table(title=f"requests/s, median of {ROUNDS} rounds of {SECONDS} s; ratio to the first line")
    table.add_column("what")
    for connections in CONNECTIONS:
        table.add_column(f"{connections} conn.", justify="right")
        table.add_column("ratio", justify="right")
    columns = []
    for connections in CONNECTIONS:
        console.print(f"[dim]{connections} connections ...[/]")
        rounds = compared(loads, connections)
        ratios = [
            statistics.median(mine / first for mine, first in zip(each, rounds[0], strict=True))
            for each in rounds
        ]
        columns.append([(statistics.median(each), ratio) for each, ratio in zip(rounds, ratios, strict=True)])
    for index, load in enumerate(loads):
        cells = [f"{column[index][n]:,.{digits}f}" for column in columns for n, digits in ((0, 0), (1, 2))]
        table.add_row(load.name, *cells)
    console.print(table)
    console.print(f"resized: {size:,} bytes; original: {big:,} bytes, of which each answer is the WebP")
    heads = [
        sum(len(name) + len(value) + 4 for name, value in one.headers.raw) for one in (variant, unchanged)
    ]
    console.print(f"headers: {heads[0]} bytes with a picture, {heads[1]} with a 304\n")

    misses, hits = [], []
    for number in range(MISSES):
        # Under another name it is another picture.
        fresh = site.upload(f"bench-{time.time_ns()}-{number}-{source.name}", source.content)
        taken, cache = milliseconds(client, fresh.url_path)
        assert cache == "miss", cache
        misses.append(taken)
        hits.append(milliseconds(client, fresh.url_path)[0])
        site.delete(fresh)
    table = Table(title=f"an original that was not asked for yet, ms, {MISSES} of them")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("slowest", justify="right")
    for name, values in (("first request: through the mount", misses), ("the next one", hits)):
        table.add_row(name, f"{statistics.median(values):.1f}", f"{max(values):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

"""How fast pictures become WebP: the daemon against its own encoding in a bare loop, cwebp and sharp.

    python -m dev.bench.converter [--corpus DIRECTORY] [--pictures 600] [--rounds 3] [--sizes 120,300]

From each photograph the usual resized sizes are made, and as many copies of them as give the wanted number of
pictures. All contestants convert the same files on the same disk. In each round each of them has its turn, so
that whatever else the machine does meets all of them; what is printed is the median.

- `daemon`: the real process with a real Redis, all defaults; from the first picture moved into the watched
  tree to the last one published: queued, converted, judged, synced to disk, renamed.
- `bare loop`: the same encoding on all cores, written without a sync (dev/bench/bare.py).
- `cwebp`: quality 85, method 4, a process for each picture, as many as cores (`xargs -P`).
- `sharp`: quality 85, effort 4, where Node is there.

`ratio` is the daemon's speed to that contestant's, `SSIM` the lowest of all pictures, `S2` the lowest and the
median SSIMULACRA 2, the original where nothing was made: 70 is high quality, 90 lossless to the eye.
CPU seconds are those of all processes of a contestant, Redis included, without the loading of Python; memory
is their largest common proportional set size.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity
from webp_converter.picture.visible import Judge

from converter_app.tests.harness import DaemonProcess, RedisServer
from dev.bench.meter import Meter
from dev.demo.photographs import photographs

CORES = len(os.sched_getaffinity(0))
_CACHE = Path(__file__).parents[2] / ".cache"


class BenchmarkError(Exception):
    """The benchmark can't be run: why."""


@dataclass
class Task:
    """Pictures of one size: where they are, and where a contestant writes what it makes of them."""

    size: int
    sources: list[Path]
    unique: int
    """How many of them, from the first on, are unlike each other."""

    results: Path

    def targets(self, contestant: str) -> list[Path]:
        directory = self.results / contestant
        directory.mkdir(parents=True, exist_ok=True)
        return [directory / f"{number}.webp" for number in range(len(self.sources))]


@dataclass
class Run:
    """One turn of a contestant."""

    seconds: float
    cpu_s: float
    peak_mib: float


@dataclass
class Score:
    """All turns of a contestant at one size."""

    runs: list[Run] = field(default_factory=list)
    bytes_out: int = 0
    saved: float = 0.0
    lowest_ssim: float = 1.0
    visible: list[float] = field(default_factory=list)
    """SSIMULACRA 2 of each picture."""

    def speed(self, pictures: int) -> float:
        return pictures / statistics.median(run.seconds for run in self.runs)


def tasks(place: Path, corpus: Path | None, sizes: Sequence[int], pictures: int) -> Iterator[Task]:
    """Makes the resized pictures, as Bitrix does: JPEG, quality 90."""
    if corpus:
        originals = [file.read_bytes() for file in sorted(corpus.glob("*.jpg"))]
    else:
        originals = [photograph.content for photograph in photographs()]
    if not originals:
        raise BenchmarkError(f"{corpus}: no *.jpg there")
    for size in sizes:
        directory = place / f"pictures-{size}"
        directory.mkdir()
        made = []
        for content in originals:
            image = Image.open(BytesIO(content)).convert("RGB")
            image.thumbnail((size, size), Image.Resampling.LANCZOS)
            output = BytesIO()
            image.save(output, "JPEG", quality=90)
            made.append(output.getvalue())
        sources = []
        for number in range(max(pictures, len(made))):
            path = directory / f"{number}.jpg"
            path.write_bytes(made[number % len(made)])
            sources.append(path)
        yield Task(size, sources, len(made), place / f"results-{size}")


def command(arguments: Sequence[str], stdin: Path | None = None) -> Run:
    """Runs a program. One that loads much before it begins prints the seconds that count, and those of CPU
    time if it measured them itself."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else None
        before = os.times()
        started = time.monotonic()
        process = subprocess.Popen(arguments, stdin=source, stdout=subprocess.PIPE, text=True)
        with Meter(process.pid) as meter:
            output, _ = process.communicate()
        seconds = time.monotonic() - started
    if process.returncode:
        raise BenchmarkError(f"{arguments[0]} exits {process.returncode}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    told = [*map(float, output.split()), *(seconds, cpu_s)[len(output.split()) :]]
    return Run(told[0], told[1], meter.peak_mib)


def listed(task: Task, contestant: str) -> Path:
    """A file with a source and a target on each line."""
    file = task.results / f"{contestant}.list"
    pairs = zip(task.sources, task.targets(contestant), strict=True)
    file.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return file


def bare_loop(task: Task) -> Run:
    return command([sys.executable, "-m", "dev.bench.bare", str(listed(task, "bare loop")), str(CORES)])


def cwebp(task: Task) -> Run:
    script = 'cwebp -quiet -q 85 -m 4 "$0" -o "$1"'
    names = task.results / "cwebp.names"
    pairs = zip(task.sources, task.targets("cwebp"), strict=True)
    names.write_text("".join(f"{source}\n{target}\n" for source, target in pairs))
    return command(["xargs", "-P", str(CORES), "-n", "2", "sh", "-c", f"exec {script}"], names)


def sharp(task: Task) -> Run:
    script = Path(__file__).with_name("sharp.mjs")
    return command(["node", str(script), str(listed(task, "sharp")), str(CORES), str(_CACHE / "sharp")])


class Converter:
    """The daemon, kept running; each turn works in separate directories."""

    def __init__(self, place: Path) -> None:
        (place / "daemon").mkdir()
        self._redis = RedisServer(place / "redis")
        self._redis.start()
        log = {"level": "info"}
        self._daemon = DaemonProcess(place / "daemon" / "cdn", self._redis.url, log=log)
        self._daemon.start()
        self._turn = 0

    def close(self) -> None:
        self._daemon.stop()
        self._redis.kill()

    def __call__(self, task: Task) -> Run:
        """Moves copies of the pictures into the watched tree at once, and waits for the last variant."""
        self._turn += 1
        top = self._daemon.root / f"turn{self._turn}"
        box = f"{task.size}_{task.size}_1"
        staged, paths = [], []
        for number, source in enumerate(task.sources):
            path = top / f"{number % 97:03}" / box / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            copy = self._daemon.root.parent / f"{number}.jpg"
            shutil.copyfile(source, copy)
            staged.append(copy)
            paths.append(path)
        os.sync()
        self._settle()
        assert self._daemon.process
        assert self._redis.process
        with Meter(self._daemon.process.pid, self._redis.process.pid) as meter:
            started = time.monotonic()
            for copy, path in zip(staged, paths, strict=True):
                copy.rename(path)
            undecided = list(paths)
            while undecided:
                if _decided(undecided[-1]):
                    undecided.pop()
                else:
                    time.sleep(0.01)
            seconds = time.monotonic() - started
        for path, target in zip(paths, task.targets("daemon"), strict=True):
            variant = path.with_name(path.name + ".webp")
            if variant.exists():
                variant.rename(target)
        shutil.rmtree(top)
        return Run(seconds, meter.cpu_s, meter.peak_mib)

    def _settle(self) -> None:
        """Waits until all directories are watched and nothing is left to do."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            health = self._daemon.health()
            if (
                health
                and health["running"] == 0
                and not health["scanning"]
                and not any(health["queue"].values())
            ):
                time.sleep(1)
                return
            time.sleep(0.1)
        raise BenchmarkError("the daemon does not come to rest")


def _decided(path: Path) -> bool:
    name = os.fspath(path)
    return any(os.path.exists(name + suffix) for suffix in (".webp", ".keep"))  # noqa: PTH110


def judge(task: Task, contestant: str, score: Score) -> None:
    """Sizes and similarity of what a contestant made; where it made nothing, the original is what counts."""
    before = after = 0
    for number, (source, target) in enumerate(zip(task.sources, task.targets(contestant), strict=True)):
        size = source.stat().st_size
        before += size
        after += target.stat().st_size if target.exists() else size
        if number >= task.unique:
            continue
        if not target.exists():
            score.visible.append(100.0)
            continue
        one, other = (Image.open(file).convert("RGB") for file in (source, target))
        lumas = (np.asarray(image.convert("L")) for image in (one, other))
        similarity = float(structural_similarity(*lumas))  # type: ignore[no-untyped-call]
        score.lowest_ssim = min(score.lowest_ssim, similarity)
        score.visible.append(Judge(np.asarray(one)).score(np.asarray(other)))
    score.bytes_out = after
    score.saved = 1 - after / before


def peers() -> dict[str, Callable[[Task], Run]]:
    """The contestants that can be had here."""
    found: dict[str, Callable[[Task], Run]] = {"bare loop": bare_loop}
    if shutil.which("cwebp"):
        found["cwebp"] = cwebp
    else:
        print("no cwebp: apt-get install webp", file=sys.stderr)
    if not shutil.which("node") or not shutil.which("npm"):
        print("no sharp: needs Node and npm", file=sys.stderr)
        return found
    place = _CACHE / "sharp"
    if not (place / "node_modules" / "sharp").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        got = subprocess.run(
            ["npm", "install", "--silent", "--no-package-lock", "sharp"], cwd=place, check=False
        )
        if got.returncode:
            print("no sharp: npm could not install it", file=sys.stderr)
            return found
    found["sharp"] = sharp
    return found


def table(task: Task, scores: dict[str, Score]) -> Table:
    title = f"{task.size} px, {len(task.sources)} pictures, {CORES} cores"
    result = Table("", "images/s", "ratio", "MB out", "saved", "SSIM", "S2", "CPU s", "peak MiB", title=title)
    pictures = len(task.sources)
    own = scores["daemon"].speed(pictures)
    for name, score in scores.items():
        speed = score.speed(pictures)
        cpu_s = statistics.median(run.cpu_s for run in score.runs)
        peak_mib = max(run.peak_mib for run in score.runs)
        result.add_row(
            name,
            f"{speed:.0f}",
            "" if name == "daemon" else f"{own / speed:.2f}",
            f"{score.bytes_out / 1e6:.2f}",
            f"{score.saved:.1%}",
            f"{score.lowest_ssim:.4f}",
            f"{min(score.visible):.0f}, {statistics.median(score.visible):.0f}",
            f"{cpu_s:.1f}",
            f"{peak_mib:.0f}",
        )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, help="a directory of photographs, *.jpg")
    parser.add_argument("--pictures", type=int, default=600, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="120,300,450,768", help="longer sides in pixels")
    parser.add_argument("--only", action="store_true", help="the daemon and the bare loop alone")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    console = Console()
    _CACHE.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=_CACHE, prefix="bench-") as directory:
            place = Path(directory)
            others = {"bare loop": bare_loop} if arguments.only else peers()
            converter = Converter(place)
            try:
                for task in tasks(place, arguments.corpus, sizes, arguments.pictures):
                    contestants: dict[str, Callable[[Task], Run]] = {"daemon": converter, **others}
                    scores = {name: Score() for name in contestants}
                    for _ in range(arguments.rounds):
                        for name, contestant in contestants.items():
                            scores[name].runs.append(contestant(task))
                    for name, score in scores.items():
                        judge(task, name, score)
                    console.print(table(task, scores))
            finally:
                converter.close()
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

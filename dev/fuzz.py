"""Feeds mutated pictures to the image path, and tells what came of it.

    python -m dev.fuzz [--seconds 300] [--seed 1] [--processes N] [--only NUMBER]

Real files of every format, made by Pillow, are mutated and given to `convert`. A variant, a verdict,
`DamagedError`, and `MemoryError` under the limit on memory are answers. Anything else is a finding: another
exception, a crash, a hang, a variant that can't be decoded. Each is saved below `.cache/fuzz` with the
command that repeats it. All follows from the seed: mutant NUMBER of a seed is always the same.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import math
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageCms, features
from webp_converter.config import Encoding
from webp_converter.picture.images import DamagedError, Variant, convert

MEMORY_BYTES = 1 << 30
TIME_LIMIT_S = 20
FINDINGS = Path(".cache/fuzz")

ENCODINGS = (
    Encoding(),
    Encoding(),
    Encoding(maximum_pixels=10_000),
    Encoding(policy="size-rules"),
    Encoding(policy="fixed", quality=40, lossless=False),
)

Target = Callable[[bytes, Encoding], str]


class Mutant(NamedTuple):
    """What is tried."""

    name: str
    """The kinds of picture that it was made from."""

    data: bytes
    encoding: Encoding


class Finding(NamedTuple):
    """What must not have happened."""

    number: int
    outcome: str
    trace: str = ""


# What is mutated


def _photograph(side: int = 72) -> Image.Image:
    """A picture with plain, textured and sharp parts, the same on every run."""
    fractal = Image.effect_mandelbrot((side, side * 3 // 4), (-2, -1, 0.8, 1.1), 60)
    gradient = Image.linear_gradient("L").resize(fractal.size)
    return Image.merge("RGB", (fractal, gradient, gradient.transpose(Image.Transpose.ROTATE_180)))


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    output = io.BytesIO()
    image.save(output, form, **options)
    return output.getvalue()


@cache
def originals() -> dict[str, bytes]:
    """Whole pictures of every kind, by name."""
    photo = _photograph()
    gray = photo.convert("L")
    alpha = photo.convert("RGBA")
    alpha.putalpha(gray)
    palette = photo.quantize(32)
    frames = [photo.rotate(90 * k) for k in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": [40, 80, 120]}
    found = {
        "jpeg": _saved(photo, "JPEG", quality=90),
        "jpeg progressive": _saved(photo, "JPEG", quality=90, progressive=True),
        "jpeg 4:4:4": _saved(photo, "JPEG", quality=95, subsampling=0),
        "jpeg restarts": _saved(photo, "JPEG", quality=90, restart_marker_blocks=2),
        "jpeg gray": _saved(gray, "JPEG"),
        "jpeg cmyk": _saved(photo.convert("CMYK"), "JPEG"),
        "jpeg exif icc": _saved(photo, "JPEG", exif=exif, icc_profile=profile),
        "png": _saved(photo, "PNG"),
        "png alpha": _saved(alpha, "PNG"),
        "png gray alpha": _saved(alpha.convert("LA"), "PNG"),
        "png palette": _saved(palette, "PNG"),
        "png palette transparent": _saved(palette, "PNG", transparency=3),
        "png colour key": _saved(photo, "PNG", transparency=(10, 20, 30)),
        "png 1 bit": _saved(photo.convert("1"), "PNG"),
        "png 16 bit": _saved(gray.convert("I").convert("I;16"), "PNG"),
        "png icc": _saved(photo, "PNG", icc_profile=profile),
        "apng": _saved(frames[0], "PNG", **animated),
        "gif": _saved(palette, "GIF"),
        "gif animated": _saved(frames[0], "GIF", loop=2, **animated),
        "bmp": _saved(photo, "BMP"),
        "bmp palette": _saved(palette, "BMP"),
        "tiff": _saved(photo, "TIFF"),
        "tiff lzw": _saved(alpha, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": _saved(photo, "TIFF", compression="jpeg"),
        "webp": _saved(photo, "WEBP"),
        "webp lossless": _saved(alpha, "WEBP", lossless=True),
        "webp animated": _saved(frames[0], "WEBP", **animated),
    }
    found |= _with_colours(found["png"], found["apng"])
    if features.check("avif"):
        found["avif"] = _saved(photo, "AVIF", speed=10)
        found["avif alpha"] = _saved(alpha, "AVIF", speed=10)
    return found


def _with_colours(png: bytes, apng: bytes) -> dict[str, bytes]:
    """What of a PNG's and a JPEG's other parts is read: colours, and how the picture is turned."""
    photo = _photograph()
    exif = Image.Exif()
    exif[0x0112] = 5
    turned = exif.tobytes().removeprefix(b"Exif\0\0")
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"...."), (b"gXYZ", b"rXYZ"), (b"....", b"gXYZ")):
        swapped = swapped.replace(old, new)
    p3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    parts = {
        "gAMA": struct.pack(">I", 55_556),
        "cHRM": struct.pack(">8I", *(round(100_000 * value) for value in p3)),
        "cICP": bytes((12, 13, 0, 1)),
        "iCCP": b"name\0\0" + zlib.compress(swapped),
        "eXIf": turned,
    }
    chosen = [[name] for name in parts] + [["gAMA", "cHRM"], list(parts)]
    found = {}
    for kind, data in (("png", png), ("apng", apng)):
        for names in chosen:
            between = b"".join(_chunk(name.encode(), parts[name]) for name in names)
            found[f"{kind} {' '.join(names)}"] = data[:33] + between + data[33:]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name, profile in (("swapped", swapped), ("lab", lab)):
        found[f"jpeg icc {name}"] = _saved(photo, "JPEG", quality=95, icc_profile=profile, exif=exif)
    found["jpeg exif"] = _saved(photo, "JPEG", quality=95, exif=exif)
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Mutations: each changes a picture in place

_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_HEADER_BYTES = 200


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] = rng.choice((0, 0xFF, rng.randrange(256)))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def _edit_header(data: bytearray, rng: random.Random) -> None:
    """A field of two or four bytes, where sizes and offsets are."""
    form, width = rng.choice(((">H", 2), ("<H", 2), (">I", 4), ("<I", 4)))
    at = rng.randrange(min(len(data), _HEADER_BYTES))
    value = rng.choice((*_INTERESTING, rng.randrange(20_000))) % (1 << 8 * width)
    data[at : at + width] = struct.pack(form, value)


def _block(data: bytearray, rng: random.Random) -> slice:
    start = rng.randrange(len(data))
    return slice(start, start + rng.choice((1, 4, 16, 64, 512)))


def _copy_block(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[_block(data, rng)]


def _overwrite_block(data: bytearray, rng: random.Random) -> None:
    block = data[_block(data, rng)]
    at = rng.randrange(len(data))
    data[at : at + len(block)] = block


def _delete_block(data: bytearray, rng: random.Random) -> None:
    del data[_block(data, rng)]


def _splice(data: bytearray, rng: random.Random) -> None:
    """The beginning of this one and the end of another."""
    other = rng.choice(list(originals().values()))
    data[rng.randrange(1, len(data) + 1) :] = other[rng.randrange(len(other)) :]


_MUTATIONS = (
    *(_flip_bits, _set_bytes, _truncate, _edit_header, _edit_header),
    *(_copy_block, _overwrite_block, _delete_block, _splice),
)


def repaired(data: bytes) -> bytes:
    """A PNG with checksums that fit, so that what is wrong with its chunks gets past them."""
    result = bytearray(data)
    position = 8
    while position + 12 <= len(result):
        end = position + 8 + struct.unpack_from(">I", result, position)[0]
        if end + 4 > len(result):
            break
        struct.pack_into(">I", result, end, zlib.crc32(result[position + 4 : end]))
        position = end + 4
    return bytes(result)


def mutant(seed: int, number: int) -> Mutant:
    """The mutant of that number; 0 and up. Always the same for a seed."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311 (no secret)
    name, original = rng.choice(list(originals().items()))
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if data:
            rng.choice(_MUTATIONS)(data, rng)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        data = bytearray(repaired(bytes(data)))
    return Mutant(name, bytes(data), rng.choice(ENCODINGS))


# Execution


def image_path(data: bytes, encoding: Encoding) -> str:
    """What a worker does with a picture; the outcome. Raises what is a finding."""
    try:
        decision = convert(data, encoding)
    except DamagedError:
        return "damaged"
    except MemoryError:
        return "out of memory"
    if not isinstance(decision, Variant):
        return f"keep: {decision.reason.value}"
    judged, most = decision, len(data) * (1 - encoding.minimum_saving)
    if data[4:8] == b"ftyp" and decision.avif:
        # The WebP is for browsers that can't show AVIF, whatever it saves; others get what lies beside it.
        judged, most = decision.avif, len(data)
    if len(judged.data) > most:
        raise AssertionError(f"a variant of {len(judged.data)} bytes for {len(data)}")
    if not math.isnan(judged.similarity) and judged.similarity < encoding.ssim_target:
        raise AssertionError(f"a similarity of {judged.similarity}")
    try:
        Image.open(io.BytesIO(decision.data)).load()
    except MemoryError:
        return "out of memory"
    return "variant"


def _child(
    seed: int,
    numbers: range,
    current: Any,
    deadline: float,
    report: Connection,
    target: Target,
    limit_s: float,
) -> None:
    """Tries mutants one after another. What ends this process is told by `current`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The default action ends a process that hangs in C; a handler would wait for it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Libraries in C say what they think of a picture on standard error, and none of it is an outcome.
    faulthandler.disable()
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    outcomes: collections.Counter[str] = collections.Counter()
    findings: list[Finding] = []
    for number in numbers:
        current.value = number
        if time.monotonic() > deadline:
            break
        tried = mutant(seed, number)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            outcomes[target(tried.data, tried.encoding)] += 1
        except Exception as error:
            outcomes[type(error).__name__] += 1
            findings.append(Finding(number, f"{type(error).__name__}: {error}", traceback.format_exc()))
        signal.setitimer(signal.ITIMER_REAL, 0)
        if findings or sum(outcomes.values()) >= 200:  # little is lost with a process that crashes
            report.send((outcomes, findings))
            outcomes, findings = collections.Counter(), []
    report.send((outcomes, findings))


class Fuzzer:
    """One run: mutants of a seed, shared by processes."""

    def __init__(self, seed: int, target: Target = image_path, limit_s: float = TIME_LIMIT_S) -> None:
        self._seed = seed
        self._target = target
        self._limit_s = limit_s
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.findings: list[Finding] = []

    def run(self, seconds: float, executions: int, processes: int = 1) -> None:
        """Tries mutants until the time is over or there were so many."""
        originals()
        deadline = time.monotonic() + seconds
        context = multiprocessing.get_context("fork")
        children: dict[int, Any] = {}
        for share in range(processes):
            children[share] = self._start(context, range(share, executions, processes), deadline)
        while children:
            for share, (process, current, receiver) in list(children.items()):
                try:
                    while receiver.poll(0.02):
                        outcomes, findings = receiver.recv()
                        self.outcomes += outcomes
                        self.findings += findings
                except EOFError:
                    pass
                else:
                    continue
                process.join()
                del children[share]
                if process.exitcode == 0:
                    continue
                if process.exitcode == -signal.SIGALRM:
                    outcome = f"not done after {self._limit_s:g} s"
                elif process.exitcode < 0:
                    outcome = signal.Signals(-process.exitcode).name
                else:
                    outcome = f"exit status {process.exitcode}"
                self.outcomes[outcome] += 1
                self.findings.append(Finding(current.value, outcome))
                rest = range(current.value + processes, executions, processes)
                children[share] = self._start(context, rest, deadline)

    def _start(self, context: Any, numbers: range, deadline: float) -> tuple[Any, Any, Connection]:
        receiver, sender = context.Pipe(duplex=False)
        current = context.Value("q", numbers.start, lock=False)
        process = context.Process(
            target=_child,
            args=(self._seed, numbers, current, deadline, sender, self._target, self._limit_s),
        )
        process.start()
        sender.close()
        return process, current, receiver

    def save(self, finding: Finding, directory: Path) -> Path:
        """Saves a finding's picture, and beside it what happened and how to repeat it."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self._seed}-{finding.number}"
        tried = mutant(self._seed, finding.number)
        path.write_bytes(tried.data)
        again = f"python -m dev.fuzz --seed {self._seed} --only {finding.number}"
        text = f"{finding.outcome}\nfrom: {tried.name}\n{tried.encoding}\nagain: {again}\n\n{finding.trace}"
        path.with_name(path.name + ".txt").write_text(text)
        return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, default=None, help="try this mutant alone, in this process")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(3), "big") if options.seed is None else options.seed
    if options.only is not None:
        tried = mutant(seed, options.only)
        print(f"{tried.name}, {len(tried.data)} bytes: {image_path(tried.data, tried.encoding)}")
        return
    print(f"seed {seed}, {options.seconds:g} s, {options.processes} processes")
    fuzzer = Fuzzer(seed)
    started = time.monotonic()
    fuzzer.run(options.seconds, sys.maxsize, options.processes)
    seconds = time.monotonic() - started
    executions = sum(fuzzer.outcomes.values())
    for outcome, count in fuzzer.outcomes.most_common():
        print(f"{count:>10,}  {count / executions:6.1%}  {outcome}")
    rate = f"{executions / seconds:,.0f}/s"
    print(f"{executions:>10,}  in {seconds:.0f} s: {rate}; {len(fuzzer.findings)} findings")
    for finding in fuzzer.findings:
        print(f"{fuzzer.save(finding, FINDINGS)}: {finding.outcome}")
    sys.exit(bool(fuzzer.findings))


if __name__ == "__main__":
    main()

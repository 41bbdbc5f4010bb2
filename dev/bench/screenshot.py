"""`python -m dev.bench.screenshot FILE`: the lab's gallery as Chromium shows it, in 256 colours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from dev.lab import state
from tests.e2e.browser import proxy, visit

WIDTH, HEIGHT = 1280, 860


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.screenshot", description=__doc__)
    parser.add_argument("target", type=Path, metavar="FILE", help="the PNG to write")
    target: Path = parser.parse_args().target
    address = state.load().host("bitrix").address
    with TemporaryDirectory() as directory, proxy() as seen:
        file = Path(directory) / "gallery.png"
        visit(f"http://{address}/", seen, file, width=WIDTH, height=HEIGHT)
        with Image.open(file) as shot:
            shot.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
    types = sorted({loaded.type for loaded in seen.pictures().values()})
    print(f"{target}: {target.stat().st_size:,} bytes; {len(seen.pictures())} pictures as {', '.join(types)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Renews the picture that monitoring requests: `picture.py PATH`.

The variants go first. So whoever gets WebP from then on sees the work of a converter that runs: it noticed
the file, converted it and published what it made. The bytes are always the same: whoever compares the trees
of two hosts meanwhile finds no difference.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

SIZE = (320, 240)
SUFFIXES = (".webp", ".avif", ".keep")


def picture() -> bytes:
    """A JPEG with edges and smooth shades, 320x240, of which WebP saves a good part."""
    shapes = Image.effect_mandelbrot(SIZE, (-2.2, -1.2, 1.0, 1.2), 60)
    shades = (Image.linear_gradient("L").resize(SIZE), Image.radial_gradient("L").resize(SIZE))
    file = io.BytesIO()
    Image.merge("RGB", (shapes, *shades)).save(file, "JPEG", quality=92)
    return file.getvalue()


def renew(path: Path) -> None:
    """Puts the picture there, whatever was there, in one rename, and removes its variants.

    :raises OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(picture())
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Puts the picture that monitoring asks for at its place.")
    parser.add_argument("path", type=Path)
    renew(parser.parse_args().path)

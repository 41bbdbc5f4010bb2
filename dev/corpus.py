"""Pictures of the kinds that shops show, drawn by code: the same seed gives the same picture.

    python -m dev.corpus DIRECTORY [--each 10]

writes some of each kind as JPEG, for `make bench CORPUS=DIRECTORY`.

Photographs, which code can't draw, come from `dev.demo.photographs`. What is damaged by a codec in different
ways is here side by side: flat grounds, saturated text, thin lines, grain, gradients, the dark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_WORDS = [
    "Sale",
    "New",
    "Price",
    "-50%",
    "Buy",
    "1",
    "299",
    "Free",
    "delivery",
    "Tools",
    "Garden",
    "Light",
    "Boots",
    "Size",
    "42",
    "Order",
    "today",
    "Catalogue",
]
_SATURATED = ((220, 0, 0), (0, 0, 220), (0, 150, 0), (255, 220, 0), (230, 0, 150), (0, 170, 220), (0, 0, 0))

_Random = np.random.Generator


def _colour(random: _Random) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return red, green, blue


def _saturated(random: _Random) -> tuple[int, int, int]:
    return _SATURATED[int(random.integers(len(_SATURATED)))]


def _line(random: _Random, words: int = 3) -> str:
    return " ".join(_WORDS[int(index)] for index in random.integers(len(_WORDS), size=words))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _noise(random: _Random, size: tuple[int, int], blur: float, contrast: float) -> NDArray[np.float64]:
    """Smooth noise of three channels with a standard deviation of `contrast`."""
    raw = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    values = np.asarray(raw.filter(ImageFilter.GaussianBlur(blur)) if blur else raw, np.float64)
    values = values - values.mean((0, 1))
    noise: NDArray[np.float64] = contrast * values / max(1e-6, float(values.std()))
    return noise


def _picture(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def packshot(random: _Random, width: int, height: int) -> Image.Image:
    """A shaded product with a label, on white or on a light ground, with a soft shadow."""
    ground = (255, 255, 255) if random.random() < 0.7 else (244, 245, 247)
    picture = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(picture)
    box = (width * 0.22, height * 0.12, width * 0.78, height * 0.86)
    draw.ellipse((box[0], height * 0.8, box[2], height * 0.93), fill=(190, 190, 190))
    picture = picture.filter(ImageFilter.GaussianBlur(width / 40))
    mask = Image.new("L", (width, height), 0)
    shape = ImageDraw.Draw(mask)
    if random.random() < 0.5:
        shape.rounded_rectangle(box, width / 12, fill=255)
    else:
        shape.ellipse(box, fill=255)
    across = np.linspace(-1, 1, width)[None, :, None]
    shade = 1.1 - 0.6 * across**2
    body = np.array(_colour(random))[None, None] * shade * np.ones((height, 1, 1))
    body = body + _noise(
        random, (width, height), float(random.choice([0.6, 1.5, 4])), float(random.choice([2, 6, 14]))
    )
    picture.paste(_picture(body), (0, 0), mask)
    draw = ImageDraw.Draw(picture)
    size = height * random.uniform(0.04, 0.09)
    draw.text((width * 0.32, height * 0.4), _line(random, 2), _saturated(random), _font(size))
    draw.line(
        (box[0] + 9, height * 0.6, box[2] - 9, height * 0.6), _saturated(random), int(random.integers(1, 4))
    )
    return picture


def banner(random: _Random, width: int, height: int) -> Image.Image:
    """Saturated text on saturated grounds."""
    picture = Image.new("RGB", (width, height), _saturated(random))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(2, 5))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        draw.ellipse((x, y, x + width / 3, y + height / 2), fill=_saturated(random))
    for row in range(int(random.integers(2, 6))):
        size = height * random.uniform(0.06, 0.2)
        at = (width * 0.05, height * (0.05 + 0.17 * row))
        draw.text(at, _line(random), _saturated(random), _font(size))
    return picture


def screenshot(random: _Random, width: int, height: int) -> Image.Image:
    """A page: small dark text on light grounds, buttons, frames, a picture or two."""
    picture = Image.new("RGB", (width, height), (250, 250, 250))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, 28), fill=_saturated(random))
    draw.text((8, 7), _line(random), (255, 255, 255), _font(13))
    for row in range(36, height - 14, 16):
        if random.random() < 0.75:
            tint = (40, 40, 40) if random.random() < 0.7 else _saturated(random)
            draw.text((8 + 4 * int(random.integers(4)), row), _line(random, 9), tint, _font(11))
    for _ in range(3):
        x, y = random.uniform(0, width * 0.7), random.uniform(30, height * 0.8)
        draw.rectangle((x, y, x + 70, y + 20), fill=_saturated(random), outline=(90, 90, 90))
        draw.text((x + 6, y + 4), _line(random, 1), (255, 255, 255), _font(11))
    inset = photograph_like(random, max(16, width // 4), max(16, height // 4))
    picture.paste(inset, (int(width * 0.7), int(height * 0.6)))
    return picture


def drawing(random: _Random, width: int, height: int) -> Image.Image:
    """Line art: thin lines and curves, black or saturated, on white."""
    picture = Image.new("RGB", (2 * width, 2 * height), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    coloured = random.random() < 0.5
    for _ in range(int(random.integers(12, 50))):
        x, y = random.uniform(0, 2 * width), random.uniform(0, 2 * height)
        dx, dy = random.uniform(-width, width), random.uniform(-height, height)
        tint = _saturated(random) if coloured else (0, 0, 0)
        thickness = int(random.integers(1, 5))
        if random.random() < 0.5:
            draw.line((x, y, x + dx, y + dy), tint, thickness)
        else:
            draw.ellipse((x, y, x + abs(dx) / 2, y + abs(dy) / 2), outline=tint, width=thickness)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def stripes(random: _Random, width: int, height: int) -> Image.Image:
    """Fabric: thin saturated threads over a weave."""
    period = int(random.integers(2, 9))
    first, second = np.array(_saturated(random)), np.array(_colour(random))
    index = np.arange(width)[None, :] + (np.arange(height)[:, None] if random.random() < 0.5 else 0)
    values = np.where((index // period % 2 == 0)[..., None], first, second).astype(np.float64)
    values = np.broadcast_to(values, (height, width, 3))
    return _picture(values + _noise(random, (width, height), 0.7, float(random.choice([0, 4, 12]))))


def gradient(random: _Random, width: int, height: int) -> Image.Image:
    """A smooth ground in which steps show, with a few words on it."""
    first, second = np.array(_colour(random)), np.array(_colour(random))
    y, x = np.mgrid[0:height, 0:width]
    turn = random.uniform(0, np.pi)
    along = (np.cos(turn) * x / width + np.sin(turn) * y / height)[..., None]
    along = (along - along.min()) / (along.max() - along.min())
    values = first * (1 - along) + second * along
    if random.random() < 0.5:
        values = values + _noise(random, (width, height), 0, 1.0)
    picture = _picture(values)
    if random.random() < 0.5:
        draw = ImageDraw.Draw(picture)
        draw.text((width * 0.1, height * 0.4), _line(random), (255, 255, 255), _font(height * 0.1))
    return picture


def photograph_like(random: _Random, width: int, height: int) -> Image.Image:
    """Noise of several scales, as natural pictures have it, in colour."""
    values = np.full((height, width, 3), 128.0)
    for blur in (width / 6, width / 20, width / 60, 1.2, 0.6):
        tint = _noise(random, (width, height), blur, random.uniform(2, 30) * min(1, blur / 4 + 0.15))
        gray = tint.mean(2, keepdims=True)
        values = values + gray + (tint - gray) * random.uniform(0.1, 0.9)
    return _picture(values)


def dark(random: _Random, width: int, height: int) -> Image.Image:
    """A night: little light, some lamps, some noise."""
    values = np.asarray(photograph_like(random, width, height), np.float64)
    values = 255 * (values / 255) ** random.uniform(2.5, 4.5)
    picture = _picture(values + _noise(random, (width, height), 0.5, float(random.choice([0, 2, 5]))))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(2, 12))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        draw.ellipse((x, y, x + 4, y + 4), fill=_saturated(random))
    return picture


def grain(random: _Random, width: int, height: int) -> Image.Image:
    """Film or a high ISO: fine noise over soft shapes."""
    values = np.asarray(
        photograph_like(random, width, height).filter(ImageFilter.GaussianBlur(6)), np.float64
    )
    noise = _noise(random, (width, height), float(random.choice([0, 0.6, 1])), random.uniform(4, 18))
    if random.random() < 0.5:
        noise = noise.mean(2, keepdims=True) * np.ones(3)
    return _picture(values + noise)


KINDS: dict[str, Callable[[_Random, int, int], Image.Image]] = {
    kind.__name__: kind
    for kind in (
        *(packshot, banner, screenshot, drawing, stripes),
        *(gradient, photograph_like, dark, grain),
    )
}


def drawn(kind: str, seed: int, width: int = 450, height: int = 338) -> Image.Image:
    """A picture of one of `KINDS`."""
    return KINDS[kind](np.random.default_rng([seed, *kind.encode()]), width, height)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--each", type=int, default=10, help="pictures of each kind")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        for seed in range(arguments.each):
            picture = drawn(kind, seed, 800, 600)
            picture.save(arguments.directory / f"{kind}-{seed}.jpg", "JPEG", quality=95, subsampling=0)


if __name__ == "__main__":
    main()

"""Fits the coefficients of `webp_converter.picture.predictor` to photographs and writes them as its data.

    python dev/fit_predictor.py PHOTOS_DIRECTORY [more directories or files]

Each photograph is resized to what shops use, stored as JPEG as PHP's GD does, encoded at each quality and
measured. The quality of the prediction is reported with each photograph left out in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webp_converter.config import Encoding
from webp_converter.picture import predictor
from webp_converter.picture.similarity import Reference

SIDES = (120, 200, 300, 450, 768)
JPEG_QUALITIES = (85, 90, 95)
QUALITIES = (50, 60, 70, 75, 80, 85, 90, 95)
METHOD = Encoding().method


def photographs(arguments: list[str]) -> list[Path]:
    found: list[Path] = []
    for argument in map(Path, arguments):
        found += sorted(argument.iterdir()) if argument.is_dir() else [argument]
    return [path for path in found if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def measured(photograph: Image.Image) -> tuple[list[NDArray[np.float64]], list[list[float]]]:
    """Features and scores of each picture made from one photograph."""
    rows, scores = [], []
    for side in SIDES:
        if side > max(photograph.size):
            continue
        resized = photograph.copy()
        resized.thumbnail((side, side))
        for jpeg_quality in JPEG_QUALITIES:
            stored = BytesIO()
            resized.save(stored, "JPEG", quality=jpeg_quality)
            picture = Image.open(stored).convert("RGB")
            reference = Reference(np.asarray(picture.convert("L")))
            rows.append(
                predictor.features(
                    reference.variances(), len(stored.getvalue()), picture.width * picture.height
                )
            )
            at_quality = []
            for quality in QUALITIES:
                variant = BytesIO()
                picture.save(variant, "WEBP", quality=quality, method=METHOD)
                luma = np.asarray(Image.open(variant).convert("L"))
                at_quality.append(predictor.score(reference.similarity(luma)))
            scores.append(at_quality)
    return rows, scores


def fit(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares, slightly damped: the squares of features are close to the features themselves."""
    scale = np.abs(rows).max(axis=0)
    scaled = rows / scale
    damped = np.vstack([scaled, np.sqrt(1e-6 * len(rows)) * np.eye(rows.shape[1])])
    padded = np.concatenate([targets, np.zeros(rows.shape[1])])
    solution: NDArray[np.float64] = np.linalg.lstsq(damped, padded, rcond=None)[0] / scale
    return solution


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", nargs="+", metavar="PHOTOS", help="a directory, or a file")
    paths = photographs(parser.parse_args().photographs)
    if not paths:
        sys.exit("fit_predictor: there are no photographs in what was given")
    rows, scores, groups = [], [], []
    for number, path in enumerate(paths):
        new_rows, new_scores = measured(Image.open(path).convert("RGB"))
        rows += new_rows
        scores += new_scores
        groups += [number] * len(new_rows)
        print(f"{number + 1}/{len(paths)} {path.name}", file=sys.stderr)
    x, y, group = np.array(rows), np.array(scores), np.array(groups)
    base = y[:, QUALITIES.index(predictor.BASE_QUALITY)]
    predicted = np.empty_like(base)
    for number in range(len(paths)):
        out = group == number
        predicted[out] = x[out] @ fit(x[~out], base[~out])
    correlation = float(np.corrcoef(predicted, base)[0, 1])
    deviation = float(np.std(predicted - base))
    growth = y - base[:, None]
    steps = np.diff(y[:, QUALITIES.index(predictor.BASE_QUALITY) :], axis=1)
    data = {
        "origin": f"{len(paths)} photographs at {SIDES} pixels, JPEG quality {JPEG_QUALITIES}, "
        f"WebP method {METHOD}, Pillow's libwebp; made by tools/fit_predictor.py",
        "left_out_correlation": round(correlation, 4),
        "left_out_deviation": round(deviation, 4),
        "coefficients": [float(f"{value:.9g}") for value in fit(x, base)],
        "qualities": QUALITIES,
        "gains": [round(float(value), 4) for value in growth.mean(axis=0)],
        "gain_deviation": round(float((steps - steps.mean(axis=0)).std()), 4),
    }
    target = Path(predictor.__file__).with_name("predictor.json")
    target.write_text(json.dumps(data, indent=1) + "\n")
    print(f"{len(base)} pictures, r = {correlation:.3f}, deviation {deviation:.3f}; {target}")


if __name__ == "__main__":
    main()

"""Which rung of the quality ladder a picture will need, told before it is encoded.

Similarity is handled as a score, -ln(1 - SSIM). At quality 75 it is a linear function of what hides the
codec's errors, above all the shares of plain and textured windows; from one quality to the next it grows by
nearly the same for all pictures. The coefficients are data, made by `tools/fit_predictor.py`. A wrong guess
costs time or a few bytes, never quality: what is published was measured.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

BASE_QUALITY = 75


def score(similarity: float) -> float:
    """The score of a similarity (at most 1)."""
    return -math.log(max(1e-6, 1 - similarity))


def features(variances: NDArray[np.floating], file_bytes: int, pixels: int) -> NDArray[np.float64]:
    """What the prediction is made from: the variances of the 7x7 luma windows, and the size of the JPEG."""
    values = [
        float((1 / (variances + 4)).mean()),
        float((1 / (variances + 16)).mean()),
        float((1 / (variances + 64)).mean()),
        float(np.log(variances + 10).mean()),
        float((variances < 20).mean()),
        math.log(8 * file_bytes / pixels),
        math.log(pixels),
    ]
    return np.array([1.0, *values, *(value * value for value in values)])


@dataclass(frozen=True)
class Predictor:
    """The fitted coefficients."""

    coefficients: NDArray[np.float64]
    """Of `features`, for the score at `BASE_QUALITY`."""

    qualities: NDArray[np.float64]
    gains: NDArray[np.float64]
    """Mean growth of the score from `BASE_QUALITY` to each of `qualities`."""

    gain_deviation: float
    """Standard deviation of the growth from one rung to the next."""

    def score(self, values: NDArray[np.float64]) -> float:
        """The score to expect at `BASE_QUALITY`, from `features`."""
        return float(self.coefficients @ values)

    def gain(self, quality: int) -> float:
        """How much higher than at `BASE_QUALITY` the score is at another quality."""
        return float(np.interp(quality, self.qualities, self.gains))


@cache
def fitted() -> Predictor:
    """The predictor that comes with the package."""
    data = json.loads(resources.files("webp_converter.picture").joinpath("predictor.json").read_text())
    return Predictor(
        np.array(data["coefficients"]),
        np.array(data["qualities"], np.float64),
        np.array(data["gains"]),
        data["gain_deviation"],
    )

"""Structural similarity of two pictures, made cheap.

The index is that of Wang, Bovik, Sheikh and Simoncelli (2004) as scikit-image computes it by default: luma
from 0 to 255, a uniform window of 7x7 pixels, sample covariance, mean over all windows that lie inside the
picture. Above 40,000 pixels only every third window in each direction is evaluated: the mean over these is
within 0.002 of the mean over all. Every second or fourth would alias with the codec's own 4x4 and 8x8 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.uint8]
_Plane = NDArray[np.floating]

WINDOW = 7
_N = np.float32(WINDOW * WINDOW)
_C1 = np.float32((0.01 * 255) ** 2)
_C2 = np.float32((0.03 * 255) ** 2)
_SPARSE_STEP = 3
_DENSE_PIXELS = 40_000
_BAND_PIXELS = 150_000
"""Pixels evaluated at once: memory doesn't grow with the picture, and the planes stay in the cache."""

_CENTRE = np.float32(128)
"""Subtracted from every pixel, so that sums of squares stay exact in float32."""


def _sums_of_seven(planes: _Plane, axis: int, step: int) -> _Plane:
    """Sums of seven neighbours along an axis, starting at every `step`-th (1 or 3)."""

    def part(array: _Plane, start: int, stop: int | None = None, by: int = 1) -> _Plane:
        return array[(slice(None),) * axis + (slice(start, stop, by),)]

    count = (planes.shape[axis] - WINDOW) // step + 1
    if step == 1:
        twos = part(planes, 0, -1) + part(planes, 1)
        fours = part(twos, 0, -2) + part(twos, 2)
        result = part(fours, 0, count) + part(twos, 4, 4 + count)
        result += part(planes, 6, 6 + count)
        return result
    end = 3 * count + 3
    threes = part(planes, 0, end, 3) + part(planes, 1, end, 3)
    threes += part(planes, 2, end, 3)
    result = part(threes, 0, count) + part(threes, 1, count + 1)
    result += part(planes, 6, 3 * count + 4, 3)
    return result


def _window_sums(planes: _Plane, step: int) -> _Plane:
    """Sums over the 7x7 windows whose upper left corners are `step` pixels apart, of each plane."""
    return _sums_of_seven(_sums_of_seven(planes, 1, step), 2, step)


@dataclass(frozen=True)
class _Band:
    """A horizontal part of the original with what doesn't depend on the variant."""

    rows: slice
    luma: Luma
    sums: _Plane
    squares: _Plane


class Reference:
    """An original, prepared to be compared with several variants of it."""

    def __init__(self, luma: Luma) -> None:
        """Takes the original's luma; pictures narrower than the window are extended by their edges."""
        self._shape = luma.shape
        luma = self._extended(luma)
        height, width = luma.shape
        self._step = _SPARSE_STEP if luma.size > _DENSE_PIXELS else 1
        band_rows = max(1, _BAND_PIXELS // width // self._step) * self._step
        self._bands: list[_Band] = []
        for top in range(0, height - WINDOW + 1, band_rows):
            rows = slice(top, min(top + band_rows + WINDOW - 1, height))
            planes = np.empty((2, rows.stop - rows.start, width), np.float32)
            np.subtract(luma[rows], _CENTRE, out=planes[0])
            np.multiply(planes[0], planes[0], out=planes[1])
            sums, squares = _window_sums(planes, self._step)
            # Of a large picture a float32 copy would be the largest part of all memory.
            self._bands.append(_Band(rows, luma[rows], sums, squares))

    def variances(self) -> _Plane:
        """The luma variance within each window that is looked at."""
        return np.concatenate(
            [((band.squares - band.sums**2 / _N) / (_N - 1)).ravel() for band in self._bands]
        )

    def similarity(self, luma: Luma) -> float:
        """The mean structural similarity to a variant's luma of the same shape, -1 to 1."""
        if luma.shape != self._shape:
            raise ValueError(f"shapes differ: {luma.shape} and {self._shape}")
        luma = self._extended(luma)
        total = 0.0
        count = 0
        for band in self._bands:
            values = self._band_similarity(band, luma[band.rows])
            total += float(values.sum(dtype=np.float64))
            count += values.size
        return total / count

    def _band_similarity(self, band: _Band, luma: Luma) -> _Plane:
        planes = np.empty((3, *luma.shape), np.float32)
        np.subtract(band.luma, _CENTRE, out=planes[1])
        np.subtract(luma, _CENTRE, out=planes[0])
        planes[1] *= planes[0]
        np.multiply(planes[0], planes[0], out=planes[2])
        sums, products, squares = _window_sums(planes, self._step)
        squares += band.squares

        centred_x = band.sums / _N
        centred_y = sums / _N
        product_of_means = centred_x * centred_y
        sum_of_squared_means = centred_x * centred_x + centred_y * centred_y
        covariance = (products - _N * product_of_means) / (_N - 1)
        variances = (squares - _N * sum_of_squared_means) / (_N - 1)
        x = centred_x + _CENTRE
        y = centred_y + _CENTRE
        likeness: _Plane = (2 * x * y + _C1) * (2 * covariance + _C2)
        likeness /= (x * x + y * y + _C1) * (variances + _C2)
        return likeness

    @staticmethod
    def _extended(luma: Luma) -> Luma:
        missing = [max(0, WINDOW - side) for side in luma.shape]
        return np.pad(luma, [(0, side) for side in missing], mode="edge") if any(missing) else luma

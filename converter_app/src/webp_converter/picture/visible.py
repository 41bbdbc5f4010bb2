"""SSIMULACRA 2: how visible the damage to a picture is to people, on a scale that ends at 100.

50 is medium quality, 70 high, at 80 an average observer notices nothing side by side, 90 is lossless to the
eye; visible ruin goes far below zero. The index and its weights are those of libjxl's tools/ssimulacra2.cc
(2.1, Sneyers 2023), and so is the blur: its recursive Gaussian of standard deviation 1.5 has only nine taps.
Gray pictures and the transparent ones on white and on black are judged like all others, as RGB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
_Planes = NDArray[np.float32]
"""Three planes: of a colour space, or what is computed of each."""

_SCALES = 6
_SMALLEST_SIDE = 8
"""Pixels; a scale of fewer is the last."""

_NEGLIGIBLE = 0.01
"""A plane of weights of at most that is not looked at: it would change the score by some thousandths."""

_C2 = np.float32(0.0009)
_RADIUS, _SIGMA = 5, 1.5

_TO_OPSIN = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.5518098665095536],
    ],
    np.float32,
)
_BIAS = np.float32(0.0037930732552754493)

# Of the planes X, Y and B, in this order at each scale: structure, added edges, lost edges, each as mean and
# as fourth norm. What isn't here weighs nothing, or nothing to speak of.
_WEIGHTS = np.array(
    [
        [0, 0.0007376606707406586, 0, 0, 0.0007793481682867309, 0],
        [0, 0.0004371155730107379, 0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752],
        [0, 0.0016406437456599754, 0, 1.8422455520539298, 11.441172603757666, 0],
        [0.0007989109436015163, 0.000176816438078653, 0, 1.8787594979546387, 10.94906990605142, 0],
        [
            0.0007289346991508072,
            0.9677937080626833,
            0,
            0.00014003424285435884,
            0.9981766977854967,
            0.00031949755934435053,
        ],
        [0.0004550992113792063, 0, 0, 0.0013648766163243398, 0, 0],
        [0, 0, 0, 7.466890328078848, 0, 17.445833984131262],
        [0.0006235601634041466, 0, 0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264],
        [225.20515300849274, 0, 0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985],
        [176.39317598450694, 0, 0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408],
        [0, 0, 0, 34.77906344483772, 44.835625328877896, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0.0008680556573291698, 0, 0, 0, 0],
        [0, 0.0005313191874358747, 0, 0.00016533814161379112, 0, 0],
        [0, 0, 0, 0.0004179171803251336, 0.0017290828234722833, 0],
        [0.0020827005846636437, 0, 0, 8.826982764996862, 23.19243343998926, 0],
        [
            95.1080498811086,
            0.9863978034400682,
            0.9834382792465353,
            0.0012286405048278493,
            171.2667255897307,
            0.9807858872435379,
        ],
        [0, 0, 0, 0.0005130064588990679, 0, 0.00010854057858411537],
    ]
).ravel()


def _taps() -> NDArray[np.float32]:
    """The middle of the blur's kernel and what follows on one side of it.

    Charalampidis 2016, https://doi.org/10.1109/TSP.2016.2549985: a sum of three truncated cosines.
    """
    omega = np.array([1, 3, 5]) * np.pi / (2 * _RADIUS)
    signs = np.array([1, -1, 1])
    p = signs / np.tan(omega / 2)
    r = signs * p**2 / np.sin(omega)
    rho = np.exp(-(_SIGMA**2) / 2 * omega**2) / _RADIUS
    cross = np.cross(p, r)
    zeta = cross / cross[2]
    system = np.array([p, r, zeta])
    beta = np.linalg.solve(system, [1, _RADIUS**2 - _SIGMA**2, zeta @ rho])
    taps: NDArray[np.float64] = np.cos(np.outer(np.arange(_RADIUS), omega)) @ beta
    return taps.astype(np.float32)


_TAPS = _taps()
_LINEAR = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], np.float32
)


def _blurred(planes: _Planes) -> _Planes:
    """What lies outside of the picture counts as 0."""
    reach = len(_TAPS) - 1
    result = np.empty_like(planes)
    for plane, blurred in zip(planes, result, strict=True):
        for axis in (0, 1):
            # Plane by plane, in one row or column after the other: what is computed stays in the cache.
            shape = list(plane.shape)
            shape[axis] += 2 * reach
            padded = np.zeros(shape, np.float32)
            inside = (slice(reach, -reach), slice(None)) if axis == 0 else (slice(None), slice(reach, -reach))
            padded[inside] = plane
            total = plane * _TAPS[0]
            length = plane.shape[axis]
            pair = np.empty_like(total)
            for by, tap in enumerate(_TAPS[1:], 1):
                before, after = slice(reach - by, reach - by + length), slice(reach + by, reach + by + length)
                if axis == 0:
                    np.add(padded[before], padded[after], out=pair)
                else:
                    np.add(padded[:, before], padded[:, after], out=pair)
                pair *= tap
                total += pair
            plane = total
        blurred[...] = plane
    return result


def _halved(planes: _Planes) -> _Planes:
    """Means of two by two; at an odd end, of what there is."""
    odd = [(0, 0), *((0, side % 2) for side in planes.shape[1:])]
    whole = np.pad(planes, odd, mode="edge") if any(odd[axis][1] for axis in (1, 2)) else planes
    rows = whole[:, ::2] + whole[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * np.float32(0.25)


def _xyb(linear: _Planes, chosen: list[int]) -> _Planes:
    """Some of the planes X, Y and B, made positive."""
    # No product of matrices: BLAS would start threads, which the sandbox forbids.
    mixed = []
    for red, green, blue in _TO_OPSIN[: 3 if 2 in chosen else 2]:
        plane = linear[0] * red
        plane += linear[1] * green
        plane += linear[2] * blue
        plane += _BIAS
        plane = np.cbrt(plane, out=plane)
        plane -= np.cbrt(_BIAS)
        mixed.append(plane)
    y = (mixed[0] + mixed[1]) * np.float32(0.5)
    result = np.empty((len(chosen), *y.shape), np.float32)
    for place, plane in enumerate(chosen):
        if plane == 0:
            result[place] = (mixed[0] - mixed[1]) * np.float32(0.5 * 14) + np.float32(0.42)
        elif plane == 1:
            result[place] = y + np.float32(0.01)
        else:
            result[place] = mixed[2] - y + np.float32(0.55)
    return result


def _linear(rgb: Rgb) -> _Planes:
    missing = [max(0, _SMALLEST_SIDE - side) for side in rgb.shape[:2]]
    if any(missing):
        rgb = np.pad(rgb, [*((0, side) for side in missing), (0, 0)], mode="edge")
    return np.ascontiguousarray(np.take(_LINEAR, rgb.transpose(2, 0, 1)))


def _scales(rgb: Rgb) -> list[_Planes]:
    """The picture in linear light, at each scale."""
    found = [_linear(rgb)]
    while len(found) < _SCALES and min(found[-1].shape[1:]) >= _SMALLEST_SIDE:
        found.append(_halved(found[-1]))
    return found


class _Scale(NamedTuple):
    """An original at one scale, with what doesn't depend on the variant."""

    weights: NDArray[np.float64]
    """Of the planes that weigh anything there."""

    chosen: list[int]
    planes: _Planes
    squares: _Planes
    blurred: _Planes
    edges: _Planes
    """1 and the distance of each pixel from its surroundings."""


class Judge:
    """An original, prepared to be compared with several variants of it."""

    def __init__(self, rgb: Rgb) -> None:
        """Takes the original; a side of fewer than 8 pixels is extended by its edge."""
        self._shape = rgb.shape
        scales = _scales(rgb)
        # Of a small picture, which has fewer scales, the first weights count, as in libjxl.
        weights = _WEIGHTS[: 3 * len(scales) * 6].reshape(3, len(scales), 2, 3)
        self._scales: list[_Scale | None] = []
        for number, linear in enumerate(scales):
            chosen = [plane for plane in range(3) if weights[plane, number].max() > _NEGLIGIBLE]
            if not chosen:
                self._scales.append(None)
                continue
            planes = _xyb(linear, chosen)
            blurred = _blurred(planes)
            edges = 1 + np.abs(planes - blurred)
            self._scales.append(
                _Scale(weights[chosen, number], chosen, planes, planes * planes, blurred, edges)
            )

    def score(self, rgb: Rgb) -> float:
        """SSIMULACRA 2 of a variant of the same shape, at most 100."""
        if rgb.shape != self._shape:
            raise ValueError(f"shapes differ: {rgb.shape} and {self._shape}")
        total = 0.0
        for scale, linear in zip(self._scales, _scales(rgb), strict=True):
            if scale:
                total += float((scale.weights * _differences(scale, _xyb(linear, scale.chosen))).sum())
        total *= 0.9562382616834844
        total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
        return 100.0 - 10.0 * float(max(0.0, total) ** 0.6276336467831387)


def _differences(original: _Scale, planes: _Planes) -> NDArray[np.float64]:
    """Of each plane, as mean and as fourth norm: structure, added edges, lost edges."""
    blurred = _blurred(planes)
    both = original.blurred * blurred
    apart = original.blurred - blurred
    apart *= apart
    products = 2 * (_blurred(original.planes * planes) - both) + _C2
    squares = _blurred(original.squares + planes * planes) - (2 * both + apart) + _C2
    structure = np.maximum(1 - (1 - apart) * products / squares, 0)
    edges = (1 + np.abs(planes - blurred)) / original.edges - 1
    kinds = (structure, np.maximum(edges, 0), np.maximum(-edges, 0))
    found = np.empty((len(planes), 2, 3))
    for kind, values in enumerate(kinds):
        found[:, 0, kind] = values.mean((1, 2), dtype=np.float64)
        values = values * values
        found[:, 1, kind] = (values * values).mean((1, 2), dtype=np.float64) ** 0.25
    return found

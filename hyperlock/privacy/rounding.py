"""Rounding to integers of a norm that is never passed, whatever the dither, also for who knows it.

Stochastic rounding can lengthen an update: one of norm B on d coordinates comes out with up to
B^2 + d / 4 in expectation. Others keep the signal and pay with a larger bound that holds with a
probability (Agarwal, Kairouz and Liu, NeurIPS 2021; Kairouz, Liu and Steinke, ICML 2021). Here the
update is made smaller, and only where it has to be, until the integers themselves are short enough:
there is no probability left to account for.

Rounding floor(f x + u) with one dither u in [0, 1) grows with the scale f: where x >= 0 it is at
least 0 and does not fall, where x < 0 it is at most 0 and does not rise. So the sum of squares,
which is 0 at f = 0, does not fall in f, and the largest scale is found between two bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32_768  # coordinates at a time, which stay in the cache
_EXACT = 1 << 19  # squares of smaller integers add exactly in a block of float64: 2^38 * 2^15
_GIVEN_UP = 1e-3  # of B^2, and of the scale: nearer to the largest scale is not worth a pass


def plain(
    values: NDArray[np.floating], step: float, signal: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """int32[d]: floor(values / step + u), kept within ±signal; zeros if a value is not finite.

    The dither is one uniform number a coordinate, whatever the values are.
    """
    seed = _seed(rng)
    integers = np.zeros(values.size, np.int32)
    if math.isfinite(_squared_norm(values)):
        for part, rounded in _rounded(values, 1 / step, signal, seed):
            integers[part] = rounded
    return integers


def within(
    values: NDArray[np.floating],
    step: float,
    bound: int,
    signal: int,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Integers whose squares sum to at most bound^2, checked on them.

    Args:
        values: float[d], cut to bound * step in L2 first; not finite anywhere gives zeros.
        step: what 1 stands for.
        bound: B.
        signal: the largest coordinate, below 2^19. Cutting at it only shortens.
        rng: the dither; one number is drawn from it, whatever the values are.

    Returns:
        int32[d], the dithered rounding at a scale of at most 1: 1 if that is short enough, else
        within a thousandth of the largest that is.
    """
    if signal >= _EXACT:
        raise ValueError(f"a coordinate of {signal} steps; below {_EXACT}")
    seed = _seed(rng)
    integers = np.zeros(values.size, np.int32)
    norm = math.sqrt(_squared_norm(values))
    if not 0 < norm < math.inf:
        return integers
    whole = min(1 / step, bound / norm)
    scale = whole * _largest_scale(values, whole, bound, signal, seed)
    squares = 0
    for part, rounded in _rounded(values, scale, signal, seed):
        integers[part] = rounded
        squares += int(_dot(rounded))
    # What all privacy rests on is read off the integers that leave, not off the search.
    return integers if squares <= bound * bound else np.zeros_like(integers)


def _largest_scale(
    values: NDArray[np.floating], whole: float, bound: int, signal: int, seed: int
) -> float:
    """The largest f in [0, 1] for which values * whole * f round to squares within bound^2.

    Where they are too large, they are taken for a f^2 + b f with a the squared norm: rounding adds
    what is proportional to f for coordinates below a step, and next to nothing else at f near 1.
    """
    target = bound * bound
    exact = min(target, _squared_norm(values) * whole * whole)
    low, high = 0.0, 1.0
    at = 1.0
    for _ in range(60):
        squares = _squares(values, whole * at, signal, seed)
        if squares <= target:
            low = at
        else:
            high = at
        near = target * (1 - _GIVEN_UP) <= squares <= target
        if near or low == 1.0 or high - low <= _GIVEN_UP * high:
            return low
        # Where that curve meets a little less than the target, if that is between the bounds.
        slope = squares / at - exact * at
        aim = target * (1 - _GIVEN_UP / 2)
        denominator = slope + math.sqrt(slope * slope + 4 * exact * aim)
        at = 2 * aim / denominator if denominator > 0 else 0.0
        if not low < at < high:
            at = (low + high) / 2
    return low


def _squares(values: NDArray[np.floating], scale: float, signal: int, seed: int) -> int:
    return sum(int(_dot(part)) for _, part in _rounded(values, scale, signal, seed))


def _rounded(
    values: NDArray[np.floating], scale: float, signal: int, seed: int
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """float64[block] of integers, block by block; one seed is one dither, however often."""
    dither = np.random.Generator(np.random.PCG64(seed))
    for at in range(0, values.size, _BLOCK):
        part = slice(at, min(at + _BLOCK, values.size))
        scaled = values[part].astype(np.float64)
        scaled *= scale
        scaled += dither.random(scaled.size)
        np.floor(scaled, out=scaled)
        np.clip(scaled, -signal, signal, out=scaled)
        yield part, scaled


def _squared_norm(values: NDArray[np.floating]) -> float:
    """Not finite if a value is not, or is above 10^150."""
    parts = (values[at : at + _BLOCK].astype(np.float64) for at in range(0, values.size, _BLOCK))
    with np.errstate(over="ignore", invalid="ignore"):
        return sum(_dot(part) for part in parts)


def _dot(block: NDArray[np.float64]) -> float:
    """The sum of squares. NumPy's `@` wakes a thread a core for it, which costs more than it."""
    return float(np.einsum("i,i->", block, block))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))

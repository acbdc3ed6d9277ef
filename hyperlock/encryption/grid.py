"""The public grid: float32 vectors to small integers and back, by stochastic rounding.

Every scheme, the plaintext baseline too, adds the integers of this grid. Sums are therefore exact
and equal under all schemes, and what is released is a function of the inputs alone: it carries no
encryption noise, which is what the attack of Li and Micciancio (eprint 2020/1533) on CKKS needs.

Stochastic rounding, floor(x / step + u) with u uniform on [0, 1), is unbiased: E[step * q] = x for
every x inside the range (Alistarh et al., "QSGD", NeurIPS 2017, section 3.1).

    >>> grid = Grid(sizes=(2, 1), ranges=(0.5, 2.0), value_bits=4)  # two tensors
    >>> grid.levels  # steps of 0.5 / 7 and 2.0 / 7
    7
    >>> grid.quantise(np.array([0.5, -0.25, 3.0], np.float32), np.random.default_rng(0))
    (array([ 7, -4,  7], dtype=int8), 1)
    >>> grid.dequantise(np.array([7, -4, 7])).round(3)  # 3.0 was outside: saturated
    array([ 0.5  , -0.286,  2.   ])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32_768  # coordinates at a time, which stay in the cache


@dataclass(frozen=True)
class Grid:
    """A symmetric grid per tensor of one flat vector.

    Attributes:
        sizes: the number of coordinates of each tensor; they sum to the vector's length.
        ranges: the largest magnitude each tensor's values may have, one positive float a tensor.
        value_bits: bits of one signed value; integers lie in [-(2^(value_bits-1) - 1),
            2^(value_bits-1) - 1].
    """

    sizes: tuple[int, ...]
    ranges: tuple[float, ...]
    value_bits: int

    @property
    def levels(self) -> int:
        """The largest integer on the grid."""
        return largest_value(self.value_bits)

    @property
    def _steps(self) -> NDArray[np.float64]:
        """float64[length]: the distance between neighbours on the grid, per coordinate."""
        return np.repeat(np.array(self.ranges, np.float64) / self.levels, self.sizes)

    def quantise(
        self, values: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.integer], int]:
        """Round a vector to the grid.

        Args:
            values: float32[length], finite.
            rng: source of the rounding; the same generator state gives the same integers.

        Returns:
            int[length] within ±`levels`, of the narrowest type that holds them, and how many
            coordinates were outside the range and so saturated.

        Raises:
            FloatingPointError: a value is NaN or infinite.
        """
        integers = np.empty(values.size, integer_type(self.levels))
        saturated = 0
        start = 0
        for size, limit in zip(self.sizes, self.ranges, strict=True):
            step = limit / self.levels
            end = start + size
            for at in range(start, end, _BLOCK):
                block = slice(at, min(at + _BLOCK, end))
                scaled = values[block].astype(np.float64)
                scaled /= step
                if not np.isfinite(scaled).all():
                    raise FloatingPointError("the update contains NaN or Inf")
                # floor(x / step + u): up or down with the chance that makes it unbiased.
                scaled += rng.random(scaled.size)
                np.floor(scaled, out=scaled)
                saturated += int(np.count_nonzero(np.abs(scaled) > self.levels))
                integers[block] = np.clip(scaled, -self.levels, self.levels, out=scaled)
            start = end
        return integers, saturated

    def nothing(self) -> NDArray[np.integer]:
        """int[length]: an update of zeros."""
        return np.zeros(sum(self.sizes), integer_type(self.levels))

    def dequantise(self, integers: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[length]: the values, or sums of values, that the integers stand for."""
        return integers * self._steps


def largest_value(value_bits: int) -> int:
    """The largest integer that one party may put in one coordinate."""
    return 2 ** (value_bits - 1) - 1


def integer_type(largest: int) -> np.dtype:
    """The narrowest signed little-endian integer type that holds -largest to largest."""
    return next(np.dtype(f"<i{size}") for size in (1, 2, 4, 8) if largest < 1 << (8 * size - 1))

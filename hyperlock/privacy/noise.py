"""Shares of noise: discrete Gaussians, drawn through an exact table from the operating system's
randomness.

N_Z(0, s^2) gives an integer k the chance exp(-k^2 / 2 s^2) / sum (Canonne, Kamath and Steinke, "The
Discrete Gaussian for Differential Privacy", NeurIPS 2020, definition 1). No float is ever noise: a
Gaussian in floating point has gaps and low-order bits that tell what it was added to (Mironov, CCS
2012). A draw is a uniform integer looked up in the cumulative table.

The table is in units of 2^-63, and finer where that does not decide. In units of 2^-63 alone, every
entry would be off by up to one: with s = 1,000 over 10^5 coordinates, 100 shares and 50 rounds that
comes to 2^-21, which is no small part of a delta. So an entry has 127 bits: a draw of 63 bits is
compared with the upper 63, and in the rare case that they are equal, 64 more bits are drawn for the
lower ones.

It is computed with integers, and one exponential of Python's `decimal`: drawing needs no library
beyond NumPy, and is the same on every machine.

    >>> zeros = np.zeros(5, np.int32)
    >>> add_share(zeros, 20.0, source=np.random.default_rng(0).bytes)  # a test's source
    >>> zeros
    array([  7, -12, -35, -43,  18], dtype=int32)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.extent import TAIL, cut

Source = Callable[[int], bytes]  # so many random bytes, as os.urandom gives them

CUT = TAIL  # standard deviations at which a share is cut: 2^-65.5 of them are (`extent.py`)
# Finer shares do not add to a discrete Gaussian: m of them differ from it by up to
# 10 m exp(-pi^2 s^2) (Kairouz, Liu and Steinke, ICML 2021, theorem 1), below 10^-37 m from here on.
LEAST_DEVIATION = 3.0

_BLOCK = 32_768  # coordinates at a time, which stay in the cache
_UNIT_BITS = 127
_FIXED_BITS = 320  # of the fixed-point numbers behind the table
_DIGITS = 120


def share(length: int, deviation: float, source: Source = os.urandom) -> NDArray[np.int32]:
    """int32[length]: independent draws of N_Z(0, deviation^2), cut at CUT deviations.

    Raises:
        ValueError: deviation < LEAST_DEVIATION.
    """
    values = np.zeros(length, np.int32)
    add_share(values, deviation, source)
    return values


def add_share(values: NDArray[np.integer], deviation: float, source: Source = os.urandom) -> None:
    """Add a share to a vector where it stands, with less than a megabyte beside it.

    Args:
        values: int[length], of a type that holds the sums.
        deviation: s, in steps of the grid.
        source: where random bytes come from; anything but the operating system is for tests alone.

    Raises:
        ValueError: deviation < LEAST_DEVIATION.
    """
    table = _table(deviation)
    for at in range(0, values.size, _BLOCK):
        block = values[at : at + _BLOCK]
        block += table.draw(block.size, source).astype(values.dtype)


@dataclass(frozen=True)
class _Table:
    """Cumulative chances of -cut to cut - 1, in units of 2^-127: upper 63 and lower 64 bits."""

    upper: NDArray[np.uint64]
    lower: NDArray[np.uint64]

    def draw(self, length: int, source: Source) -> NDArray[np.int64]:
        """int64[length]: how many entries a uniform number reaches, counted from -cut."""
        uniform = np.frombuffer(source(8 * length), "<u8") >> np.uint64(1)
        reached = np.searchsorted(self.upper, uniform, side="right")
        # The upper bits of the last entry that was reached may be equal to those of the draw.
        last = np.maximum(reached - 1, 0)
        for at in np.flatnonzero(self.upper[last] == uniform):
            rest = int.from_bytes(source(8), "little")
            first = np.searchsorted(self.upper, uniform[at], side="left")
            equal = self.lower[first : reached[at]]
            reached[at] = first + np.searchsorted(equal, np.uint64(rest), side="right")
        return reached - self.upper.size // 2


@lru_cache(maxsize=8)
def _table(deviation: float) -> _Table:
    """The table of one deviation: about a microsecond an entry, CUT * 2 * deviation entries."""
    if not deviation >= LEAST_DEVIATION:
        raise ValueError(f"a share of noise of {deviation:.3g} steps; at least {LEAST_DEVIATION}")
    # exp(-k^2 / 2 s^2) from its ratios: w[k + 1] = w[k] r[k], and r[k + 1] = r[k] exp(-1 / s^2).
    # An error of 2^-320 in either grows to k^2 2^-320 at the end.
    context = Context(prec=_DIGITS)
    squared = context.multiply(Decimal(deviation), Decimal(deviation))
    exponent = context.divide(Decimal("-0.5"), squared)
    ratio = int(context.multiply(exponent.exp(context), Decimal(2**_FIXED_BITS)))
    square = ratio * ratio >> _FIXED_BITS
    weights = [1 << _FIXED_BITS]
    for _ in range(cut(deviation)):
        weights.append(weights[-1] * ratio >> _FIXED_BITS)
        ratio = ratio * square >> _FIXED_BITS
    # Cumulated over both sides; the last entry would be 1, which every draw is below.
    both = [*weights[:0:-1], *weights]
    total = sum(both)
    entries = [(part << _UNIT_BITS) // total for part in accumulate(both[:-1])]
    upper = np.fromiter((entry >> 64 for entry in entries), np.uint64, len(entries))
    lower = np.fromiter((entry & (2**64 - 1) for entry in entries), np.uint64, len(entries))
    return _Table(upper, lower)

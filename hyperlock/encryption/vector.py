"""The vector that is encrypted: a client's totals, then its update on the grid.

    | contributors, samples, loss, saturated: one digit a coordinate | update: int[parameters] |

with the totals of an evaluation behind those four where clients evaluate.

This is the one place that knows where each stands, how long the whole is, and how large a sum of
such vectors can be.

    >>> from hyperlock.encryption.totals import Totals
    >>> vector = Vector(value_bits=8, sizes=(3, 1))
    >>> vector.length  # 18 digits of totals, 4 coordinates
    22
    >>> update = np.array([-3, 0, 127, 5], np.int8)
    >>> one = vector.join(Totals(contributors=1, samples=600, loss=0.5, saturated=0), update)
    >>> two = vector.join(Totals(contributors=1, samples=200, loss=0.25, saturated=1), update)
    >>> totals, sums = vector.split(one.astype(np.int16) + two)
    >>> totals
    Totals(contributors=2, samples=800, loss=0.75, saturated=1, tested=0, right=0)
    >>> sums
    array([ -6,   0, 254,  10], dtype=int16)
    >>> vector.bound(2), vector.sum_type(max_clients=2)
    (254, dtype('int16'))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import totals
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.totals import Totals


@dataclass(frozen=True)
class Vector:
    """The public layout that all parties of a run share.

    Attributes:
        value_bits: bits of one signed value, of a digit as of a coordinate.
        sizes: coordinates of each tensor of the model.
        evaluated: whether clients say how the model does on test samples of theirs.
    """

    value_bits: int
    sizes: tuple[int, ...]
    evaluated: bool = False

    @property
    def parameters(self) -> int:
        """Coordinates of the update: the model's trained weights."""
        return sum(self.sizes)

    @property
    def head(self) -> int:
        """Coordinates of the totals: their digits."""
        return totals.width(self.value_bits, self.evaluated)

    @property
    def length(self) -> int:
        """Coordinates of the whole: the totals' digits, then the update."""
        return self.head + self.parameters

    def join(self, share: Totals, update: NDArray[np.integer]) -> NDArray[np.integer]:
        """int[length]: one client's totals in front of its update int[parameters], in its type."""
        digits = totals.encode(share, self.value_bits, self.evaluated)
        return np.concatenate([digits.astype(update.dtype), update])

    def split(self, sums: NDArray[np.integer]) -> tuple[Totals, NDArray[np.integer]]:
        """What sums int[length] say about the round, and the summed update int[parameters]."""
        share = totals.decode(sums[: self.head], self.value_bits, self.evaluated)
        return share, sums[self.head :]

    def possible(self, sums: NDArray[np.integer], contributors: int) -> bool:
        """Whether sums int[length] are such as so many vectors can have: every coordinate within
        `bound`, and no digit of the totals negative."""
        largest = max(int(sums.max()), -int(sums.min()))
        digits = totals.possible(sums[: self.head], self.value_bits, contributors)
        return digits and largest <= self.bound(contributors)

    def bound(self, contributors: int) -> int:
        """The largest magnitude of a coordinate in the sum of so many vectors."""
        return largest_sum(self.value_bits, contributors)

    def sum_type(self, max_clients: int) -> np.dtype:
        """The narrowest integer type that holds every sum of up to `max_clients` vectors."""
        return sum_type(self.value_bits, max_clients)


def largest_sum(value_bits: int, contributors: int) -> int:
    """The largest magnitude of a sum of so many values of `value_bits` bits."""
    return contributors * largest_value(value_bits)


def sum_type(value_bits: int, max_clients: int) -> np.dtype:
    """The narrowest integer type that holds every sum of up to `max_clients` values."""
    return integer_type(largest_sum(value_bits, max_clients))

"""The vector that is encrypted: a client's totals, then its update on the grid.

    | contributors, samples, loss, saturated: one digit a coordinate | update: int[parameters] |

with the totals of an evaluation behind those four where clients evaluate; or, where values carry
noise, the contributors alone:

    | contributors: one digit | update: int[parameters] |

This is the one place that knows where each stands, how long the whole is, and how large a sum of
such vectors can be.

    >>> from hyperlock.encryption.totals import Totals
    >>> vector = Vector(Extent(value_bits=8), sizes=(3, 1))
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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import totals
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.totals import COUNTED, EVALUATED, TRAINED, Totals
from hyperlock.errors import ConfigError


@dataclass(frozen=True)
class Vector:
    """The public layout that all parties of a run share.

    Attributes:
        extent: how large values and their sums may be; a digit has as many bits as a coordinate.
        sizes: coordinates of each tensor of the model.
        evaluated: whether clients say how the model does on test samples of theirs.

    Raises:
        ConfigError: they would say so beside noise that is to hide what they have.
    """

    extent: Extent
    sizes: tuple[int, ...]
    evaluated: bool = False

    def __post_init__(self) -> None:
        if self.evaluated and self.counted:
            raise ConfigError(
                "runtime.evaluation",
                "sites",
                "right answers are exact figures of the sites' data, beside updates with noise "
                "that is to hide these",
                allowed="coordinator",
                hint="runtime.evaluation=coordinator",
            )

    @property
    def counted(self) -> bool:
        """Whether the only total is how many contributed: with noise, nothing else is exact."""
        return self.extent.spread > 0

    @property
    def parameters(self) -> int:
        """Coordinates of the update: the model's trained weights."""
        return sum(self.sizes)

    @property
    def head(self) -> int:
        """Coordinates of the totals: their digits."""
        return totals.width(self.extent.value_bits, self._carried)

    @property
    def length(self) -> int:
        """Coordinates of the whole: the totals' digits, then the update."""
        return self.head + self.parameters

    def join(self, share: Totals, update: NDArray[np.integer]) -> NDArray[np.integer]:
        """int[length]: one client's totals in front of its update int[parameters], in its type."""
        digits = totals.encode(share, self.extent.value_bits, self._carried)
        return np.concatenate([digits.astype(update.dtype), update])

    def split(self, sums: NDArray[np.integer]) -> tuple[Totals, NDArray[np.integer]]:
        """What sums int[length] say about the round, and the summed update int[parameters]."""
        share = totals.decode(sums[: self.head], self.extent.value_bits, self._carried)
        return share, sums[self.head :]

    def possible(self, sums: NDArray[np.integer], contributors: int) -> bool:
        """Whether sums int[length] are such as so many vectors can have: every coordinate within
        `bound`, and no digit of the totals negative."""
        largest = max(int(sums.max()), -int(sums.min()))
        digits = sums[: self.head]
        bits = self.extent.value_bits
        told = totals.possible(digits, bits, contributors, self._carried)
        return told and largest <= self.bound(contributors)

    def bound(self, contributors: int) -> int:
        """The largest magnitude of a coordinate in the sum of so many vectors."""
        return self.extent.largest_sum(contributors)

    def sum_type(self, max_clients: int) -> np.dtype:
        """The narrowest integer type that holds every sum of up to `max_clients` vectors."""
        return self.extent.sum_type(max_clients)

    @property
    def _carried(self) -> Mapping[str, int]:
        if self.counted:
            return COUNTED
        return EVALUATED if self.evaluated else TRAINED

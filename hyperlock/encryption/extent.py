"""How large values and their sums may be: what every scheme is sized by.

A value is a signal within L and, where clients add noise for privacy, one client's share of it: a
discrete Gaussian of standard deviation s, cut at TAIL s. Signals of n clients add up to n L; their
noise, being independent, to a multiple of s sqrt(n) and not of s n. So a sum of n stays within

    n L + TAIL s sqrt(n)        or n times the largest value, if that is less,

which is far below the latter where noise is most of a value, and fields need hold no more.

TAIL. A discrete Gaussian is s^2-sub-Gaussian, E exp(tX) <= exp(t^2 s^2 / 2) (Canonne, Kamath and
Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020), and remains so when it is
cut, for what is cut off is where cosh(tX) is largest; n independent shares are n s^2-sub-Gaussian.
Chernoff's bound then gives P(|X| > 9.6 s sqrt(n)) <= 2 exp(-9.6^2 / 2) = 2^-65.5 for each
coordinate, rarer than encryption's own noise may spoil one (`parameters.EXACT_BITS`). A sum beyond
is refused or, where it leaves its field, carries into the next: wrong integers, but a function of
what was encrypted as every sum is, so that they say nothing of the key. A client that does
not keep to the distribution brings that about with values of the grid; it spoils the sum, as any
wrong update does.

Without noise the bound is n times the largest value, and no honest sum passes it.

    >>> Extent(8).largest_sum(16), Extent(8).sum_bits(16)
    (2032, 12)
    >>> noisy = Extent(12, signal=64, spread=184.0)
    >>> noisy.largest_value, noisy.largest_sum(16), noisy.sum_bits(16)  # of 12 + 4 bits
    (1830, 8090, 14)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.errors import ConfigError

# Standard deviations that noise stays within, and -log2 of the probability that it does not.
TAIL = 9.6
TAIL_BITS = TAIL**2 / 2 / math.log(2) - 1


def cut(spread: float) -> int:
    """The largest magnitude of one client's noise of this standard deviation."""
    return math.floor(TAIL * spread)


@dataclass(frozen=True)
class Extent:
    """What one client's values are.

    Attributes:
        value_bits: bits of one signed value on the grid.
        signal: L, the largest magnitude of a value before noise, 1 or more; None for all that the
            grid holds, which it must be without noise.
        spread: s, the standard deviation of one client's noise, in steps of the grid; 0 for none.

    Raises:
        ConfigError: a value with its noise may leave the grid.
        ValueError: a signal without noise, or less than 1; a spread below 0 or without end.
    """

    value_bits: int
    signal: int | None = None
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"{self.spread} is no standard deviation")
        if self.signal is not None and (self.signal < 1 or not self.spread):
            raise ValueError("a signal is bounded only beside noise, and is 1 or more")
        if self.largest_value > largest_value(self.value_bits):
            bits = self.largest_value.bit_length() + 1
            raise ConfigError(
                "encryption.value_bits",
                self.value_bits,
                f"values of up to {self._signal} with noise of up to {self.cut} leave the grid, "
                f"which ends at {largest_value(self.value_bits)}",
                allowed=f"at least {bits}",
                hint=f"encryption.value_bits={bits}",
            )

    def __str__(self) -> str:
        """Everything of it, for fingerprints: `8`, or with noise `12-64-184.0`."""
        if not self.spread:
            return str(self.value_bits)
        return f"{self.value_bits}-{self._signal}-{float(self.spread)!r}"

    @property
    def figures(self) -> dict[str, object]:
        """The public parameters, for people and for the tracking; of noise only where there is
        some."""
        if not self.spread:
            return {"value_bits": self.value_bits}
        return {
            "value_bits": self.value_bits,
            "signal": self._signal,
            "spread": self.spread,
            "within_to_bits": round(TAIL_BITS, 1),
        }

    @property
    def cut(self) -> int:
        """The largest magnitude of one client's noise, beyond which it is cut."""
        return cut(self.spread)

    @property
    def largest_value(self) -> int:
        """The largest magnitude that one client may put in one coordinate."""
        return self._signal + self.cut

    def largest_sum(self, contributors: int) -> int:
        """The largest magnitude of a coordinate in an honest sum of so many vectors, but for a
        probability of 2^-65 where there is noise. It never falls as they become more."""
        noise = math.ceil(TAIL * self.spread * math.sqrt(contributors))
        return min(contributors * self.largest_value, contributors * self._signal + noise)

    def sum_bits(self, contributors: int) -> int:
        """Bits of a signed field that holds every sum of so many."""
        if not self.spread:
            # What counts is 2^(value_bits - 1), not one less: runs, and checkpoints, rest on it.
            return self.value_bits + (contributors - 1).bit_length()
        return self.largest_sum(contributors).bit_length() + 1

    def sum_type(self, contributors: int) -> np.dtype:
        """The narrowest integer type that holds every sum of up to so many."""
        return integer_type(self.largest_sum(contributors))

    @property
    def _signal(self) -> int:
        return largest_value(self.value_bits) if self.signal is None else self.signal

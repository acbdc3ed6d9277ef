"""Polynomials modulo X^N + 1 and a prime, by their values, as slowly and plainly as Python's
integers allow.

Values are in natural order: place k holds the value at root^(2k + 1), so that to turn an array
around is to replace X by 1/X. SEAL keeps them in bit-reversed order (`ntt.cpp`), with the smallest
primitive 2N-th root of each prime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Integers = np.ndarray  # of dtype object: Python's integers, which do not overflow


@dataclass(frozen=True)
class Ring:
    """n coefficients modulo q, a prime that is 1 modulo 2n."""

    n: int
    q: int

    def values(self, coefficients: Iterable[int]) -> Integers:
        """object[n] in natural order: the polynomial at all odd powers of the root."""
        root = primitive_root(self.n, self.q)
        twisted = integers(coefficients) * powers(root, self.n, self.q) % self.q
        return _transform(twisted, root * root % self.q, self.q)

    def coefficients(self, values: Integers) -> Integers:
        """object[n], between -q/2 and q/2: the inverse."""
        inverse = pow(primitive_root(self.n, self.q), -1, self.q)
        twisted = _transform(values, inverse * inverse % self.q, self.q)
        return centred(twisted * powers(inverse, self.n, self.q) * pow(self.n, -1, self.q), self.q)


def integers(values: Iterable[int]) -> Integers:
    """object[length]."""
    return np.array([int(value) for value in values], object)


def centred(values: Integers, q: int) -> Integers:
    """The representatives between -q/2 and q/2."""
    return (values + q // 2) % q - q // 2


def inverses(values: Integers, q: int) -> Integers:
    """1 / value modulo q; ValueError at a zero, of which there is about one in q."""
    return integers(pow(value, -1, q) for value in values)


@lru_cache
def bit_reversed(n: int) -> np.ndarray:
    """int[n]: where SEAL keeps the value that stands at each place in natural order."""
    bits = n.bit_length() - 1
    return np.array([int(f"{k:0{bits}b}"[::-1], 2) for k in range(n)])


@lru_cache
def slot_places(n: int) -> np.ndarray:
    """int[n/2]: at which place the value of slot j stands: at the 3^j-th power of the root
    (`ckks.cpp`)."""
    return np.array([(pow(3, j, 2 * n) - 1) // 2 for j in range(n // 2)])


@lru_cache
def primitive_root(n: int, q: int) -> int:
    """The smallest primitive 2n-th root of unity modulo q."""
    some = next(
        r for base in range(2, q) if pow(r := pow(base, (q - 1) // (2 * n), q), n, q) == q - 1
    )
    return min(int(power) for power in powers(some, 2 * n, q)[1::2])


@lru_cache
def powers(base: int, count: int, q: int) -> Integers:
    """1, base, base^2, ... modulo q."""
    found = [1]
    for _ in range(count - 1):
        found.append(found[-1] * base % q)
    return integers(found)


def _transform(values: Integers, root: int, q: int) -> Integers:
    """sum over i of values[i] * root^(i k), for every k below their number, a power of two.

    Row r of `rows` is the transform of every len(rows)-th value from r on; two rows make one of
    twice the length.
    """
    rows = values.reshape(-1, 1)
    twiddles = powers(root, len(values) // 2, q)
    while len(rows) > 1:
        half = len(rows) // 2
        even = rows[:half]
        odd = rows[half:] * twiddles[::half] % q
        rows = np.concatenate([even + odd, even - odd], axis=1) % q
    return rows[0]

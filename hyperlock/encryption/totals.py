"""What a client says about its data, inside the ciphertext.

A contributor count of 1, its sample count, its training loss and its number of saturated
coordinates stand in front of the update as base-2^(value_bits - 1) digits, one digit a coordinate.
A digit is an ordinary grid value, so sums of digits stay exact however few bits a value has, and
only the totals are ever released.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

LOSS_FRACTION_BITS = 16
# Bits of one client's share.
_WIDTHS = {"contributors": 1, "samples": 31, "loss": 47, "saturated": 31}


@dataclass(frozen=True)
class Totals:
    """One client's share, or the sum over clients.

    Attributes:
        contributors: 1 for a client; the number of clients in a sum.
        samples: number of training samples, at most 2^31 - 1 a client.
        loss: summed training loss over those samples, in units of 2^-16; at most 2^31 a client.
        saturated: number of update coordinates that fell outside the grid's range.
    """

    contributors: int
    samples: int
    loss: float
    saturated: int


def width(value_bits: int) -> int:
    """The number of coordinates that the totals take."""
    return sum(_digits(bits, value_bits) for bits in _WIDTHS.values())


def encode(totals: Totals, value_bits: int) -> NDArray[np.int64]:
    """int64[width(value_bits)]: digits of one client's share, least significant first; larger
    shares clip."""
    base_bits = value_bits - 1
    digits: list[int] = []
    for field in fields(Totals):
        value, bits = getattr(totals, field.name), _WIDTHS[field.name]
        whole = round(value * 2**LOSS_FRACTION_BITS) if field.name == "loss" else int(value)
        whole = min(max(whole, 0), 2**bits - 1)
        digits += [
            whole >> (base_bits * i) & (2**base_bits - 1) for i in range(_digits(bits, value_bits))
        ]
    return np.array(digits, np.int64)


def decode(sums: NDArray[np.integer], value_bits: int) -> Totals:
    """The totals that summed digits, int[width(value_bits)], stand for."""
    values: dict[str, int] = {}
    start = 0
    for name, bits in _WIDTHS.items():
        stop = start + _digits(bits, value_bits)
        values[name] = sum(
            int(digit) << ((value_bits - 1) * i) for i, digit in enumerate(sums[start:stop])
        )
        start = stop
    return Totals(**{**values, "loss": values["loss"] / 2**LOSS_FRACTION_BITS})


def _digits(bits: int, value_bits: int) -> int:
    return -(-bits // (value_bits - 1))

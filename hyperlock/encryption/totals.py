"""What a client says about its data, inside the ciphertext.

A contributor count of 1, its sample count, its training loss and its number of saturated
coordinates stand in front of the update as base-2^(value_bits - 1) digits, one digit a coordinate;
where clients evaluate the model too, so does how many samples they tested and how many of them were
answered rightly. Where they add noise for privacy, the count stands there alone: exact figures of
their data would undo what the noise does.
A digit is an ordinary grid value, so sums of digits stay exact however few bits a value has, and
only the totals are ever released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOSS_FRACTION_BITS = 16
# What is carried, in order, with the bits of one client's share.
COUNTED = {"contributors": 1}
TRAINED = COUNTED | {"samples": 31, "loss": 47, "saturated": 31}
EVALUATED = TRAINED | {"tested": 31, "right": 31}


@dataclass(frozen=True)
class Totals:
    """One client's share, or the sum over clients.

    Attributes:
        contributors: 1 for a client; the number of clients in a sum.
        samples: number of training samples, at most 2^31 - 1 a client.
        loss: summed training loss over those samples, in units of 2^-16; at most 2^31 a client.
        saturated: number of update coordinates that fell outside the grid's range.
        tested: number of test samples that the model, as the round began with it, was asked.
        right: how many of them it answered rightly.
    """

    contributors: int
    samples: int = 0
    loss: float = 0.0
    saturated: int = 0
    tested: int = 0
    right: int = 0


def width(value_bits: int, carried: Mapping[str, int] = TRAINED) -> int:
    """The number of coordinates that the totals take, of which COUNTED, TRAINED or EVALUATED are
    carried."""
    return sum(_digits(bits, value_bits) for bits in carried.values())


def encode(
    totals: Totals, value_bits: int, carried: Mapping[str, int] = TRAINED
) -> NDArray[np.int64]:
    """int64[width]: digits of one client's share, least significant first; larger shares clip, and
    what is not carried is left out."""
    shares = {
        "contributors": totals.contributors,
        "samples": totals.samples,
        "loss": round(totals.loss * 2**LOSS_FRACTION_BITS),
        "saturated": totals.saturated,
        "tested": totals.tested,
        "right": totals.right,
    }
    base_bits = value_bits - 1
    digits: list[int] = []
    for name, bits in carried.items():
        whole = min(max(int(shares[name]), 0), 2**bits - 1)
        for i in range(_digits(bits, value_bits)):
            digits.append(whole >> (base_bits * i) & (2**base_bits - 1))
    return np.array(digits, np.int64)


def possible(
    sums: NDArray[np.integer],
    value_bits: int,
    contributors: int,
    carried: Mapping[str, int] = TRAINED,
) -> bool:
    """Whether every digit, int[width], is one that so many shares can sum to."""
    digit_bits = min(value_bits - 1, max(carried.values()))
    return bool(sums.min() >= 0 and sums.max() <= contributors * (2**digit_bits - 1))


def decode(
    sums: NDArray[np.integer], value_bits: int, carried: Mapping[str, int] = TRAINED
) -> Totals:
    """The totals that summed digits, int[width], stand for; 0 for what is not carried."""
    values: dict[str, int] = {}
    start = 0
    for name, bits in carried.items():
        stop = start + _digits(bits, value_bits)
        values[name] = sum(
            int(digit) << ((value_bits - 1) * i) for i, digit in enumerate(sums[start:stop])
        )
        start = stop
    loss = values.pop("loss", 0) / 2**LOSS_FRACTION_BITS
    return Totals(**values, loss=loss)


def _digits(bits: int, value_bits: int) -> int:
    """Digits of value_bits - 1 bits that a number of `bits` bits takes."""
    return -(-bits // (value_bits - 1))

"""Several signed fields in one slot.

A slot of a ciphertext holds far more bits than one grid value. Field i of slot j is coordinate
i * slots + j of the vector, shifted up by i * field_bits; because fields are signed and wide enough for the
sum of `max_clients` values, sums of packed slots unpack to sums of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """`fields` signed integers of `field_bits` bits each in one slot; their product is at most 62."""

    fields: int
    field_bits: int

    def slots(self, length: int) -> int:
        """The number of slots that a vector of `length` values takes."""
        return -(-length // self.fields)

    def pack(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[length] to int64[slots(length)]; every |value| < 2^(field_bits - 1)."""
        slots = self.slots(values.size)
        packed = np.zeros(slots, np.int64)
        for i in reversed(range(self.fields)):
            packed <<= self.field_bits
            block = values[i * slots : (i + 1) * slots]
            packed[: block.size] += block
        return packed

    def unpack(self, packed: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """int64[slots(length)] to int64[length], the inverse of `pack` and of sums of packed vectors."""
        slots, half = self.slots(length), 1 << (self.field_bits - 1)
        # Lifting every field by half its width makes all of them non-negative, so that masks read them off.
        lifted = packed + sum(half << (self.field_bits * i) for i in range(self.fields))
        values = np.empty(self.fields * slots, np.int64)
        for i in range(self.fields):
            field = (lifted >> (self.field_bits * i)) & (2 * half - 1)
            values[i * slots : (i + 1) * slots] = field - half
        return values[:length]

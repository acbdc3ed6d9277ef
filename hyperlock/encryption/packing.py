"""Several signed fields in one slot.

A slot of a ciphertext holds far more bits than one grid value. Field i of slot j is coordinate i *
slots + j of the vector, shifted up by i * field_bits; because fields are signed and wide enough for
the sum of `max_clients` values, sums of packed slots unpack to sums of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """`fields` signed integers of `field_bits` bits each in one slot; their product is at most
    62."""

    fields: int
    field_bits: int

    def slots(self, length: int) -> int:
        """The number of slots that a vector of `length` values takes."""
        return -(-length // self.fields)

    def pack(self, values: NDArray[np.integer], start: int, stop: int) -> NDArray[np.int64]:
        """Slots start to stop of a vector: int[length] to int64[stop - start]; every |value| <
        2^(field_bits - 1)."""
        slots = self.slots(values.size)
        packed = np.zeros(stop - start, np.int64)
        for i in reversed(range(self.fields)):
            packed <<= self.field_bits
            block = values[i * slots + start : i * slots + stop]
            packed[: block.size] += block
        return packed

    def unpack(self, packed: NDArray[np.int64], values: NDArray[np.integer], start: int) -> None:
        """Write what `packed`, slots from `start` on, stands for into its places in `values`,
        int[length].

        The inverse of `pack`, and of sums of packed vectors.

        Raises:
            OverflowError: a field does not fit into the type of `values`.
        """
        slots, half, bounds = (
            self.slots(values.size),
            1 << (self.field_bits - 1),
            np.iinfo(values.dtype),
        )
        # Lifting every field by half its width makes all of them non-negative, so that masks read
        # them off.
        lifted = packed + sum(half << (self.field_bits * i) for i in range(self.fields))
        for i in range(self.fields):
            field = ((lifted >> (self.field_bits * i)) & (2 * half - 1)) - half
            block = values[i * slots + start : i * slots + start + packed.size]
            if field.min(initial=0) < bounds.min or field.max(initial=0) > bounds.max:
                raise OverflowError(f"a field does not fit into {values.dtype}")
            block[:] = field[: block.size]

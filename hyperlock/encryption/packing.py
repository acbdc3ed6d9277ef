"""Several signed fields in one slot.

A slot of a ciphertext holds far more bits than one grid value. Field i of slot j is coordinate i *
slots + j of the vector, shifted up by i * field_bits; because fields are signed and wide enough for
the sum of `max_clients` values, sums of packed slots unpack to sums of the fields.

    >>> packing = Packing(fields=2, field_bits=10)
    >>> values = np.array([3, -1, 2, 5, -4])  # coordinates 0 to 2 are field 0 of slots 0 to 2
    >>> packed = packing.pack(values, 0, packing.slots(values.size))
    >>> packed  # 5 * 1024 + 3, -4 * 1024 - 1, 2
    array([ 5123, -4097,     2])
    >>> sums = np.empty(5, np.int16)
    >>> packing.unpack(packed + packed, sums, 0)
    >>> sums
    array([ 6, -2,  4, 10, -8], dtype=int16)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """How many signed fields share a slot, and how wide each is.

    Attributes:
        fields: integers in a slot.
        field_bits: bits of each, its sign included; all fields together take at most 62.
    """

    fields: int
    field_bits: int

    @property
    def bits(self) -> int:
        """Bits of all fields of a slot together."""
        return self.fields * self.field_bits

    def slots(self, length: int) -> int:
        """The number of slots that a vector of `length` values takes."""
        return -(-length // self.fields)

    def pack(self, values: NDArray[np.integer], start: int, stop: int) -> NDArray[np.int64]:
        """Slots start to stop of a vector: int[length] to int64[stop - start]; every |value| <
        2^(field_bits - 1)."""
        slots = self.slots(values.size)
        # From the highest field down: what is there is shifted up to make room for the next.
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
            OverflowError: a field does not fit into the type of `values`, or one behind the
                vector's end is not zero.
        """
        slots = self.slots(values.size)
        half = 1 << (self.field_bits - 1)
        bounds = np.iinfo(values.dtype)
        # Lifting every field by half its width makes all of them non-negative, so that masks read
        # them off.
        lifted = packed + sum(half << (self.field_bits * i) for i in range(self.fields))
        for i in range(self.fields):
            field = ((lifted >> (self.field_bits * i)) & (2 * half - 1)) - half
            block = values[i * slots + start : i * slots + start + packed.size]
            if field.min(initial=0) < bounds.min or field.max(initial=0) > bounds.max:
                raise OverflowError(f"a field does not fit into {values.dtype}")
            if field[block.size :].any():
                raise OverflowError("a field behind the end is not zero")
            block[:] = field[: block.size]

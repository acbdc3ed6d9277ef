"""Unsigned integers of any width up to 63 bits, in exactly so many bits.

A number of `width` bits is cut into parts of 32, 16, 8, 4, 2 and 1 bits, those of which the width
is the sum, the lowest bits first. Each part of all numbers stands in one piece, so that NumPy
moves whole pieces and never single bits; of parts below a byte, byte j holds those of the numbers
j, j + m, j + 2m, ..., m being the number of bytes.

    >>> numbers = np.array([5, 1023, 0, 513, 8, 7, 6, 1], np.uint64)
    >>> len(pack(numbers, 10))  # eight numbers of 8 + 2 bits
    10
    >>> unpack(pack(numbers, 10), 8, 10)
    array([   5, 1023,    0,  513,    8,    7,    6,    1], dtype=uint64)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_PARTS = (32, 16, 8, 4, 2, 1)
_BYTE = 8


def pack(numbers: NDArray[np.uint64], width: int) -> bytes:
    """uint64[count], each below 2^width, as count * width / 8 bytes; count is a multiple of 8."""
    pieces = []
    rest = numbers
    for part, last in _parts(width):
        if part >= _BYTE:
            pieces.append(rest.astype(f"<u{part // _BYTE}").tobytes())
        else:
            pieces.append(_small(rest.astype(np.uint8), part))
        if not last:
            rest = rest >> np.uint64(part)
    return b"".join(pieces)


def unpack(data: bytes | memoryview, count: int, width: int) -> NDArray[np.uint64]:
    """uint64[count]: what `pack` made of numbers of this width; every byte string of the right
    length is one of exactly one array."""
    numbers = np.empty(count, np.uint64)
    start = 0
    shift = 0
    for part, _ in _parts(width):
        size = count * part // _BYTE
        piece = data[start : start + size]
        if part >= _BYTE:
            values = np.frombuffer(piece, f"<u{part // _BYTE}")
        else:
            values = _large(np.frombuffer(piece, np.uint8), part)
        if shift:
            wide = values.astype(np.uint64)
            wide <<= np.uint64(shift)
            numbers |= wide
        else:
            numbers[:] = values
        start += size
        shift += part
    return numbers


def packed_bytes(count: int, width: int) -> int:
    """How many bytes `pack` makes of so many numbers of this width."""
    return count * width // _BYTE


def _parts(width: int) -> Iterator[tuple[int, bool]]:
    """The parts that a width is the sum of, the largest first, and whether it is the last."""
    for part in _PARTS:
        if width & part:
            yield part, width % part == 0


def _small(values: NDArray[np.uint8], part: int) -> bytes:
    """The lowest `part` bits of uint8[count], several to a byte."""
    rows = values.reshape(_BYTE // part, -1)
    packed = rows[0] & np.uint8(2**part - 1)
    for row in range(1, len(rows)):
        packed |= (rows[row] & np.uint8(2**part - 1)) << np.uint8(part * row)
    return packed.tobytes()


def _large(packed: NDArray[np.uint8], part: int) -> NDArray[np.uint8]:
    """uint8[count]: the inverse of `_small`."""
    rows = np.empty((_BYTE // part, packed.size), np.uint8)
    for row in range(len(rows)):
        np.right_shift(packed, np.uint8(part * row), out=rows[row])
    rows &= np.uint8(2**part - 1)
    return rows.reshape(-1)

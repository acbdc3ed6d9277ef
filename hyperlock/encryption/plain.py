"""The plaintext baseline: the same integers on the same grid, sent as they are.

It has the form of a scheme and the grid's exact sums, so that what encryption costs is the
difference between two runs that end with the same model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import integer_type
from hyperlock.encryption.scheme import Chunk, KeyPair
from hyperlock.errors import CiphertextRefused

CHUNK = 65_536  # coordinates a chunk


def plain(extent: Extent, max_clients: int, length: int) -> Plain:
    """encryption=none: every update is sent as it is.

    Args:
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        length: coordinates of the vectors; any will do.
    """
    return Plain(extent, max_clients)


@dataclass(frozen=True)
class Plain:
    """No encryption. Chunks are little-endian integers: as narrow as values and sums allow.

    Attributes:
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        name: as in `encryption=NAME`.
    """

    extent: Extent
    max_clients: int
    name: str = "none"

    @property
    def security_bits(self) -> int:
        """0: the server reads every update."""
        return 0

    @property
    def fingerprint(self) -> str:
        """Extent and clients, which decide the types of values and sums."""
        return f"none/{self.extent}x{self.max_clients}"

    @property
    def max_chunk_bytes(self) -> int:
        """A chunk of sums of the widest type."""
        return CHUNK * 8

    @property
    def _value_type(self) -> np.dtype:
        return integer_type(self.extent.largest_value)

    @property
    def _sum_type(self) -> np.dtype:
        """Of a sum as sent: whatever the clients' values, it does not wrap."""
        return integer_type(self.max_clients * self.extent.largest_value)

    def chunk_count(self, length: int) -> int:
        """Chunks of 65,536 coordinates, and one for the rest."""
        return -(-length // CHUNK)

    def describe(self) -> dict[str, object]:
        """What decides the grid and its sums; there is nothing else."""
        return {"scheme": self.name, **self.extent.figures, "max_clients": self.max_clients}

    def generate_keys(self) -> KeyPair:
        """There are none; the bytes only say so."""
        return KeyPair(public=b"no encryption", secret=b"no encryption")

    def encryptor(self, public: bytes) -> PlainEncryptor:
        """The client's half: integers to bytes; `public` plays no part."""
        return PlainEncryptor(self._value_type)

    def symmetric_encryptor(self, secret: bytes) -> None:
        """None: there is no key to share, and no smaller form."""

    def accumulator(self, public: bytes, length: int) -> PlainAccumulator:
        """The server's half, for vectors of `length` values: it can read all that it adds."""
        top = self.extent.largest_value
        return PlainAccumulator(self._value_type, self._sum_type, top, length)

    def decryptor(self, secret: bytes) -> PlainDecryptor:
        """The key holder's half: bytes to sums; `secret` plays no part."""
        return PlainDecryptor(self._sum_type, self.extent.largest_sum(self.max_clients))


@dataclass(frozen=True)
class PlainEncryptor:
    """Grid integers to chunks of bytes, each value in `dtype`."""

    dtype: np.dtype

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """int[length] as bytes, 65,536 values a chunk."""
        for start in range(0, values.size, CHUNK):
            yield values[start : start + CHUNK].astype(self.dtype).tobytes()


class PlainAccumulator:
    """A running sum of vectors of grid integers.

    Args:
        value_type: of a value as sent.
        sum_type: wide enough for the sum of `max_clients` values.
        top: the largest magnitude of a value.
        length: coordinates of the vectors.
    """

    def __init__(self, value_type: np.dtype, sum_type: np.dtype, top: int, length: int) -> None:
        self._value_type = value_type
        self._top = top
        self._length = length
        self._sums = np.zeros(length, sum_type)

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Fold one vector in, wholly or, raising CiphertextRefused, not at all."""
        # As long as it should be, and every value on the grid; only then is anything added.
        sizes = [
            min(CHUNK, self._length - start) * self._value_type.itemsize
            for start in range(0, self._length, CHUNK)
        ]
        if [len(chunk) for chunk in chunks] != sizes:
            raise CiphertextRefused("the chunks have another length than the vector")
        values = [np.frombuffer(chunk, self._value_type) for chunk in chunks]
        if any(part.min() < -self._top or part.max() > self._top for part in values):
            raise CiphertextRefused(f"a value lies outside -{self._top} to {self._top}")
        for i, part in enumerate(values):
            self._sums[i * CHUNK : (i + 1) * CHUNK] += part

    def total(self) -> Iterator[bytes]:
        """The sums int[length] as bytes, 65,536 a chunk."""
        for start in range(0, self._length, CHUNK):
            yield self._sums[start : start + CHUNK].tobytes()


@dataclass(frozen=True)
class PlainDecryptor:
    """Chunks of bytes to sums, each sent as `dtype`, of magnitudes up to `top`."""

    dtype: np.dtype
    top: int

    def decrypt(self, chunks: Iterable[Chunk], length: int) -> NDArray[np.integer]:
        """The sums int[length] of the narrowest type that holds `top`; CiphertextRefused if one is
        larger, or the bytes are not as many as that."""
        data = b"".join(chunks)
        if len(data) != length * self.dtype.itemsize:
            raise CiphertextRefused(f"{len(data)} bytes are no {length} sums of type {self.dtype}")
        sums = np.frombuffer(data, self.dtype)
        if length and max(int(sums.max()), -int(sums.min())) > self.top:
            raise CiphertextRefused("the sum is out of range: not a sum of updates")
        return sums.astype(integer_type(self.top), copy=False)

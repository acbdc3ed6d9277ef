"""The plaintext baseline: the same integers on the same grid, sent as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.scheme import Chunk, KeyPair
from hyperlock.errors import CiphertextRefused

CHUNK = 65_536  # coordinates a chunk


@dataclass(frozen=True)
class Plain:
    """No encryption. Chunks are little-endian integers: as narrow as values and sums allow."""

    value_bits: int
    max_clients: int
    name: str = "none"

    @property
    def security_bits(self) -> int:
        """0: the server reads every update."""
        return 0

    @property
    def fingerprint(self) -> str:
        """Format and value bits."""
        return f"none/{self.value_bits}x{self.max_clients}"

    @property
    def max_chunk_bytes(self) -> int:
        """A chunk of sums."""
        return CHUNK * 8

    @property
    def _dtype(self) -> np.dtype:
        return integer_type(largest_value(self.value_bits))

    @property
    def _sum_dtype(self) -> np.dtype:
        return integer_type(self.max_clients * largest_value(self.value_bits))

    def chunk_count(self, length: int) -> int:
        """Chunks of 65,536 coordinates."""
        return -(-length // CHUNK)

    def describe(self) -> dict[str, object]:
        """Nothing but the grid."""
        return {"scheme": self.name, "value_bits": self.value_bits, "max_clients": self.max_clients}

    def generate_keys(self) -> KeyPair:
        """There are none; the bytes only say so."""
        return KeyPair(public=b"no encryption", secret=b"no encryption")

    def encryptor(self, public: bytes) -> PlainEncryptor:
        """Serialises."""
        return PlainEncryptor(self._dtype)

    def symmetric_encryptor(self, secret: bytes) -> None:
        """There is no key to share."""

    def accumulator(self, public: bytes, length: int) -> PlainAccumulator:
        """Adds."""
        return PlainAccumulator(
            self._dtype, self._sum_dtype, largest_value(self.value_bits), length
        )

    def decryptor(self, secret: bytes) -> PlainDecryptor:
        """Reads."""
        return PlainDecryptor(self._sum_dtype)


@dataclass(frozen=True)
class PlainEncryptor:
    """Serialises grid integers."""

    dtype: np.dtype

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """The values, in chunks."""
        for start in range(0, values.size, CHUNK):
            yield values[start : start + CHUNK].astype(self.dtype).tobytes()


class PlainAccumulator:
    """Adds integers."""

    def __init__(self, dtype: np.dtype, sum_dtype: np.dtype, top: int, length: int) -> None:
        self._dtype, self._top, self._length = dtype, top, length
        self._sums = np.zeros(length, sum_dtype)

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Fold one vector in."""
        sizes = [
            min(CHUNK, self._length - start) * self._dtype.itemsize
            for start in range(0, self._length, CHUNK)
        ]
        if [len(chunk) for chunk in chunks] != sizes:
            raise CiphertextRefused("the chunks have another length than the vector")
        values = [np.frombuffer(chunk, self._dtype) for chunk in chunks]
        if any(part.min() < -self._top or part.max() > self._top for part in values):
            raise CiphertextRefused(f"a value lies outside -{self._top} to {self._top}")
        for i, part in enumerate(values):
            self._sums[i * CHUNK : (i + 1) * CHUNK] += part

    def total(self) -> Iterator[bytes]:
        """The sums, in chunks."""
        for start in range(0, self._length, CHUNK):
            yield self._sums[start : start + CHUNK].tobytes()


@dataclass(frozen=True)
class PlainDecryptor:
    """Reads sums."""

    dtype: np.dtype

    def decrypt(self, chunks: Iterable[Chunk], length: int) -> NDArray[np.integer]:
        """The sums, int[length]."""
        data = b"".join(chunks)
        if len(data) != length * self.dtype.itemsize:
            raise CiphertextRefused(f"{len(data)} bytes are no {length} sums of type {self.dtype}")
        return np.frombuffer(data, self.dtype)

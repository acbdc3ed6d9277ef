"""The plaintext baseline: the same integers on the same grid, sent as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.scheme import CiphertextRefused, KeyPair

CHUNK = 65_536  # coordinates a chunk


@dataclass(frozen=True)
class Plain:
    """No encryption. Chunks are little-endian integers: as narrow as `value_bits` allow, int64 for sums."""

    value_bits: int
    max_clients: int
    name: str = "none"

    @property
    def security(self) -> int:
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
        return np.dtype("<i1" if self.value_bits <= 8 else "<i2" if self.value_bits <= 16 else "<i4")

    def chunks(self, length: int) -> int:
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
        return PlainAccumulator(self._dtype, length)

    def decryptor(self, secret: bytes) -> PlainDecryptor:
        """Reads."""
        return PlainDecryptor()


@dataclass(frozen=True)
class PlainEncryptor:
    """Serialises grid integers."""

    dtype: np.dtype

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """The values, in chunks."""
        narrow = values.astype(self.dtype)
        return tuple(narrow[i : i + CHUNK].tobytes() for i in range(0, narrow.size, CHUNK))


class PlainAccumulator:
    """Adds int64 sums."""

    def __init__(self, dtype: np.dtype, length: int) -> None:
        self._dtype = dtype
        self._sizes = [min(CHUNK, length - start) for start in range(0, length, CHUNK)]
        self._sums: list[NDArray[np.int64]] = []

    def add(self, chunks: Sequence[bytes]) -> None:
        """Fold one vector in."""
        try:
            values = [np.frombuffer(chunk, self._dtype) for chunk in chunks]
        except ValueError as error:
            raise CiphertextRefused(f"not a vector of {self._dtype}: {error}") from None
        if [value.size for value in values] != self._sizes:
            raise CiphertextRefused("the chunks have another length than the vector")
        if not self._sums:
            self._sums = [np.zeros(size, np.int64) for size in self._sizes]
        for total, value in zip(self._sums, values, strict=True):
            total += value

    def total(self) -> tuple[bytes, ...]:
        """int64 sums, in chunks."""
        return tuple(total.astype("<i8").tobytes() for total in self._sums)


class PlainDecryptor:
    """Reads int64 sums."""

    def decrypt(self, chunks: Sequence[bytes], length: int) -> NDArray[np.int64]:
        """The sums, int64[length]."""
        try:
            values = np.concatenate([np.frombuffer(chunk, "<i8") for chunk in chunks])
        except ValueError as error:
            raise CiphertextRefused(f"not a vector of int64: {error}") from None
        if values.size != length:
            raise CiphertextRefused(f"the sum has {values.size} coordinates, not {length}")
        return values.astype(np.int64)

"""What every encryption scheme offers, and nothing that a model would recognise.

A vector of integers becomes a sequence of ciphertext bytes, one ciphertext a chunk. Public and
secret sides are different objects: an `Encryptor` and an `Accumulator` are made from the public key
alone, a `Decryptor` from the secret key, and no object leads from the first two to the third.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.extent import Extent

Chunk = bytes | memoryview  # one serialised ciphertext


@dataclass(frozen=True)
class KeyPair:
    """Serialised keys. The secret half never leaves the key holder; its repr does not show it."""

    public: bytes
    secret: bytes = field(repr=False)


class Encryptor(Protocol):
    """Made from the public key; lives at the client."""

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """Serialised ciphertexts of int[length] with |value| <= `extent.largest_value`, as they are
        made."""
        ...


class Accumulator(Protocol):
    """Made from the public key; lives at the server and holds one running sum, whatever the
    cohort."""

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Fold one encrypted vector in, wholly or, raising CiphertextRefused, not at all."""
        ...

    def total(self) -> Iterator[bytes]:
        """Serialised ciphertexts of the sum, which ends with them."""
        ...


class Decryptor(Protocol):
    """Made from the secret key; lives at the key holder."""

    def decrypt(self, chunks: Iterable[Chunk], length: int) -> NDArray[np.integer]:
        """The exact integer sums, int[length] of the narrowest type that holds sums of
        `max_clients` updates.

        Raises:
            CiphertextRefused: they are not certainly exact, or out of range.
        """
        ...


class Scheme(Protocol):
    """A choice of parameters that all parties share; holds no key."""

    @property
    def name(self) -> str:
        """What people know it by, as in `encryption=NAME`: ckks, bfv, none."""
        ...

    @property
    def extent(self) -> Extent:
        """How large values and their sums may be."""
        ...

    @property
    def max_clients(self) -> int:
        """No more updates than this may be added."""
        ...

    @property
    def security_bits(self) -> int:
        """Classical security in bits by the tables of `parameters.py`; 0 where nothing is
        encrypted."""
        ...

    @property
    def fingerprint(self) -> str:
        """Name, every parameter and the library's version: parties with equal fingerprints
        understand each other's bytes."""
        ...

    def chunk_count(self, length: int) -> int:
        """How many ciphertexts a vector of `length` values takes."""
        ...

    @property
    def max_chunk_bytes(self) -> int:
        """No serialised ciphertext is larger than this."""
        ...

    def describe(self) -> dict[str, object]:
        """The public parameters, for people and for the tracking."""
        ...

    def generate_keys(self) -> KeyPair:
        """New keys from the operating system's randomness."""
        ...

    def encryptor(self, public: bytes) -> Encryptor:
        """The client's half, made from the public key; CiphertextRefused if these bytes are not
        one."""
        ...

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that share the secret key: ciphertexts of half the size; None where there are
        none."""
        ...

    def accumulator(self, public: bytes, length: int) -> Accumulator:
        """The server's half, for vectors of `length` values."""
        ...

    def decryptor(self, secret: bytes) -> Decryptor:
        """The key holder's half, made from the secret key."""
        ...

"""Messages and ciphertexts taken apart, and put together again with anything in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, pairwise
from typing import Any

import msgpack
import numpy as np

from hyperlock.encryption import bits, seal
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.seal import SEED_BYTES, Residues
from hyperlock.parties.identity import Identity
from tests.security.ring import Ring, bit_reversed, integers


@dataclass(frozen=True)
class Forgery:
    """One ciphertext as the layout writes it, with every number that is transmitted in reach.

    Attributes:
        layout: whose form it has.
        dropped: low bits of the first polynomial's residues that are not transmitted.
        polynomials: uint64[polynomials, primes, N], each number as it is transmitted: the first
            polynomial's without their low bits; two polynomials, or one before a seed.
        seed: what follows them.
    """

    layout: Layout
    dropped: int
    polynomials: Residues = field(repr=False)
    seed: bytes = b""

    @classmethod
    def of(cls, chunk: bytes, layout: Layout) -> Forgery:
        """A good ciphertext of an Update taken apart."""
        if len(chunk) == layout.seeded_bytes:
            end = len(chunk) - SEED_BYTES
            return cls._read(chunk[:end], layout, layout.dropped_seeded, 1, chunk[end:])
        assert len(chunk) == layout.whole_bytes
        return cls._read(chunk, layout, layout.dropped, 2)

    @classmethod
    def of_sum(cls, chunk: bytes, layout: Layout) -> Forgery:
        """A good ciphertext of an Aggregate taken apart."""
        assert len(chunk) == layout.sum_bytes
        return cls._read(chunk, layout, 0, 2)

    @classmethod
    def _read(
        cls, data: bytes, layout: Layout, dropped: int, count: int, seed: bytes = b""
    ) -> Forgery:
        empty = np.empty((count, len(layout.primes), layout.poly_modulus), np.uint64)
        forgery = cls(layout, dropped, empty, seed)
        start = 0
        for numbers, _, width in forgery._pieces():
            end = start + bits.packed_bytes(numbers.size, width)
            numbers[:] = bits.unpack(data[start:end], numbers.size, width)
            start = end
        assert start == len(data)
        return forgery

    def write(self) -> bytes:
        """The ciphertext, nothing of it checked."""
        return b"".join(bits.pack(numbers, width) for numbers, _, width in self._pieces()) + (
            self.seed
        )

    @property
    def residues(self) -> Residues:
        """uint64[polynomials, primes, N]: what the numbers stand for."""
        residues = self.polynomials.copy()
        residues[0] <<= np.uint64(self.dropped)
        return residues

    @property
    def size(self) -> int:
        """How many numbers are transmitted."""
        return self.polynomials.size

    def about(self, place: int) -> tuple[int, int, int]:
        """Of the number at one place: its prime, the bits it is transmitted in, and how many are
        dropped."""
        polynomial, row, _ = np.unravel_index(place, self.polynomials.shape)
        prime = self.layout.primes[row]
        dropped = 0 if polynomial else self.dropped
        return prime, prime.bit_length() - dropped, dropped

    def with_coefficient(self, place: int, value: int) -> Forgery:
        """With another number in one place; it is cut to as many bits as are transmitted."""
        polynomials = self.polynomials.copy()
        polynomials.flat[place] = value
        return replace(self, polynomials=polynomials)

    def with_second(self, second: Residues) -> Forgery:
        """With this second polynomial, uint64[primes, N], whole."""
        both = np.stack([self.polynomials[0], second])
        return replace(self, polynomials=both, seed=b"")

    def plus(self, more: Residues) -> Forgery:
        """With uint64[primes, N] added to the second polynomial, modulo each prime."""
        primes = np.array(self.layout.primes, np.uint64)[:, np.newaxis]
        return self.with_second((self.polynomials[1] + more % primes) % primes)

    def as_sum(self) -> Forgery:
        """A whole ciphertext of an Update as one of an Aggregate; one of these stays as it is."""
        assert len(self.polynomials) == 2
        return replace(self, dropped=0, polynomials=self.residues)

    def as_update(self) -> Forgery:
        """A sum as a whole ciphertext of an Update, its low bits rounded away."""
        return Forgery.of(self.layout.write_whole(self.residues), self.layout)

    def _pieces(self) -> Iterator[tuple[Residues, int, int]]:
        """uint64[N] numbers, their prime, and the bits that each is transmitted in."""
        for i, polynomial in enumerate(self.polynomials):
            for numbers, prime in zip(polynomial, self.layout.primes, strict=True):
                yield numbers, prime, prime.bit_length() - (0 if i else self.dropped)


def residues_of(polynomial: Iterable[int], scheme: PackedScheme) -> Residues:
    """uint64[primes, N]: a polynomial of N integers as the scheme's ciphertexts carry it, by
    coefficients (BFV) or in NTT form (CKKS)."""
    coefficients = integers(polynomial)
    n = scheme.layout.poly_modulus
    rows = []
    for prime in scheme.layout.primes:
        numbers = coefficients % prime
        if scheme.ntt:
            numbers = Ring(n, prime).values(numbers)[bit_reversed(n)]
        rows.append(numbers.astype(np.uint64))
    return np.stack(rows)


def in_a_seal_object(content: bytes) -> bytes:
    """Behind the header that SEAL gives an object, not compressed."""
    return seal._header(len(content)) + content


def opened(message: bytes) -> tuple[bytes, dict[str, object], bytes]:
    """A message's payload, header and signature, unchecked."""
    size = int.from_bytes(message[-4:], "little")
    header, signature = msgpack.unpackb(message[-4 - size : -4])
    return message[: -4 - size], msgpack.unpackb(header), signature


def closed(payload: bytes, header: object, signer: Identity) -> bytes:
    """A message of this payload and this header, or header bytes, with `signer`'s good
    signature."""
    header_bytes = header if isinstance(header, bytes) else msgpack.packb(header)
    return enclosed(payload, msgpack.packb([header_bytes, signer.sign(header_bytes)]))


def enclosed(payload: bytes, envelope: bytes) -> bytes:
    """A message of this payload and whatever stands where header and signature should."""
    return payload + envelope + len(envelope).to_bytes(4, "little")


def runs(sizes: Sequence[int]) -> list[int]:
    """Sizes as a header names them: count, size, count, size, ..."""
    return [n for size, equal in groupby(sizes) for n in (len(list(equal)), size)]


def parts_of(message: bytes) -> list[bytes]:
    """The payload's parts of a good message."""
    payload, header, _ = opened(message)
    named: Any = header["sizes"]
    sizes = [size for count, size in pairs(named) for _ in range(count)]
    return [payload[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]


def pairs(flat: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Two at a time."""
    return zip(flat[::2], flat[1::2], strict=True)


def with_parts(message: bytes, signer: Identity, *parts: bytes, **changes: object) -> bytes:
    """A message with another payload and maybe other header fields, signed anew."""
    payload = b"".join(parts)
    sizes = runs([len(part) for part in parts])
    digest = hashlib.sha256(payload).digest()
    _, header, _ = opened(message)
    return closed(payload, {**header, "sizes": sizes, "digest": digest, **changes}, signer)


def resealed(message: bytes, signer: Identity, **changes: object) -> bytes:
    """A message with other header fields, signed anew."""
    payload, header, _ = opened(message)
    return closed(payload, {**header, **changes}, signer)

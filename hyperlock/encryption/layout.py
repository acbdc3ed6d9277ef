"""What a ciphertext is on the wire: residues, in as many bits as they take, and nothing else.

    Update, whole:   c0, rounded to multiples of 2^d | c1
    Update, seeded:  c0, rounded to multiples of 2^d | the seed that c1 grows from, 64 bytes
    Aggregate:       c0 | c1

A polynomial is its N residues modulo each data prime, one prime after the other, packed by
`bits.py`. Ring, primes, form and scale are known to all parties by the fingerprint, so no header
says them, and there is none to lie in: three lengths are all that can tell forms apart. A liar can
still send a residue that is none, or a second polynomial of zeros, which leaves the message in
sight; both are refused here, before SEAL sees anything.

The low d bits of c0 are rounded away where the noise bound has room for them: whoever holds the
ciphertext could do so himself, so nothing is given away, and a sum of K gains at most K 2^(d-1) in
each coefficient (`bfv_parameters.py`). c1 is multiplied by the secret key, and stays whole. Sums
carry into the bits that were zero, so an Aggregate has all of them. In NTT form (CKKS), or with
more than one prime, low bits are not small, and d is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyperlock.encryption import bits
from hyperlock.encryption.seal import SEED_BYTES, Residues
from hyperlock.errors import CiphertextRefused


@dataclass(frozen=True)
class Received:
    """A ciphertext that arrived: its residues, all of them below their primes.

    Attributes:
        both: uint64[2, primes, N], or uint64[1, primes, N] where there is a seed.
        seed: of the second polynomial; empty where that came whole.
    """

    both: Residues
    seed: bytes = b""


@dataclass(frozen=True)
class Layout:
    """How a scheme's ciphertexts are laid out.

    Attributes:
        poly_modulus: N.
        primes: the data primes themselves, without the special one.
        dropped: d of a whole Update; 0 unless there is one prime.
        dropped_seeded: d of a seeded one.
    """

    poly_modulus: int
    primes: tuple[int, ...]
    dropped: int = 0
    dropped_seeded: int = 0

    @property
    def whole_bytes(self) -> int:
        """Of one ciphertext of an Update, as the public key makes it."""
        return self._polynomial_bytes(self.dropped) + self._polynomial_bytes()

    @property
    def seeded_bytes(self) -> int:
        """Of one ciphertext of an Update, as the secret key makes it."""
        return self._polynomial_bytes(self.dropped_seeded) + SEED_BYTES

    @property
    def sum_bytes(self) -> int:
        """Of one ciphertext of an Aggregate."""
        return 2 * self._polynomial_bytes()

    def write_whole(self, both: Residues) -> bytes:
        """The residues uint64[2, primes, N] of a fresh ciphertext, for an Update."""
        return self._write(both[0], self.dropped) + self._write(both[1])

    def write_seeded(self, first: Residues, seed: bytes) -> bytes:
        """A first polynomial uint64[primes, N] and the second one's seed, for an Update."""
        return self._write(first, self.dropped_seeded) + seed

    def write_sum(self, both: Residues) -> bytes:
        """The residues uint64[2, primes, N] of a sum, for an Aggregate."""
        return self._write(both[0]) + self._write(both[1])

    def open_update(self, chunk: bytes | memoryview) -> Received:
        """One ciphertext of an Update; CiphertextRefused if it is none of these parameters."""
        if len(chunk) == self.seeded_bytes:
            end = len(chunk) - SEED_BYTES
            first = np.empty((1, len(self.primes), self.poly_modulus), np.uint64)
            self._open(chunk[:end], first[0], self.dropped_seeded)
            return Received(first, bytes(chunk[end:]))
        if len(chunk) != self.whole_bytes:
            raise CiphertextRefused(
                f"a ciphertext of {len(chunk)} bytes instead of {self.whole_bytes}, or of "
                f"{self.seeded_bytes} with a seed"
            )
        return Received(self._open_both(chunk, self.dropped))

    def open_sum(self, chunk: bytes | memoryview) -> Residues:
        """uint64[2, primes, N] of an Aggregate; CiphertextRefused if it is none of these
        parameters."""
        if len(chunk) != self.sum_bytes:
            raise CiphertextRefused(
                f"a summed ciphertext of {len(chunk)} bytes instead of {self.sum_bytes}"
            )
        return self._open_both(chunk, 0)

    def _open_both(self, chunk: bytes | memoryview, dropped: int) -> Residues:
        middle = self._polynomial_bytes(dropped)
        both = np.empty((2, len(self.primes), self.poly_modulus), np.uint64)
        self._open(chunk[:middle], both[0], dropped)
        self._open(chunk[middle:], both[1])
        refuse_transparent(both)
        return both

    def _polynomial_bytes(self, dropped: int = 0) -> int:
        widths = [prime.bit_length() - dropped for prime in self.primes]
        return sum(bits.packed_bytes(self.poly_modulus, width) for width in widths)

    def _write(self, polynomial: Residues, dropped: int = 0) -> bytes:
        pieces = []
        for residues, prime in zip(polynomial, self.primes, strict=True):
            rounded = _rounded(residues, prime, dropped) if dropped else residues
            pieces.append(bits.pack(rounded, prime.bit_length() - dropped))
        return b"".join(pieces)

    def _open(self, data: bytes | memoryview, polynomial: Residues, dropped: int = 0) -> None:
        """Write what the bytes stand for into uint64[primes, N]."""
        start = 0
        for residues, prime in zip(polynomial, self.primes, strict=True):
            width = prime.bit_length() - dropped
            end = start + bits.packed_bytes(self.poly_modulus, width)
            residues[:] = bits.unpack(data[start:end], self.poly_modulus, width)
            if dropped:
                residues <<= np.uint64(dropped)
            if residues.max() >= prime:
                raise CiphertextRefused("a ciphertext with a residue that is none of its prime's")
            start = end


def refuse_transparent(both: Residues) -> None:
    """Raise CiphertextRefused for a second polynomial of zeros: the message stands in the first."""
    if not both[1].any(axis=-1).all():
        raise CiphertextRefused("a ciphertext without its second polynomial, which anyone can read")


def _rounded(residues: Residues, prime: int, dropped: int) -> Residues:
    """The nearest multiples of 2^dropped, divided by it; what would be the prime or more is, modulo
    the prime, next to 0."""
    half = np.uint64(1 << (dropped - 1))
    nearest = (residues + half) >> np.uint64(dropped)
    nearest *= nearest <= np.uint64((prime - 1) >> dropped)
    return nearest

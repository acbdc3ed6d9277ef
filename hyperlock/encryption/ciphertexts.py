"""What CKKS and BFV share: keys, and vectors of packed integers as sequences of ciphertexts.

Everything streams: one ciphertext at a time is packed and encrypted, parsed and added, or decrypted
and unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import Chunk, KeyPair
from hyperlock.encryption.vector import largest_sum, sum_type
from hyperlock.errors import CiphertextRefused, ConfigError

CIPHERTEXT_OVERHEAD = 1024  # headers of SEAL and TenSEAL; about 150 bytes seen


def tenseal_version() -> str:
    """The library's version: 0.3.16 and 0.3.18 cannot read each other's bytes."""
    from importlib.metadata import version

    return f"tenseal-{version('tenseal')}"


def make_keys(
    make_context: Callable[[], Any], poly_modulus: int, coeff_mod_bits: tuple[int, ...]
) -> KeyPair:
    """The keys of a new context of TenSEAL's, serialised apart; no Galois or relinearisation keys,
    which only multiplication and rotation need.

    Raises:
        ConfigError: SEAL has no such chain for this ring.
    """
    try:
        context = make_context()
    except (ValueError, RuntimeError) as error:
        # SEAL found too few primes of a size that are 1 modulo 2N
        raise ConfigError(
            "encryption.coeff_mod_bits",
            coeff_mod_bits,
            f"SEAL cannot build this chain at poly_modulus={poly_modulus} ({error})",
            hint="larger primes, or encryption.coeff_mod_bits=auto",
        ) from None
    only = {"save_galois_keys": False, "save_relin_keys": False}
    return KeyPair(
        public=context.serialize(save_public_key=True, save_secret_key=False, **only),
        secret=context.serialize(save_public_key=False, save_secret_key=True, **only),
    )


@lru_cache(maxsize=2)
def public_context(public: bytes) -> Any:
    """One loaded context for all parties of a process that hold the same public key."""
    from hyperlock.encryption._tenseal import tenseal as ts

    try:
        context = ts.context_from(public)
    except (ValueError, RuntimeError) as error:
        raise CiphertextRefused(f"not a public key: {error}") from None
    if context.has_secret_key():
        raise CiphertextRefused("these bytes contain a secret key; a public key was due")
    return context


def secret_context(secret: bytes) -> Any:
    """A loaded context that can decrypt; not kept, so that it lives as long as who holds it."""
    from hyperlock.encryption._tenseal import tenseal as ts

    return ts.context_from(secret)


class PackedScheme:
    """What CKKS and BFV have in common; each adds how slots are encrypted, read and decrypted."""

    parameters: Any
    name: str

    @property
    def encoding(self) -> str:
        """How a slot's integer becomes a plaintext, for the fingerprint."""
        raise NotImplementedError

    @property
    def figures(self) -> dict[str, object]:
        """The public parameters that are this scheme's alone."""
        raise NotImplementedError

    def new_context(self) -> Any:
        """TenSEAL's, with new keys; ValueError or RuntimeError if SEAL has no such chain."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Scheme, every parameter and TenSEAL's version: parties with equal fingerprints read each
        other's bytes."""
        p = self.parameters
        chain = "-".join(map(str, p.coeff_mod_bits))
        packing = f"{p.packing.fields}x{p.packing.field_bits}"
        sums = f"{p.value_bits}x{p.max_clients}"
        return (
            f"{self.name}/{p.poly_modulus}/{chain}/{self.encoding}/{packing}/{sums}"
            f"/{tenseal_version()}"
        )

    def describe(self) -> dict[str, object]:
        """The public parameters, for people and for the tracking."""
        p = self.parameters
        return {
            "scheme": self.name,
            "poly_modulus": p.poly_modulus,
            "coeff_mod_bits": list(p.coeff_mod_bits),
            **self.figures,
            "value_bits": p.value_bits,
            "max_clients": p.max_clients,
            "fields_per_slot": p.packing.fields,
            "field_bits": p.packing.field_bits,
            "security_bits": p.security_bits,
            "exact_to_bits": round(p.exact_to_bits, 1),
            "fingerprint": self.fingerprint,
        }

    def generate_keys(self) -> KeyPair:
        """A new pair from the operating system's randomness; ConfigError if SEAL cannot build the
        chain."""
        return make_keys(
            self.new_context, self.parameters.poly_modulus, self.parameters.coeff_mod_bits
        )

    @property
    def value_bits(self) -> int:
        """Bits of one signed value on the grid."""
        return self.parameters.value_bits

    @property
    def max_clients(self) -> int:
        """No more updates than this may be added."""
        return self.parameters.max_clients

    @property
    def security_bits(self) -> int:
        """Classical security in bits, by the tables of `parameters.py`."""
        return self.parameters.security_bits

    @property
    def max_chunk_bytes(self) -> int:
        """Two polynomials of N coefficients of 64 bits for each data prime, and headers."""
        layout = self.layout
        return 2 * layout.poly_modulus * 8 * layout.primes + CIPHERTEXT_OVERHEAD

    @property
    def layout(self) -> Layout:
        """How its ciphertexts look on the wire, to be checked before SEAL sees them."""
        raise NotImplementedError

    def chunk_count(self, length: int) -> int:
        """One ciphertext for every full set of slots, and one for the rest."""
        return len(self.blocks(length))

    def blocks(self, length: int) -> list[tuple[int, int]]:
        """First slot of each ciphertext of a vector of `length` values, and the one after its
        last."""
        slots = self.parameters.slots
        total = self.parameters.packing.slots(length)
        return [(start, min(start + slots, total)) for start in range(0, total, slots)]

    def read(self, context: Any, framed: bytes) -> Any:
        """TenSEAL's vector of a framed ciphertext; ValueError or RuntimeError if it is none."""
        raise NotImplementedError

    def load(self, context: Any, chunk: Chunk, size: int) -> Any:
        """One parsed ciphertext of `size` slots, checked before SEAL sees it and by SEAL.

        Raises:
            CiphertextRefused: it is not a fresh ciphertext of these parameters.
        """
        framed = self.layout.open(chunk, size)
        try:
            return self.read(context, framed)
        except (ValueError, RuntimeError) as error:
            raise CiphertextRefused(f"not a ciphertext of these parameters: {error}") from None

    def accumulator(self, public: bytes, length: int) -> CiphertextSum:
        """The server's half, under the public key, for vectors of `length` values."""
        return CiphertextSum(self, public_context(public), length)


class PackedEncryptor:
    """Packs and encrypts under the public key, one ciphertext a chunk.

    Args:
        scheme: blocks and packing.
        encrypt_slots: int64[slots] to a serialised ciphertext.
    """

    def __init__(
        self, scheme: PackedScheme, encrypt_slots: Callable[[NDArray[np.int64]], bytes]
    ) -> None:
        self._scheme = scheme
        self._encrypt_slots = encrypt_slots

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """Serialised ciphertexts of int[length], one at a time, as they are made."""
        packing = self._scheme.parameters.packing
        for start, stop in self._scheme.blocks(values.size):
            yield self._encrypt_slots(packing.pack(values, start, stop))


class PackedDecryptor:
    """Decrypts sums under the secret key, one ciphertext after the other.

    Args:
        scheme: blocks, packing and bounds.
        context: TenSEAL's, with the secret key.
        decrypt_slots: a parsed ciphertext to its exact slots, int64; CiphertextRefused if they are
            not certainly exact.
    """

    def __init__(
        self, scheme: PackedScheme, context: Any, decrypt_slots: Callable[[Any], NDArray[np.int64]]
    ) -> None:
        self._scheme = scheme
        self._context = context
        self._decrypt_slots = decrypt_slots

    def decrypt(self, chunks: Iterable[Chunk], length: int) -> NDArray[np.integer]:
        """The exact sums, int[length] of the narrowest type that holds sums of `max_clients`
        updates.

        Raises:
            CiphertextRefused: a ciphertext is not of these parameters and key, or a sum lies
                outside what `max_clients` updates can sum to.
        """
        scheme = self._scheme
        packing = scheme.parameters.packing
        sums = np.empty(length, sum_type(scheme.value_bits, scheme.max_clients))

        # One ciphertext after the other, each to its block of slots.
        blocks = iter(scheme.blocks(length))
        for chunk in chunks:
            start, stop = next(blocks, (0, 0))
            if stop == 0:
                raise CiphertextRefused(f"the sum has more than {length} coordinates")
            slots = self._decrypt_slots(scheme.load(self._context, chunk, stop - start))
            try:
                packing.unpack(slots, sums, start)
            except OverflowError:
                raise CiphertextRefused("the sum is out of range: not a sum of updates") from None
        if next(blocks, None) is not None:
            raise CiphertextRefused(f"the sum has fewer than {length} coordinates")

        # The type is wider than what clients can sum to, and so is a field.
        top = largest_sum(scheme.value_bits, scheme.max_clients)
        if length and max(int(sums.max()), -int(sums.min())) > top:
            raise CiphertextRefused("the sum is out of range: not a sum of updates")
        return sums


class CiphertextSum:
    """A running sum of ciphertexts under a public key.

    Args:
        scheme: how ciphertexts are read.
        context: TenSEAL's, without the secret key.
        length: coordinates of the vectors.
    """

    def __init__(self, scheme: PackedScheme, context: Any, length: int) -> None:
        self._scheme = scheme
        self._context = context
        self._sizes = [stop - start for start, stop in scheme.blocks(length)]
        self._sums: list[Any] = []

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Fold one encrypted vector in, wholly or not at all; no more than one ciphertext of it is
        parsed at a time."""
        if len(chunks) != len(self._sizes):
            raise CiphertextRefused(f"{len(chunks)} ciphertexts instead of {len(self._sizes)}")
        # The first vector is the sum.
        if not self._sums:
            self._sums = [self._load(i, chunk) for i, chunk in enumerate(chunks)]
            return
        # Others are added; if one of its ciphertexts is refused, those before are taken out again.
        done = 0
        try:
            for i, chunk in enumerate(chunks):
                self._sums[i] = self._added(self._sums[i], self._load(i, chunk))
                done += 1
        except CiphertextRefused:
            for i, chunk in enumerate(chunks[:done]):
                self._sums[i].sub_(self._load(i, chunk))  # exact: sums are modulo q
            raise

    def total(self) -> Iterator[bytes]:
        """Serialised ciphertexts of the sum, which is given up as they are written."""
        self._sums.reverse()
        while self._sums:
            yield self._sums.pop().serialize()

    def _added(self, total: Any, vector: Any) -> Any:
        try:
            return total + vector  # not in place: SEAL refuses a sum only once it is made
        except (ValueError, RuntimeError) as error:
            raise CiphertextRefused(f"a ciphertext that cannot be added: {error}") from None

    def _load(self, i: int, chunk: Chunk) -> Any:
        return self._scheme.load(self._context, chunk, self._sizes[i])

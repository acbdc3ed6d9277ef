"""What CKKS and BFV share: TenSEAL contexts as key bytes, and the running sum of ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from hyperlock.encryption.scheme import CiphertextRefused, KeyPair
from hyperlock.errors import ConfigError

CIPHERTEXT_OVERHEAD = 1024  # headers of SEAL and TenSEAL; about 150 bytes seen


def tenseal_version() -> str:
    """The library's version: 0.3.16 and 0.3.18 cannot read each other's bytes."""
    from importlib.metadata import version

    return f"tenseal-{version('tenseal')}"


def make_keys(make_context: Callable[[], Any], poly_modulus: int, coeff_mod_bits: tuple[int, ...]) -> KeyPair:
    """A fresh pair; no Galois or relinearisation keys, which only multiplication and rotation need."""
    try:
        context = make_context()
    except (ValueError, RuntimeError) as error:  # SEAL found too few primes of a size that are 1 modulo 2N
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
    """The key holder's context."""
    from hyperlock.encryption._tenseal import tenseal as ts

    return ts.context_from(secret)


def load(read: Callable[[Any, bytes], Any], context: Any, chunk: bytes, parameters: Any, *, scale: float) -> Any:
    """Parse one ciphertext and check that it is one of ours before it meets another.

    Args:
        read: TenSEAL's reader of the scheme's vectors.
        context: public or secret.
        chunk: the bytes.
        parameters: what it must be made with: at most so many slots, and exactly so many primes; with fewer, TenSEAL
            would switch the whole sum down to them.
        scale: what its scale must be (1 for BFV).

    Raises:
        CiphertextRefused: it is not a fresh ciphertext of these parameters.
    """
    try:
        vector = read(context, chunk)
        parts = vector.ciphertext()
    except (ValueError, RuntimeError) as error:
        raise CiphertextRefused(f"not a ciphertext of these parameters: {error}") from None
    if len(parts) != 1 or parts[0].size() != 2 or vector.size() > parameters.slots:
        raise CiphertextRefused("not one fresh ciphertext a chunk")
    primes = len(parameters.coeff_mod_bits) - 1
    if parts[0].coeff_modulus_size() != primes:
        raise CiphertextRefused(f"{parts[0].coeff_modulus_size()} primes instead of {primes}")
    if parts[0].scale != scale:
        raise CiphertextRefused(f"scale {parts[0].scale} instead of {scale}")
    return vector


class PackedScheme:
    """What CKKS and BFV have in common; each adds how values are encoded, and what must hold on decryption."""

    parameters: Any

    @property
    def value_bits(self) -> int:
        """Bits of one grid value."""
        return self.parameters.value_bits

    @property
    def max_clients(self) -> int:
        """No more updates than this may be added."""
        return self.parameters.max_clients

    @property
    def security(self) -> int:
        """Classical security in bits."""
        return self.parameters.security

    @property
    def max_chunk_bytes(self) -> int:
        """Two polynomials of N coefficients of 64 bits for each data prime, and headers."""
        p = self.parameters
        return 2 * p.poly_modulus * 8 * (len(p.coeff_mod_bits) - 1) + CIPHERTEXT_OVERHEAD

    def chunks(self, length: int) -> int:
        """One ciphertext for every full set of slots, and one for the rest."""
        return -(-self.parameters.packing.slots(length) // self.parameters.slots)

    def load(self, context: Any, chunk: bytes) -> Any:
        """One parsed ciphertext, checked."""
        raise NotImplementedError

    def accumulator(self, public: bytes, length: int) -> CiphertextSum:
        """The server's half."""
        context, p = public_context(public), self.parameters
        return CiphertextSum(lambda chunk: self.load(context, chunk), p.slots, p.packing.slots(length))


class CiphertextSum:
    """A running sum of ciphertexts under a public key.

    Args:
        load_chunk: parses and checks one ciphertext.
        slots: slots of a ciphertext.
        total_slots: slots of the whole vector.
    """

    def __init__(self, load_chunk: Callable[[bytes], Any], slots: int, total_slots: int) -> None:
        self._load = load_chunk
        self._sizes = [min(slots, total_slots - start) for start in range(0, total_slots, slots)]
        self._sums: list[Any] = []

    def add(self, chunks: Sequence[bytes]) -> None:
        """Fold one encrypted vector in. All of it is parsed before any of it is added."""
        vectors = [self._load(chunk) for chunk in chunks]
        if [vector.size() for vector in vectors] != self._sizes:
            raise CiphertextRefused("the ciphertexts have another length than the vector")
        if not self._sums:
            self._sums = vectors
            return
        for total, vector in zip(self._sums, vectors, strict=True):
            total.add_(vector)

    def total(self) -> tuple[bytes, ...]:
        """Serialised ciphertexts of the sum."""
        return tuple(total.serialize() for total in self._sums)

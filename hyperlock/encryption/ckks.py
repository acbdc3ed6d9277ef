"""CKKS through TenSEAL, as an exact adder of integers.

Grid integers, packed several to a slot, are encoded at a scale far above the noise; after decryption the sum
is rounded to integers, and refused unless every slot lies close to one. See `parameters.py` for the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.parameters import RESIDUE_LIMIT, CkksParameters
from hyperlock.encryption.scheme import CiphertextRefused, KeyPair
from hyperlock.errors import ConfigError

_CIPHERTEXT_OVERHEAD = 1024  # headers of SEAL and TenSEAL; about 150 bytes seen


@dataclass(frozen=True)
class Ckks:
    """CKKS with checked parameters."""

    parameters: CkksParameters
    name: str = "ckks"

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
    def fingerprint(self) -> str:
        """Parameters and TenSEAL's version: 0.3.16 and 0.3.18 cannot read each other's bytes."""
        from importlib.metadata import version

        p = self.parameters
        return (
            f"ckks/{p.poly_modulus}/{'-'.join(map(str, p.coeff_mod_bits))}/2^{p.scale_bits}"
            f"/{p.packing.fields}x{p.packing.field_bits}/{p.value_bits}x{p.max_clients}/tenseal-{version('tenseal')}"
        )

    @property
    def max_chunk_bytes(self) -> int:
        """Two polynomials of N coefficients of 64 bits for each data prime, and headers."""
        p = self.parameters
        return 2 * p.poly_modulus * 8 * (len(p.coeff_mod_bits) - 1) + _CIPHERTEXT_OVERHEAD

    def chunks(self, length: int) -> int:
        """One ciphertext for every N/2 packed slots."""
        return -(-self.parameters.packing.slots(length) // self.parameters.slots)

    def describe(self) -> dict[str, object]:
        """The public parameters."""
        p = self.parameters
        return {
            "scheme": self.name,
            "poly_modulus": p.poly_modulus,
            "coeff_mod_bits": list(p.coeff_mod_bits),
            "scale_bits": p.scale_bits,
            "value_bits": p.value_bits,
            "max_clients": p.max_clients,
            "fields_per_slot": p.packing.fields,
            "field_bits": p.packing.field_bits,
            "security_bits": p.security,
            "fingerprint": self.fingerprint,
        }

    def generate_keys(self) -> KeyPair:
        """A fresh pair; no Galois or relinearisation keys, which only multiplication and rotation need."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters
        try:
            context = ts.context(ts.SCHEME_TYPE.CKKS, p.poly_modulus, coeff_mod_bit_sizes=list(p.coeff_mod_bits))
        except ValueError as error:  # SEAL found too few primes of a size that are 1 modulo 2N
            raise ConfigError(
                "encryption.coeff_mod_bits",
                p.coeff_mod_bits,
                f"SEAL cannot build this chain at poly_modulus={p.poly_modulus} ({error})",
                hint="larger primes, or encryption.coeff_mod_bits=auto",
            ) from None
        only = {"save_galois_keys": False, "save_relin_keys": False}
        return KeyPair(
            public=context.serialize(save_public_key=True, save_secret_key=False, **only),
            secret=context.serialize(save_public_key=False, save_secret_key=True, **only),
        )

    def encryptor(self, public: bytes) -> CkksEncryptor:
        """The client's half."""
        return CkksEncryptor(self.parameters, _public_context(public))

    def accumulator(self, public: bytes) -> CkksAccumulator:
        """The server's half."""
        return CkksAccumulator(self.parameters, _public_context(public))

    def decryptor(self, secret: bytes) -> CkksDecryptor:
        """The key holder's half."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return CkksDecryptor(self.parameters, ts.context_from(secret))


class CkksEncryptor:
    """Packs and encrypts, one ciphertext a chunk."""

    def __init__(self, parameters: CkksParameters, context: Any) -> None:
        self._parameters, self._context = parameters, context

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """Serialised ciphertexts of int64[length]."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self._parameters
        packed = p.packing.pack(values).astype(np.float64)
        scale = 2.0**p.scale_bits
        return tuple(
            ts.ckks_vector(self._context, packed[i : i + p.slots], scale).serialize()
            for i in range(0, packed.size, p.slots)
        )


class CkksAccumulator:
    """A running sum of ciphertexts under a public key."""

    def __init__(self, parameters: CkksParameters, context: Any) -> None:
        self._parameters, self._context = parameters, context
        self._sums: list[Any] = []

    def add(self, chunks: Sequence[bytes]) -> None:
        """Fold one encrypted vector in. All of it is parsed before any of it is added."""
        vectors = [_load(self._context, chunk, self._parameters) for chunk in chunks]
        if not self._sums:
            self._sums = vectors
            return
        if [vector.size() for vector in vectors] != [total.size() for total in self._sums]:
            raise CiphertextRefused("the ciphertexts have another length than the sum")
        for total, vector in zip(self._sums, vectors, strict=True):
            total.add_(vector)

    def total(self) -> tuple[bytes, ...]:
        """Serialised ciphertexts of the sum."""
        return tuple(total.serialize() for total in self._sums)


class CkksDecryptor:
    """Decrypts sums under the secret key. Its repr shows nothing."""

    def __init__(self, parameters: CkksParameters, context: Any) -> None:
        self._parameters, self._context = parameters, context

    def decrypt(self, chunks: Sequence[bytes], length: int) -> NDArray[np.int64]:
        """The exact sums, int64[length].

        Raises:
            CiphertextRefused: a slot lies further than 1/4 from an integer, or outside what `max_clients`
                updates can sum to: noise too large, another key, or not a sum of grid values.
        """
        p = self._parameters
        vectors = [_load(self._context, chunk, p) for chunk in chunks]
        if sum(vector.size() for vector in vectors) != p.packing.slots(length):
            raise CiphertextRefused(f"the sum does not have {length} coordinates")
        raw = np.concatenate([vector.decrypt() for vector in vectors])
        if not (np.abs(raw) < 2.0 ** (p.packing.fields * p.packing.field_bits)).all():
            raise CiphertextRefused("the sum is out of range: encrypted under another key, or not a sum of updates")
        whole = np.rint(raw)
        residue = float(np.abs(raw - whole).max(initial=0.0))
        if residue > RESIDUE_LIMIT:
            raise CiphertextRefused(
                f"the sum is not a vector of integers (residue {residue:.3f}, at most {RESIDUE_LIMIT} allowed): "
                "encrypted under another key, or not a sum of updates"
            )
        return p.packing.unpack(whole.astype(np.int64), length)


@lru_cache(maxsize=2)
def _public_context(public: bytes) -> Any:
    """One loaded context for all parties of a process that hold the same public key."""
    from hyperlock.encryption._tenseal import tenseal as ts

    try:
        context = ts.context_from(public)
    except (ValueError, RuntimeError) as error:
        raise CiphertextRefused(f"not a public key: {error}") from None
    if context.has_secret_key():
        raise CiphertextRefused("these bytes contain a secret key; a public key was due")
    return context


def _load(context: Any, chunk: bytes, parameters: CkksParameters) -> Any:
    """Parse one ciphertext and check that it is one of ours before it meets another."""
    from hyperlock.encryption._tenseal import tenseal as ts

    try:
        vector = ts.ckks_vector_from(context, chunk)
        parts = vector.ciphertext()
    except (ValueError, RuntimeError) as error:
        raise CiphertextRefused(f"not a ciphertext of these parameters: {error}") from None
    if len(parts) != 1 or parts[0].size() != 2 or vector.size() > parameters.slots:
        raise CiphertextRefused("not one fresh ciphertext a chunk")
    if parts[0].scale != 2.0**parameters.scale_bits:
        raise CiphertextRefused(f"scale {parts[0].scale} instead of 2^{parameters.scale_bits}")
    return vector

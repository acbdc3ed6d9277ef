"""BFV through TenSEAL: exact integers modulo t, several signed fields to a slot.

BFV has no approximation to round away, and N slots where CKKS has N/2 real ones, so an update takes fewer bytes than it
has as float32. See `bfv_parameters.py` for the rule that keeps sums exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption.bfv_parameters import BfvParameters
from hyperlock.encryption.ciphertexts import (
    PackedScheme,
    load,
    make_keys,
    public_context,
    secret_context,
    tenseal_version,
)
from hyperlock.encryption.scheme import CiphertextRefused, Encryptor, KeyPair


@dataclass(frozen=True)
class Bfv(PackedScheme):
    """BFV with checked parameters."""

    parameters: BfvParameters
    name: str = "bfv"

    @property
    def fingerprint(self) -> str:
        """Parameters and TenSEAL's version."""
        p = self.parameters
        return (
            f"bfv/{p.poly_modulus}/{'-'.join(map(str, p.coeff_mod_bits))}/t{p.plain_modulus}"
            f"/{p.packing.fields}x{p.packing.field_bits}/{p.value_bits}x{p.max_clients}/{tenseal_version()}"
        )

    def describe(self) -> dict[str, object]:
        """The public parameters."""
        p = self.parameters
        return {
            "scheme": self.name,
            "poly_modulus": p.poly_modulus,
            "coeff_mod_bits": list(p.coeff_mod_bits),
            "plain_modulus": p.plain_modulus,
            "margin_bits": round(p.margin_bits, 2),
            "value_bits": p.value_bits,
            "max_clients": p.max_clients,
            "fields_per_slot": p.packing.fields,
            "field_bits": p.packing.field_bits,
            "security_bits": p.security,
            "exact_to_bits": round(p.exact_to_bits, 1),
            "fingerprint": self.fingerprint,
        }

    def generate_keys(self) -> KeyPair:
        """A fresh pair."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters

        def make_context() -> Any:
            return ts.context(
                ts.SCHEME_TYPE.BFV,
                p.poly_modulus,
                plain_modulus=p.plain_modulus,
                coeff_mod_bit_sizes=list(p.coeff_mod_bits),
            )

        return make_keys(make_context, p.poly_modulus, p.coeff_mod_bits)

    def encryptor(self, public: bytes) -> BfvEncryptor:
        """The client's half."""
        return BfvEncryptor(self.parameters, public_context(public))

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context, p = secret_context(secret), self.parameters
        encoder = sealapi.BatchEncoder(context.seal_context().data)

        def encode(packed: NDArray[np.int64], plaintext: Any) -> None:
            encoder.encode(packed.tolist(), plaintext)

        return seeded.SeededEncryptor(context, p.packing, p.slots, encode)

    def load(self, context: Any, chunk: bytes) -> Any:
        """One parsed ciphertext, checked."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return load(ts.bfv_vector_from, context, chunk, self.parameters, scale=1.0)

    def decryptor(self, secret: bytes) -> BfvDecryptor:
        """The key holder's half."""
        return BfvDecryptor(self, secret_context(secret))


class BfvEncryptor:
    """Packs and encrypts, one ciphertext a chunk."""

    def __init__(self, parameters: BfvParameters, context: Any) -> None:
        self._parameters, self._context = parameters, context

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """Serialised ciphertexts of int64[length]."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self._parameters
        packed = p.packing.pack(values)
        # Not ts.bfv_vector: it makes a tensor of the array and a list of that, in a fifth of the time of encryption.
        vector, context = ts._ts_cpp.BFVVector, self._context.data
        return tuple(
            vector(context, packed[i : i + p.slots].tolist()).serialize() for i in range(0, packed.size, p.slots)
        )


class BfvDecryptor:
    """Decrypts sums under the secret key."""

    def __init__(self, scheme: Bfv, context: Any) -> None:
        self._scheme, self._context = scheme, context

    def decrypt(self, chunks: Sequence[bytes], length: int) -> NDArray[np.int64]:
        """The exact sums, int64[length].

        Raises:
            CiphertextRefused: a ciphertext has no noise budget left (too many sums, or another key), or a slot lies
                outside what `max_clients` updates can sum to.
        """
        p = self._scheme.parameters
        packed = np.empty(p.packing.slots(length), np.int64)
        decryptor = self._context.decryptor().data
        start = 0
        for chunk in chunks:
            vector = self._scheme.load(self._context, chunk)
            stop = start + vector.size()
            if stop > packed.size:
                raise CiphertextRefused(f"the sum does not have {length} coordinates")
            if decryptor.invariant_noise_budget(vector.ciphertext()[0]) < 1:
                raise CiphertextRefused(
                    "the noise budget is used up: encrypted under another key, or not a sum of updates"
                )
            packed[start:stop] = vector.decrypt()
            start = stop
        if start != packed.size:
            raise CiphertextRefused(f"the sum does not have {length} coordinates")
        limit = 2 ** (p.packing.fields * p.packing.field_bits - 1)
        if packed.max(initial=0) >= limit or packed.min(initial=0) <= -limit:
            raise CiphertextRefused("the sum is out of range: not a sum of updates")
        return p.packing.unpack(packed, length)

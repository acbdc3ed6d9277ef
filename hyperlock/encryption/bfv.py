"""BFV through TenSEAL: exact integers modulo t, several signed fields to a slot.

BFV has no approximation to round away, and N slots where CKKS has N/2 real ones, so an update takes fewer bytes than it
has as float32. See `bfv_parameters.py` for the rule that keeps sums exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption.bfv_parameters import BfvParameters
from hyperlock.encryption.ciphertexts import (
    PackedDecryptor,
    PackedEncryptor,
    PackedScheme,
    make_keys,
    public_context,
    secret_context,
    tenseal_version,
)
from hyperlock.encryption.scheme import CiphertextRefused, Decryptor, Encryptor, KeyPair
from hyperlock.encryption.wire import Layout


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

    @property
    def layout(self) -> Layout:
        """Coefficients as they are, not in NTT form."""
        p = self.parameters
        return Layout(p.poly_modulus, len(p.coeff_mod_bits) - 1, ntt=False, scale=1.0)

    def read(self, context: Any, framed: bytes) -> Any:
        """TenSEAL's reader."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.bfv_vector_from(context, framed)

    def encryptor(self, public: bytes) -> Encryptor:
        """The client's half."""
        from hyperlock.encryption._tenseal import tenseal as ts

        # Not ts.bfv_vector: it makes a tensor of the array and a list of that, in a fifth of the time of encryption.
        vector, context = ts._ts_cpp.BFVVector, public_context(public).data
        return PackedEncryptor(self, lambda slots: vector(context, slots.tolist()).serialize())

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context = secret_context(secret)
        encoder = sealapi.BatchEncoder(context.seal_context().data)
        return seeded.SeededEncryptor(self, context, lambda slots, plain: encoder.encode(slots.tolist(), plain))

    def decryptor(self, secret: bytes) -> Decryptor:
        """The key holder's half."""
        context = secret_context(secret)
        decryptor = context.decryptor().data

        def decrypt_slots(vector: Any) -> NDArray[np.int64]:
            if decryptor.invariant_noise_budget(vector.ciphertext()[0]) < 1:
                raise CiphertextRefused(
                    "the noise budget is used up: encrypted under another key, or not a sum of updates"
                )
            slots = np.array(vector.decrypt(), np.int64)
            p = self.parameters
            limit = 2 ** (p.packing.fields * p.packing.field_bits - 1)
            if slots.max(initial=0) >= limit or slots.min(initial=0) <= -limit:
                raise CiphertextRefused("the sum is out of range: not a sum of updates")
            return slots

        return PackedDecryptor(self, context, decrypt_slots)

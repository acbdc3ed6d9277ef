"""BFV through TenSEAL: exact integers modulo t, several signed fields to a slot.

BFV has no approximation to round away, and N slots where CKKS has N/2 real ones, so an update takes
fewer bytes than it has as float32. See `bfv_parameters.py` for the rule that keeps sums exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption.bfv_parameters import BfvParameters, bfv_parameters
from hyperlock.encryption.ciphertexts import (
    PackedDecryptor,
    PackedEncryptor,
    PackedScheme,
    public_context,
    secret_context,
)
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import Decryptor, Encryptor
from hyperlock.errors import CiphertextRefused


def bfv(
    poly_modulus: object,
    coeff_mod_bits: object,
    fields: object,
    security: int,
    value_bits: int,
    max_clients: int,
) -> Bfv:
    """encryption=bfv.

    Args:
        poly_modulus: N, the ring's degree, or `auto`.
        coeff_mod_bits: bits of each prime, the last for SEAL's own use, or `auto`.
        fields: values in a slot, or `auto`.
        security: least classical security in bits: 128, 192 or 256.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    return Bfv(
        bfv_parameters(poly_modulus, coeff_mod_bits, fields, value_bits, max_clients, security)
    )


@dataclass(frozen=True)
class Bfv(PackedScheme):
    """BFV with checked parameters: what all parties of a run agree on. It holds no key."""

    parameters: BfvParameters
    name: str = "bfv"

    @property
    def encoding(self) -> str:
        """The plaintext modulus, as in t40961."""
        return f"t{self.parameters.plain_modulus}"

    @property
    def figures(self) -> dict[str, object]:
        """The plaintext modulus t, and by how many bits the noise stays below what it may be."""
        return {
            "plain_modulus": self.parameters.plain_modulus,
            "margin_bits": round(self.parameters.margin_bits, 2),
        }

    def new_context(self) -> Any:
        """TenSEAL's, with new keys; ValueError or RuntimeError if SEAL has no such chain."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters
        return ts.context(
            ts.SCHEME_TYPE.BFV,
            p.poly_modulus,
            plain_modulus=p.plain_modulus,
            coeff_mod_bit_sizes=list(p.coeff_mod_bits),
        )

    @property
    def layout(self) -> Layout:
        """Coefficients as they are, not in NTT form."""
        p = self.parameters
        return Layout(p.poly_modulus, len(p.coeff_mod_bits) - 1, ntt=False, scale=1.0)

    def read(self, context: Any, framed: bytes) -> Any:
        """TenSEAL's vector of a framed ciphertext; ValueError or RuntimeError if it is none."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.bfv_vector_from(context, framed)

    def encryptor(self, public: bytes) -> Encryptor:
        """The client's half, under the public key; CiphertextRefused if it is none."""
        from hyperlock.encryption._tenseal import tenseal as ts

        # Not ts.bfv_vector: it makes a tensor of the array and a list of that, in a fifth of the
        # time of encryption.
        vector = ts._ts_cpp.BFVVector
        context = public_context(public).data
        return PackedEncryptor(self, lambda slots: vector(context, slots.tolist()).serialize())

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context = secret_context(secret)
        encoder = sealapi.BatchEncoder(context.seal_context().data)
        return seeded.SeededEncryptor(
            self, context, lambda slots, plain: encoder.encode(slots.tolist(), plain)
        )

    def decryptor(self, secret: bytes) -> Decryptor:
        """The key holder's half, under the secret key."""
        context = secret_context(secret)
        decryptor = context.decryptor().data
        limit = 2 ** (self.parameters.packing.bits - 1)

        def decrypt_slots(vector: Any) -> NDArray[np.int64]:
            # Without budget, noise may have reached the message.
            if decryptor.invariant_noise_budget(vector.ciphertext()[0]) < 1:
                raise CiphertextRefused(
                    "the noise budget is used up: encrypted under another key, or not a sum of "
                    "updates"
                )
            slots = np.array(vector.decrypt(), np.int64)
            # Fields of honest sums never reach a slot's ends.
            if slots.max(initial=0) >= limit or slots.min(initial=0) <= -limit:
                raise CiphertextRefused("the sum is out of range: not a sum of updates")
            return slots

        return PackedDecryptor(self, context, decrypt_slots)

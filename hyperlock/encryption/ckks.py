"""CKKS through TenSEAL, as an exact adder of integers.

Grid integers, packed several to a slot, are encoded at a scale far above the noise; after
decryption the sum is rounded to integers, and refused unless every slot lies close to one. See
`ckks_parameters.py` for the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption.ciphertexts import (
    PackedDecryptor,
    PackedEncryptor,
    PackedScheme,
    public_context,
    secret_context,
)
from hyperlock.encryption.ckks_parameters import RESIDUE_LIMIT, CkksParameters
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import Decryptor, Encryptor
from hyperlock.errors import CiphertextRefused


@dataclass(frozen=True)
class Ckks(PackedScheme):
    """CKKS with checked parameters."""

    parameters: CkksParameters
    name: str = "ckks"

    @property
    def encoding(self) -> str:
        """The scale."""
        return f"2^{self.parameters.scale_bits}"

    @property
    def figures(self) -> dict[str, object]:
        """The scale."""
        return {"scale_bits": self.parameters.scale_bits}

    def new_context(self) -> Any:
        """TenSEAL's, with new keys."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters
        return ts.context(
            ts.SCHEME_TYPE.CKKS, p.poly_modulus, coeff_mod_bit_sizes=list(p.coeff_mod_bits)
        )

    @property
    def layout(self) -> Layout:
        """Coefficients in NTT form."""
        p = self.parameters
        return Layout(p.poly_modulus, len(p.coeff_mod_bits) - 1, ntt=True, scale=2.0**p.scale_bits)

    def read(self, context: Any, framed: bytes) -> Any:
        """TenSEAL's reader."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.ckks_vector_from(context, framed)

    def encryptor(self, public: bytes) -> Encryptor:
        """The client's half."""
        from hyperlock.encryption._tenseal import tenseal as ts

        # Not ts.ckks_vector: it makes a tensor of the array and a list of that, in a tenth of the
        # time of encryption.
        vector, context, scale = (
            ts._ts_cpp.CKKSVector,
            public_context(public).data,
            self.layout.scale,
        )
        return PackedEncryptor(
            self,
            lambda slots: vector(context, slots.astype(np.float64).tolist(), scale).serialize(),
        )

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context = secret_context(secret)
        encoder, scale = sealapi.CKKSEncoder(context.seal_context().data), self.layout.scale

        def encode(slots: NDArray[np.int64], plaintext: Any) -> None:
            encoder.encode(slots.astype(np.float64).tolist(), scale, plaintext)

        return seeded.SeededEncryptor(self, context, encode)

    def decryptor(self, secret: bytes) -> Decryptor:
        """The key holder's half."""
        context = secret_context(secret)
        return PackedDecryptor(
            self, context, lambda vector: _whole(np.array(vector.decrypt()), self.parameters)
        )


def _whole(raw: NDArray[np.float64], parameters: CkksParameters) -> NDArray[np.int64]:
    """The integers that decrypted slots stand for.

    Raises:
        CiphertextRefused: a slot lies further than 1/4 from an integer, or outside what its fields
            hold: noise too large, another key, or not a sum of grid values.
    """
    packing = parameters.packing
    if not (np.abs(raw) < 2.0 ** (packing.fields * packing.field_bits)).all():
        raise CiphertextRefused(
            "the sum is out of range: encrypted under another key, or not a sum of updates"
        )
    whole = np.rint(raw)
    # By how much is about the key, and not told.
    if np.abs(raw - whole).max(initial=0.0) > RESIDUE_LIMIT:
        raise CiphertextRefused(
            "the sum is not a vector of integers: encrypted under another key, or not a sum of "
            "updates"
        )
    return whole.astype(np.int64)

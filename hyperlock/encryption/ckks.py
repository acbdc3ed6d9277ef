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
from hyperlock.encryption.ckks_parameters import RESIDUE_LIMIT, CkksParameters, ckks_parameters
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import Decryptor, Encryptor
from hyperlock.errors import CiphertextRefused


def ckks(
    poly_modulus: int,
    coeff_mod_bits: object,
    scale_bits: object,
    security: int,
    value_bits: int,
    max_clients: int,
) -> Ckks:
    """encryption=ckks.

    Args:
        poly_modulus: N, the ring's degree.
        coeff_mod_bits: bits of each prime, the last for SEAL's own use, or `auto`.
        scale_bits: log2 of the scale, or `auto`.
        security: least classical security in bits: 128, 192 or 256.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    return Ckks(
        ckks_parameters(poly_modulus, coeff_mod_bits, scale_bits, value_bits, max_clients, security)
    )


@dataclass(frozen=True)
class Ckks(PackedScheme):
    """CKKS with checked parameters: what all parties of a run agree on. It holds no key."""

    parameters: CkksParameters
    name: str = "ckks"

    @property
    def encoding(self) -> str:
        """The scale, as in 2^23."""
        return f"2^{self.parameters.scale_bits}"

    @property
    def figures(self) -> dict[str, object]:
        """The scale, as its log2."""
        return {"scale_bits": self.parameters.scale_bits}

    def new_context(self) -> Any:
        """TenSEAL's, with new keys; ValueError or RuntimeError if SEAL has no such chain."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters
        return ts.context(
            ts.SCHEME_TYPE.CKKS, p.poly_modulus, coeff_mod_bit_sizes=list(p.coeff_mod_bits)
        )

    @property
    def layout(self) -> Layout:
        """Coefficients in NTT form, and the scale behind them."""
        p = self.parameters
        return Layout(p.poly_modulus, len(p.coeff_mod_bits) - 1, ntt=True, scale=2.0**p.scale_bits)

    def read(self, context: Any, framed: bytes) -> Any:
        """TenSEAL's vector of a framed ciphertext; ValueError or RuntimeError if it is none."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.ckks_vector_from(context, framed)

    def encryptor(self, public: bytes) -> Encryptor:
        """The client's half, under the public key; CiphertextRefused if it is none."""
        from hyperlock.encryption._tenseal import tenseal as ts

        # Not ts.ckks_vector: it makes a tensor of the array and a list of that, in a tenth of the
        # time of encryption.
        vector = ts._ts_cpp.CKKSVector
        context = public_context(public).data
        scale = self.layout.scale

        def encrypt_slots(slots: NDArray[np.int64]) -> bytes:
            return vector(context, slots.astype(np.float64).tolist(), scale).serialize()

        return PackedEncryptor(self, encrypt_slots)

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context = secret_context(secret)
        encoder = sealapi.CKKSEncoder(context.seal_context().data)
        scale = self.layout.scale

        def encode(slots: NDArray[np.int64], plaintext: Any) -> None:
            encoder.encode(slots.astype(np.float64).tolist(), scale, plaintext)

        return seeded.SeededEncryptor(self, context, encode)

    def decryptor(self, secret: bytes) -> Decryptor:
        """The key holder's half, under the secret key."""
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
    if not (np.abs(raw) < 2.0**packing.bits).all():
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

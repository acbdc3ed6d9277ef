"""CKKS through TenSEAL, as an exact adder of integers.

Grid integers, packed several to a slot, are encoded at a scale far above the noise; after decryption the sum
is rounded to integers, and refused unless every slot lies close to one. See `ckks_parameters.py` for the bound.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption.ciphertexts import (
    PackedScheme,
    load,
    make_keys,
    public_context,
    secret_context,
    tenseal_version,
)
from hyperlock.encryption.ckks_parameters import RESIDUE_LIMIT, CkksParameters
from hyperlock.encryption.scheme import CiphertextRefused, Encryptor, KeyPair


@dataclass(frozen=True)
class Ckks(PackedScheme):
    """CKKS with checked parameters."""

    parameters: CkksParameters
    name: str = "ckks"

    @property
    def fingerprint(self) -> str:
        """Parameters and TenSEAL's version."""
        p = self.parameters
        return (
            f"ckks/{p.poly_modulus}/{'-'.join(map(str, p.coeff_mod_bits))}/2^{p.scale_bits}"
            f"/{p.packing.fields}x{p.packing.field_bits}/{p.value_bits}x{p.max_clients}/{tenseal_version()}"
        )

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
            "exact_to_bits": round(p.exact_to_bits, 1),
            "fingerprint": self.fingerprint,
        }

    def generate_keys(self) -> KeyPair:
        """A fresh pair."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters

        def make_context() -> Any:
            return ts.context(ts.SCHEME_TYPE.CKKS, p.poly_modulus, coeff_mod_bit_sizes=list(p.coeff_mod_bits))

        return make_keys(make_context, p.poly_modulus, p.coeff_mod_bits)

    def encryptor(self, public: bytes) -> CkksEncryptor:
        """The client's half."""
        return CkksEncryptor(self.parameters, public_context(public))

    def symmetric_encryptor(self, secret: bytes) -> Encryptor | None:
        """For clients that hold the secret key: half the bytes, where the platform can."""
        if not seeded.available:
            return None
        from hyperlock.encryption._tenseal import sealapi

        context, p = secret_context(secret), self.parameters
        encoder, scale = sealapi.CKKSEncoder(context.seal_context().data), 2.0**p.scale_bits

        def encode(packed: NDArray[np.int64], plaintext: Any) -> None:
            encoder.encode(packed.astype(np.float64).tolist(), scale, plaintext)

        suffix = b"\x19" + struct.pack("<d", scale)  # field 3, the scale
        return seeded.SeededEncryptor(context, p.packing, p.slots, encode, suffix)

    def load(self, context: Any, chunk: bytes) -> Any:
        """One parsed ciphertext, checked."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return load(ts.ckks_vector_from, context, chunk, self.parameters, scale=2.0**self.parameters.scale_bits)

    def decryptor(self, secret: bytes) -> CkksDecryptor:
        """The key holder's half."""
        return CkksDecryptor(self, secret_context(secret))


class CkksEncryptor:
    """Packs and encrypts, one ciphertext a chunk."""

    def __init__(self, parameters: CkksParameters, context: Any) -> None:
        self._parameters, self._context = parameters, context

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """Serialised ciphertexts of int64[length]."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self._parameters
        packed = p.packing.pack(values)
        # Not ts.ckks_vector: it makes a tensor of the array and a list of that, in a tenth of the time of encryption.
        vector, context, scale = ts._ts_cpp.CKKSVector, self._context.data, 2.0**p.scale_bits
        return tuple(
            vector(context, packed[i : i + p.slots].astype(np.float64).tolist(), scale).serialize()
            for i in range(0, packed.size, p.slots)
        )


class CkksDecryptor:
    """Decrypts sums under the secret key. Its repr shows nothing."""

    def __init__(self, scheme: Ckks, context: Any) -> None:
        self._scheme, self._context = scheme, context

    def decrypt(self, chunks: Sequence[bytes], length: int) -> NDArray[np.int64]:
        """The exact sums, int64[length].

        Raises:
            CiphertextRefused: a slot lies further than 1/4 from an integer, or outside what `max_clients`
                updates can sum to: noise too large, another key, or not a sum of grid values.
        """
        p = self._scheme.parameters
        packed = np.empty(p.packing.slots(length), np.int64)
        start = 0
        for chunk in chunks:
            vector = self._scheme.load(self._context, chunk)
            stop = start + vector.size()
            if stop > packed.size:
                raise CiphertextRefused(f"the sum does not have {length} coordinates")
            packed[start:stop] = _whole(np.array(vector.decrypt()), p)
            start = stop
        if start != packed.size:
            raise CiphertextRefused(f"the sum does not have {length} coordinates")
        return p.packing.unpack(packed, length)


def _whole(raw: NDArray[np.float64], parameters: CkksParameters) -> NDArray[np.float64]:
    """The integers that decrypted slots stand for, if they certainly stand for integers."""
    packing = parameters.packing
    if not (np.abs(raw) < 2.0 ** (packing.fields * packing.field_bits)).all():
        raise CiphertextRefused("the sum is out of range: encrypted under another key, or not a sum of updates")
    whole = np.rint(raw)
    residue = float(np.abs(raw - whole).max(initial=0.0))
    if residue > RESIDUE_LIMIT:
        raise CiphertextRefused(
            f"the sum is not a vector of integers (residue {residue:.3f}, at most {RESIDUE_LIMIT} allowed): "
            "encrypted under another key, or not a sum of updates"
        )
    return whole

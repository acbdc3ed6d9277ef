"""CKKS through TenSEAL's SEAL, as an exact adder of integers.

Grid integers, packed several to the real and several to the imaginary part of a slot, are encoded
at a scale far above the noise; after decryption the sum is rounded to integers, and refused unless
both parts of every slot lie close to one. See `ckks_parameters.py` for the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.ckks_parameters import RESIDUE_LIMIT, CkksParameters, ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.seal import Scratch
from hyperlock.errors import CiphertextRefused


def ckks(
    poly_modulus: object,
    coeff_mod_bits: object,
    scale_bits: object,
    security: int,
    extent: Extent,
    max_clients: int,
    length: int,
) -> Ckks:
    """encryption=ckks.

    Args:
        poly_modulus: N, the ring's degree, or `auto`.
        coeff_mod_bits: bits of each prime, the last for SEAL's own use, or `auto`.
        scale_bits: log2 of the scale, or `auto`.
        security: least classical security in bits: 128, 192 or 256.
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        length: coordinates of the vectors that are encrypted, by which `auto` chooses.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    return Ckks(
        ckks_parameters(
            poly_modulus, coeff_mod_bits, scale_bits, extent, max_clients, security, length
        )
    )


@dataclass(frozen=True)
class Ckks(PackedScheme):
    """CKKS with checked parameters: what all parties of a run agree on. It holds no key."""

    parameters: CkksParameters
    name: str = "ckks"
    ntt: bool = True

    @property
    def encoding(self) -> str:
        """The scale of complex slots, as in c2^19."""
        return f"c2^{self.parameters.scale_bits}"

    @property
    def figures(self) -> dict[str, object]:
        """The scale, as its log2."""
        return {"scale_bits": self.parameters.scale_bits}

    @property
    def scale(self) -> float:
        """D."""
        return 2.0**self.parameters.scale_bits

    def new_context(self) -> Any:
        """TenSEAL's, with new keys; ValueError or RuntimeError if SEAL has no such chain."""
        from hyperlock.encryption._tenseal import tenseal as ts

        p = self.parameters
        return ts.context(
            ts.SCHEME_TYPE.CKKS, p.poly_modulus, coeff_mod_bit_sizes=list(p.coeff_mod_bits)
        )

    def codec(self, context: Any) -> ComplexSlots:
        """Two packed integers in each complex slot."""
        return ComplexSlots(self.parameters, self.scale, context)


class ComplexSlots:
    """Packed integers in N/2 complex slots: real parts first, then imaginary parts.

    It keeps nothing between calls: the clients of a process may share it.

    Args:
        parameters: ring and packing.
        scale: D.
        context: SEAL's.
    """

    def __init__(self, parameters: CkksParameters, scale: float, context: Any) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._half = parameters.poly_modulus // 2
        self._limit = 2.0**parameters.packing.bits
        self._scale = scale
        self._encoder = sealapi.CKKSEncoder(context)
        self._new_plaintext = sealapi.Plaintext

    def encode(self, file: Scratch, slots: NDArray[np.int64]) -> Any:
        """SEAL's plaintext of int64[count], count up to N."""
        parts = np.zeros((2, self._half), np.float64)
        parts.reshape(-1)[: slots.size] = slots
        plaintext = self._new_plaintext()
        self._encoder.encode((parts[0] + 1j * parts[1]).tolist(), self._scale, plaintext)
        return plaintext

    def decrypt(self, file: Scratch, decryptor: Any, ciphertext: Any) -> NDArray[np.int64]:
        """int64[N]: the integers that both parts of all slots stand for.

        Raises:
            CiphertextRefused: a part lies further than 1/4 from an integer, or outside what its
                fields hold: noise too large, another key, or not a sum of grid values.
        """
        plaintext = self._new_plaintext()
        decryptor.decrypt(ciphertext, plaintext)
        raw = np.array(self._encoder.decode_complex(plaintext))
        return whole(np.concatenate([raw.real, raw.imag]), self._limit)


def whole(raw: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """The integers below `limit` that decrypted parts stand for, or CiphertextRefused."""
    if not (np.abs(raw) < limit).all():
        raise CiphertextRefused(
            "the sum is out of range: encrypted under another key, or not a sum of updates"
        )
    integers = np.rint(raw)
    # By how much is about the key, and not told.
    if np.abs(raw - integers).max(initial=0.0) > RESIDUE_LIMIT:
        raise CiphertextRefused(
            "the sum is not a vector of integers: encrypted under another key, or not a sum of "
            "updates"
        )
    return integers.astype(np.int64)

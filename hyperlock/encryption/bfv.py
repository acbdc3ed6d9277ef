"""BFV through TenSEAL's SEAL: exact integers modulo t, several signed fields to a coefficient.

BFV has no approximation to round away, so an update takes fewer bytes than it has as float32. See
`bfv_parameters.py` for the rule that keeps sums exact, and for the guard: the first coefficients of
every ciphertext are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seal
from hyperlock.encryption.bfv_parameters import RESERVED, BfvParameters, bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.seal import Scratch
from hyperlock.errors import CiphertextRefused


def bfv(
    poly_modulus: object,
    coeff_mod_bits: object,
    fields: object,
    security: int,
    extent: Extent,
    max_clients: int,
    length: int,
) -> Bfv:
    """encryption=bfv.

    Args:
        poly_modulus: N, the ring's degree, or `auto`.
        coeff_mod_bits: bits of each prime, the last for SEAL's own use, or `auto`.
        fields: values in a coefficient, or `auto`.
        security: least classical security in bits: 128, 192 or 256.
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        length: coordinates of the vectors that are encrypted, by which `auto` chooses.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    return Bfv(
        bfv_parameters(poly_modulus, coeff_mod_bits, fields, extent, max_clients, security, length)
    )


@dataclass(frozen=True)
class Bfv(PackedScheme):
    """BFV with checked parameters: what all parties of a run agree on. It holds no key."""

    parameters: BfvParameters
    name: str = "bfv"
    ntt: bool = False

    @property
    def encoding(self) -> str:
        """The plaintext modulus and the coefficients that are zero, as in t4099-z64."""
        return f"t{self.parameters.plain_modulus}-z{RESERVED}"

    @property
    def figures(self) -> dict[str, object]:
        """The plaintext modulus t, by how many bits the noise stays below what it may be, how many
        coefficients are zero, and how many bits of c0 are dropped."""
        p = self.parameters
        return {
            "plain_modulus": p.plain_modulus,
            "margin_bits": round(p.margin_bits, 2),
            "reserved_zeros": RESERVED,
            "dropped_bits": p.layout.dropped,
            "dropped_bits_seeded": p.layout.dropped_seeded,
        }

    @property
    def scale(self) -> float:
        """BFV has none; SEAL writes 1."""
        return 1.0

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

    def codec(self, context: Any) -> Coefficients:
        """Slots are coefficients, behind the zeros."""
        return Coefficients(self.parameters, context)


class Coefficients:
    """Packed integers as coefficients of the plaintext polynomial, modulo t.

    It keeps nothing between calls: the clients of a process may share it.

    Args:
        parameters: ring, t and packing.
        context: SEAL's.
    """

    def __init__(self, parameters: BfvParameters, context: Any) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._degree = parameters.poly_modulus
        self._t = parameters.plain_modulus
        self._limit = 2 ** (parameters.packing.bits - 1)
        self._context = context
        self._new_plaintext = sealapi.Plaintext

    def encode(self, file: Scratch, slots: NDArray[np.int64]) -> Any:
        """SEAL's plaintext: zeros, int64[count] modulo t, zeros."""
        coefficients = np.zeros(self._degree, np.int64)
        coefficients[RESERVED : RESERVED + slots.size] = np.where(slots < 0, slots + self._t, slots)
        return seal.encode(file, self._context, coefficients.view(np.uint64))

    def decrypt(self, file: Scratch, decryptor: Any, ciphertext: Any) -> NDArray[np.int64]:
        """All coefficients but the reserved ones, int64[N - RESERVED], centred around 0."""
        # Without budget, noise may have reached the message.
        if decryptor.invariant_noise_budget(ciphertext) < 1:
            raise CiphertextRefused(
                "the noise budget is used up: encrypted under another key, or not a sum of updates"
            )
        plaintext = self._new_plaintext()
        decryptor.decrypt(ciphertext, plaintext)
        coefficients = seal.decode(file, plaintext, self._degree).view(np.int64)
        # What a sum of updates never has, and a multiple of the key has nearly always.
        if coefficients[:RESERVED].any():
            raise CiphertextRefused(
                "the sum is not zero where every update is: not a sum of updates"
            )
        slots = coefficients[RESERVED:]
        slots[slots > self._t // 2] -= self._t
        # Fields of honest sums never reach a coefficient's ends.
        if slots.max() >= self._limit or slots.min() <= -self._limit:
            raise CiphertextRefused("the sum is out of range: not a sum of updates")
        return slots

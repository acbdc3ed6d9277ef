"""Choosing CKKS parameters whose sums are exact.

The server adds K fresh public-key ciphertexts, each holding integers at scale D. A slot's noise has
the standard deviation

    sigma_slot = sqrt(N / 2 * (1 + 2N/3) / 12) * sqrt(K)

over D (K=1: 683 at N=4096; 1,365 at N=8192; measured within 2%), and the exponential tail that
`noise.slot_bits` bounds. A sum is rounded to integers, and refused when a slot lies further than
1/4 from one. Of this quarter, 3/16 are for the noise: D must be so large that a slot exceeds them
with a probability of at most 2^-64, so that an honest coordinate is neither wrong nor refused but
once in 2^64. The other 1/16 covers double-precision rounding in the transforms, which grows with
the size of the packed integers and not with the noise (0.003 seen, at the largest sums that
`max_sum_bits` allows).

A wrong integer is not released unless noise leaps over the refused band, from 1/4 to 3/4 of the
grid's step: it would have to reach 11/16, where the same bound gives `undetected_bits`, beyond 240
for every choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperlock.encryption.noise import least_allowed, slot_bits
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    EXACT_BITS,
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    SECURITY_LIMITS,
    check_security,
    data_modulus_bits,
    not_exact_enough,
    read_chain,
    read_integer,
)
from hyperlock.errors import ConfigError

RESIDUE_LIMIT = 1 / 4
_NOISE_SHARE, _ROUNDING_SHARE = 3 / 16, 1 / 16
_AUTO_SCALE_CEILING = 40  # more buys nothing, and SEAL encodes past 64 bits more slowly


@dataclass(frozen=True)
class CkksParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree; N/2 slots a ciphertext.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext
            carries.
        scale_bits: log2 of the scale D.
        packing: fields in a slot.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.
        security_bits: the best level of `SECURITY_LIMITS` that the chain stays under.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    scale_bits: int
    packing: Packing
    value_bits: int
    max_clients: int
    security_bits: int

    @property
    def slots(self) -> int:
        """Slots of one ciphertext."""
        return self.poly_modulus // 2

    @property
    def data_bits(self) -> int:
        """Bits of the primes that a ciphertext carries."""
        return sum(self.coeff_mod_bits[:-1])

    @property
    def exact_to_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is refused or not exact; at
        least 64."""
        return slot_bits(self.poly_modulus, self.max_clients, _NOISE_SHARE * 2.0**self.scale_bits)

    @property
    def margin_bits(self) -> float:
        """log2 of the scale over the smallest that keeps sums exact; never negative."""
        return self.scale_bits - min_scale_bits(self.poly_modulus, self.max_clients)

    @property
    def undetected_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is released and wrong."""
        leap = 1 - RESIDUE_LIMIT - _ROUNDING_SHARE
        return slot_bits(self.poly_modulus, self.max_clients, leap * 2.0**self.scale_bits)


def ckks_parameters(
    poly_modulus: int,
    coeff_mod_bits: object,
    scale_bits: object,
    value_bits: int,
    max_clients: int,
    security: int,
) -> CkksParameters:
    """Complete and check a CKKS choice.

    `auto` for the chain takes one prime for the data, as long as security allows up to 60 bits, and
    a short special prime, since nothing is ever key-switched. As many fields as fit are packed into
    a slot. `auto` for the scale takes what the fields leave, so that the noise is as far below the
    grid as it can be.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    check_security(poly_modulus, (), security)
    limit = SECURITY_LIMITS[security][poly_modulus]
    chain = _auto_chain(limit) if coeff_mod_bits == "auto" else read_chain(coeff_mod_bits)
    level = check_security(poly_modulus, chain, security)

    field_bits = value_bits + math.ceil(math.log2(max_clients))
    # One bit is left free, so that sum * scale stays away from the modulus' ends with all its
    # noise; the tenth is what primes just below a power of two lack.
    capacity = math.floor(data_modulus_bits(poly_modulus, chain) + 0.1) - 1
    smallest = min_scale_bits(poly_modulus, max_clients)
    exact_fields = max_sum_bits(poly_modulus) // field_bits
    if exact_fields < 1:
        raise ConfigError(
            "encryption.value_bits",
            value_bits,
            f"sums of {max_clients} clients take {field_bits} bits, more than double precision "
            "keeps exact",
            allowed=f"at most {max_sum_bits(poly_modulus) - field_bits + value_bits}",
            hint="encryption.value_bits=16",
        )
    largest = capacity - field_bits
    if largest < smallest:
        raise ConfigError(
            "encryption.coeff_mod_bits",
            chain,
            f"the data primes hold {capacity + 1} bits; a sum of {max_clients} clients at "
            f"{value_bits} bits "
            f"needs {field_bits} and a scale of at least {smallest}",
            allowed=f"data primes of at least {field_bits + smallest + 1} bits together",
            hint="a larger encryption.poly_modulus, or a smaller encryption.value_bits",
        )
    if scale_bits == "auto":
        fields = min((capacity - smallest) // field_bits, exact_fields)
        scale = min(capacity - fields * field_bits, _AUTO_SCALE_CEILING)
    else:
        scale = read_integer("encryption.scale_bits", scale_bits)
        advice = {"allowed": f"{smallest} to {largest}", "hint": "encryption.scale_bits=auto"}
        if scale > largest:
            problem = (
                f"too large for the grid: {field_bits} bits of sum times the scale overflow the "
                f"{capacity + 1} bits of the data primes"
            )
            raise ConfigError("encryption.scale_bits", scale, problem, **advice)
        if scale < smallest:
            bits = slot_bits(poly_modulus, max_clients, _NOISE_SHARE * 2.0**scale)
            problem = (
                f"too small for the grid: the noise of a sum of {max_clients} ciphertexts "
                "would reach it"
            )
            raise not_exact_enough(bits, "encryption.scale_bits", scale, problem, **advice)
        fields = min((capacity - scale) // field_bits, exact_fields)
    return CkksParameters(
        poly_modulus, chain, scale, Packing(fields, field_bits), value_bits, max_clients, level
    )


def ckks_noise(poly_modulus: int, clients: int) -> float:
    """Standard deviation, at scale 1, of a slot of the sum of `clients` fresh ciphertexts."""
    return math.sqrt(clients * poly_modulus / 2 * (1 + 2 * poly_modulus / 3) / 12)


def min_scale_bits(poly_modulus: int, max_clients: int) -> int:
    """The smallest log2 scale at which a slot's noise stays below 3/16 but once in 2^64."""
    allowed = least_allowed(lambda noise: slot_bits(poly_modulus, max_clients, noise), EXACT_BITS)
    return math.ceil(math.log2(allowed / _NOISE_SHARE))


def max_sum_bits(poly_modulus: int) -> int:
    """Bits of the largest packed sum whose rounding error in double precision stays below 1/16.

    The transforms' relative error is taken as 8 log2(N) units of 2^-53.
    """
    return math.floor(math.log2(_ROUNDING_SHARE * 2**53 / (8 * math.log2(poly_modulus)))) + 1


def _auto_chain(limit: int) -> tuple[int, int]:
    special = min(max(limit - MAX_PRIME_BITS, MIN_PRIME_BITS), 30)
    return min(MAX_PRIME_BITS, limit - special), special

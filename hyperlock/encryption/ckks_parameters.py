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
from functools import lru_cache

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
    sum_bits,
)
from hyperlock.errors import ConfigError

RESIDUE_LIMIT = 1 / 4
_NOISE_SHARE = 3 / 16
_ROUNDING_SHARE = 1 / 16
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
        """Slots of one ciphertext: N/2, for they are complex."""
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
        # Up to 1/4 short of the next integer, where it is no longer refused, less rounding's share.
        leap = 1 - RESIDUE_LIMIT - _ROUNDING_SHARE
        return slot_bits(self.poly_modulus, self.max_clients, leap * 2.0**self.scale_bits)


@dataclass(frozen=True)
class Candidate:
    """A secure ring and chain before a scale is chosen: what a slot has room for.

    Attributes:
        poly_modulus: N.
        coeff_mod_bits: the chain, special prime included.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    value_bits: int
    max_clients: int

    @property
    def field_bits(self) -> int:
        """Bits of one field, which holds every sum."""
        return sum_bits(self.value_bits, self.max_clients)

    @property
    def capacity(self) -> int:
        """Bits for the scale and the fields together.

        One bit is left free, so that sum * scale stays away from the modulus' ends with all its
        noise; the tenth is what primes just below a power of two lack.
        """
        modulus_bits = data_modulus_bits(self.poly_modulus, self.coeff_mod_bits)
        return math.floor(modulus_bits + 0.1) - 1

    @property
    def min_scale(self) -> int:
        """log2 of the smallest scale that keeps sums exact."""
        return min_scale_bits(self.poly_modulus, self.max_clients)

    @property
    def max_scale(self) -> int:
        """log2 of the largest scale that leaves room for one field."""
        return self.capacity - self.field_bits

    @property
    def most_fields(self) -> int:
        """Fields that double precision keeps exact, whatever the chain."""
        return max_sum_bits(self.poly_modulus) // self.field_bits

    @property
    def auto_scale(self) -> int:
        """log2 of the scale that as many fields as possible leave, so that the noise is as far
        below the grid as it can be."""
        left = self.capacity - self.fields_at(self.min_scale) * self.field_bits
        return min(left, _AUTO_SCALE_CEILING)

    def fields_at(self, scale_bits: int) -> int:
        """Fields that a slot holds at this scale: what the chain leaves, and what stays exact."""
        return min((self.capacity - scale_bits) // self.field_bits, self.most_fields)


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
    # A ring and a chain that are secure.
    check_security(poly_modulus, (), security)
    if coeff_mod_bits == "auto":
        chain = _auto_chain(SECURITY_LIMITS[security][poly_modulus])
    else:
        chain = read_chain(coeff_mod_bits)
    level = check_security(poly_modulus, chain, security)

    # Room for a field at some scale.
    candidate = Candidate(poly_modulus, chain, value_bits, max_clients)
    if candidate.most_fields < 1:
        raise _sums_too_large(candidate)
    if candidate.max_scale < candidate.min_scale:
        raise _chain_too_short(candidate)

    # The scale, and as many fields as it leaves room for.
    scale = candidate.auto_scale if scale_bits == "auto" else _read_scale(scale_bits, candidate)
    return CkksParameters(
        poly_modulus=poly_modulus,
        coeff_mod_bits=chain,
        scale_bits=scale,
        packing=Packing(candidate.fields_at(scale), candidate.field_bits),
        value_bits=value_bits,
        max_clients=max_clients,
        security_bits=level,
    )


def ckks_noise(poly_modulus: int, clients: int) -> float:
    """Standard deviation, at scale 1, of a slot of the sum of `clients` fresh ciphertexts."""
    return math.sqrt(clients * poly_modulus / 2 * (1 + 2 * poly_modulus / 3) / 12)


@lru_cache
def min_scale_bits(poly_modulus: int, max_clients: int) -> int:
    """The smallest log2 scale at which a slot's noise stays below 3/16 but once in 2^64."""
    allowed = least_allowed(lambda noise: slot_bits(poly_modulus, max_clients, noise), EXACT_BITS)
    return math.ceil(math.log2(allowed / _NOISE_SHARE))


def max_sum_bits(poly_modulus: int) -> int:
    """Bits of the largest packed sum whose rounding error in double precision stays below 1/16.

    The transforms' relative error is taken as 8 log2(N) units of 2^-53.
    """
    return math.floor(math.log2(_ROUNDING_SHARE * 2**53 / (8 * math.log2(poly_modulus)))) + 1


def _auto_chain(limit: int) -> tuple[int, ...]:
    """One data prime and a special prime of `limit` bits together, or less."""
    special = min(max(limit - MAX_PRIME_BITS, MIN_PRIME_BITS), 30)
    return min(MAX_PRIME_BITS, limit - special), special


def _read_scale(value: object, candidate: Candidate) -> int:
    """`encryption.scale_bits` as an integer between the smallest and the largest scale, or
    ConfigError."""
    scale = read_integer("encryption.scale_bits", value)
    clients = candidate.max_clients
    allowed = f"{candidate.min_scale} to {candidate.max_scale}"
    hint = "encryption.scale_bits=auto"
    if scale > candidate.max_scale:
        raise ConfigError(
            "encryption.scale_bits",
            scale,
            f"too large for the grid: {candidate.field_bits} bits of sum times the scale overflow "
            f"the {candidate.capacity + 1} bits of the data primes",
            allowed=allowed,
            hint=hint,
        )
    if scale < candidate.min_scale:
        raise not_exact_enough(
            slot_bits(candidate.poly_modulus, clients, _NOISE_SHARE * 2.0**scale),
            "encryption.scale_bits",
            scale,
            f"too small for the grid: the noise of a sum of {clients} ciphertexts would reach it",
            allowed=allowed,
            hint=hint,
        )
    return scale


def _sums_too_large(candidate: Candidate) -> ConfigError:
    """Why there is no packing: not even one field is exact in double precision."""
    beyond = candidate.field_bits - max_sum_bits(candidate.poly_modulus)
    return ConfigError(
        "encryption.value_bits",
        candidate.value_bits,
        f"sums of {candidate.max_clients} clients take {candidate.field_bits} bits, more than "
        "double precision keeps exact",
        allowed=f"at most {candidate.value_bits - beyond}",
        hint="encryption.value_bits=16",
    )


def _chain_too_short(candidate: Candidate) -> ConfigError:
    """Why there is no scale: the data primes do not hold one field and the smallest."""
    needed = candidate.field_bits + candidate.min_scale + 1
    return ConfigError(
        "encryption.coeff_mod_bits",
        candidate.coeff_mod_bits,
        f"the data primes hold {candidate.capacity + 1} bits; a sum of {candidate.max_clients} "
        f"clients at {candidate.value_bits} bits needs {candidate.field_bits} and a scale of at "
        f"least {candidate.min_scale}",
        allowed=f"data primes of at least {needed} bits together",
        hint="a larger encryption.poly_modulus, or a smaller encryption.value_bits",
    )

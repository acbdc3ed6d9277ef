"""Choosing CKKS parameters whose sums are exact.

The server adds K fresh public-key ciphertexts, each holding integers at scale D, one in the real
and one in the imaginary part of each of N/2 complex slots. Either part's noise has the standard
deviation

    sigma_slot = sqrt(N / 2 * (1 + 2N/3) / 12) * sqrt(K)

over D (K=1: 683 at N=4096; 1,365 at N=8192; measured within 2%), and the exponential tail that
`noise.slot_bits` bounds. A sum is rounded to integers, and refused when a part lies further than
1/4 from one. Of this quarter, 3/16 are for the noise: D must be so large that a part exceeds them
with a probability of at most 2^-64, so that an honest coordinate is neither wrong nor refused but
once in 2^64. The other 1/16 covers double-precision rounding in the transforms, which grows with
the size of the packed integers and not with the noise (0.004 seen, at the largest sums that
`max_sum_bits` allows).

A wrong integer is not released unless noise leaps over the refused band, from 1/4 to 3/4 of the
grid's step: it would have to reach 11/16, where the same bound gives `undetected_bits`, beyond 240
for every choice.

Guard. Who can add round(D p) to c1 of what is decrypted adds p * s to the plaintext, s being the
secret key: in each slot a multiple of s(z), which is no integer but near one by chance. A part that
is uniform modulo 1 lies within 1/4 of an integer with a probability of 1/2, a complex slot with
2^-2; no p makes p * s near integers in every slot but those that say nothing. So a forgery of k
slots passes with 2^-2k, before its values must be in range too. A slot gives away at most the bits
of two packed integers, and the key has N log2(3): the whole of it takes
N log2(3) / (2 packing.bits) slots or more, and passes with at most `forgery_bits`. Unlike BFV's
guard this one leaves a single slot to chance (1 in 4): a few equations out of N, from which no key
is known to be found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.noise import least_allowed, slot_bits
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    EXACT_BITS,
    MANY,
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    automatic_limit,
    check_security,
    ciphertexts,
    data_modulus_bits,
    data_primes,
    fitting_rings,
    not_exact_enough,
    read_chain,
    read_integer,
    rings,
    smallest_ring,
)
from hyperlock.errors import ConfigError

RESIDUE_LIMIT = 1 / 4
_NOISE_SHARE = 3 / 16
_ROUNDING_SHARE = 1 / 16
_AUTO_SCALE_CEILING = 40  # more buys nothing, and SEAL encodes past 64 bits more slowly
_SPECIAL_BITS = 30  # as long as nothing is key-switched, any prime far above the noise does


@dataclass(frozen=True)
class CkksParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree; N/2 complex slots a ciphertext.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext
            carries.
        scale_bits: log2 of the scale D.
        packing: fields in each part of a slot.
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        security_bits: the best level of `SECURITY_LIMITS` that the chain stays under.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    scale_bits: int
    packing: Packing
    extent: Extent
    max_clients: int
    security_bits: int

    @property
    def slots(self) -> int:
        """Packed integers of one ciphertext: N/2 real parts, then as many imaginary ones."""
        return self.poly_modulus

    @property
    def layout(self) -> Layout:
        """Of its ciphertexts."""
        return Layout(self.poly_modulus, data_primes(self.poly_modulus, self.coeff_mod_bits))

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

    @property
    def forgery_bits(self) -> float:
        """-log2 of the probability that forged sums which give away the whole key are released."""
        return 2 * math.ceil(self.poly_modulus * math.log2(3) / (2 * self.packing.bits))


@dataclass(frozen=True)
class Candidate:
    """A secure ring and chain, with or without a scale: what a slot has room for.

    Attributes:
        poly_modulus: N.
        coeff_mod_bits: the chain, special prime included.
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        set_scale: log2 of the scale; None to take what the fields leave.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    extent: Extent
    max_clients: int
    set_scale: int | None = None

    @property
    def field_bits(self) -> int:
        """Bits of one field, which holds every sum."""
        return self.extent.sum_bits(self.max_clients)

    @property
    def capacity(self) -> int:
        """Bits for the scale and the fields together.

        One bit is left free, so that sum * scale stays away from the modulus' ends with all its
        noise: a coefficient is at most the largest slot, sqrt(2) times the largest part. The tenth
        is what primes just below a power of two lack.
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
    def fields(self) -> int:
        """Fields of a part: what the chain leaves beside the scale, and what stays exact."""
        scale = self.min_scale if self.set_scale is None else self.set_scale
        return min((self.capacity - scale) // self.field_bits, self.most_fields)

    @property
    def scale(self) -> int:
        """log2 of the scale: as set, or what as many fields as possible leave, so that the noise is
        as far below the grid as it can be."""
        if self.set_scale is not None:
            return self.set_scale
        return min(self.capacity - self.fields * self.field_bits, _AUTO_SCALE_CEILING)

    @property
    def is_exact(self) -> bool:
        """Whether there is room for a field at its scale, and that is not too small."""
        return self.fields >= 1 and self.scale >= self.min_scale

    def bytes(self, length: int) -> int:
        """Of the ciphertexts of a vector of so many values, made with the public key."""
        packed = Packing(self.fields, self.field_bits).slots(length)
        primes = data_primes(self.poly_modulus, self.coeff_mod_bits)
        return (
            ciphertexts(packed, self.poly_modulus) * Layout(self.poly_modulus, primes).whole_bytes
        )


def ckks_parameters(
    poly_modulus: object,
    coeff_mod_bits: object,
    scale_bits: object,
    extent: Extent,
    max_clients: int,
    security: int,
    length: int = MANY,
) -> CkksParameters:
    """Complete and check a choice; each of the first three may be `auto`.

    As many fields as fit are packed into each part of a slot. `auto` for the chain takes one prime
    for the data, no longer than its fields and the scale need, and a short special prime, since
    nothing is ever key-switched; `auto` for the scale takes what the fields leave. Of all that is
    secure and exact, the fewest bytes for a vector of `length` values win; of rings that differ
    little, the smaller (`parameters.smallest_ring`).

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    # Rings and chains that are secure.
    allowed = rings(poly_modulus, security)
    scale = None
    if scale_bits != "auto":
        scale = read_integer("encryption.scale_bits", scale_bits)
    about = (extent, max_clients, scale)
    if coeff_mod_bits == "auto":
        candidates = [
            Candidate(ring, chain, *about)
            for ring in allowed
            for chain in _auto_chains(automatic_limit(ring, security))
        ]
    else:
        chain = read_chain(coeff_mod_bits)
        fitting = fitting_rings(chain, allowed, security)
        candidates = [Candidate(ring, chain, *about) for ring in fitting]

    # The best of those that have room for a field at a scale that is exact; or, if none has, why.
    exact = [candidate for candidate in candidates if candidate.is_exact]
    if not candidates:
        raise _no_secure_chain(allowed[-1], security)
    if not exact:
        raise _not_exact(max(candidates, key=lambda found: found.max_scale - found.min_scale))
    best = smallest_ring(exact, length)
    return CkksParameters(
        poly_modulus=best.poly_modulus,
        coeff_mod_bits=best.coeff_mod_bits,
        scale_bits=best.scale,
        packing=Packing(best.fields, best.field_bits),
        extent=extent,
        max_clients=max_clients,
        security_bits=check_security(best.poly_modulus, best.coeff_mod_bits, security),
    )


def ckks_noise(poly_modulus: int, clients: int) -> float:
    """Standard deviation, at scale 1, of either part of a slot of the sum of `clients` fresh
    ciphertexts."""
    return math.sqrt(clients * poly_modulus / 2 * (1 + 2 * poly_modulus / 3) / 12)


@lru_cache
def min_scale_bits(poly_modulus: int, max_clients: int) -> int:
    """The smallest log2 scale at which a part's noise stays below 3/16 but once in 2^64."""
    allowed = least_allowed(lambda noise: slot_bits(poly_modulus, max_clients, noise), EXACT_BITS)
    return math.ceil(math.log2(allowed / _NOISE_SHARE))


def max_sum_bits(poly_modulus: int) -> int:
    """Bits of the largest packed sum whose rounding error in double precision stays below 1/16.

    The transforms' relative error is taken as 8 log2(N) units of 2^-53, of a slot that is sqrt(2)
    times as large as each of its parts.
    """
    units = 8 * math.log2(poly_modulus) * math.sqrt(2)
    return math.floor(math.log2(_ROUNDING_SHARE * 2**53 / units)) + 1


def _auto_chains(limit: int) -> Iterator[tuple[int, int]]:
    """One data prime of every size and a special prime, of `limit` bits together or less; the
    shorter first."""
    for bits in range(MIN_PRIME_BITS, MAX_PRIME_BITS + 1):
        special = min(_SPECIAL_BITS, limit - bits)
        if special >= MIN_PRIME_BITS:
            yield bits, special


def _not_exact(candidate: Candidate) -> ConfigError:
    """Why there is no choice, by the candidate that lacks least."""
    if candidate.most_fields < 1:
        return _sums_too_large(candidate)
    if candidate.max_scale < candidate.min_scale:
        return _chain_too_short(candidate)
    return _wrong_scale(candidate)


def _no_secure_chain(ring: int, security: int) -> ConfigError:
    """Why there is no candidate: two primes are too long to be secure."""
    limit = automatic_limit(ring, security)
    return ConfigError(
        "encryption.poly_modulus",
        ring,
        f"no chain of {security}-bit security has two primes (at most {limit} bits in all)",
        allowed=f"auto, or primes of {MIN_PRIME_BITS} bits at least",
        hint="encryption.poly_modulus=auto",
    )


def _wrong_scale(candidate: Candidate) -> ConfigError:
    """Why the scale that is set will not do: it leaves no room for a field, or it is too near the
    noise."""
    scale = candidate.scale
    clients = candidate.max_clients
    allowed = f"{candidate.min_scale} to {candidate.max_scale}"
    hint = "encryption.scale_bits=auto"
    if scale > candidate.max_scale:
        return ConfigError(
            "encryption.scale_bits",
            scale,
            f"too large for the grid: {candidate.field_bits} bits of sum times the scale overflow "
            f"the {candidate.capacity + 1} bits of the data primes",
            allowed=allowed,
            hint=hint,
        )
    return not_exact_enough(
        slot_bits(candidate.poly_modulus, clients, _NOISE_SHARE * 2.0**scale),
        "encryption.scale_bits",
        scale,
        f"too small for the grid: the noise of a sum of {clients} ciphertexts would reach it",
        allowed=allowed,
        hint=hint,
    )


def _sums_too_large(candidate: Candidate) -> ConfigError:
    """Why there is no packing: not even one field is exact in double precision."""
    beyond = candidate.field_bits - max_sum_bits(candidate.poly_modulus)
    return ConfigError(
        "encryption.value_bits",
        candidate.extent.value_bits,
        f"sums of {candidate.max_clients} clients take {candidate.field_bits} bits, more than "
        "double precision keeps exact",
        allowed=f"at most {candidate.extent.value_bits - beyond}",
        hint="encryption.value_bits=16",
    )


def _chain_too_short(candidate: Candidate) -> ConfigError:
    """Why there is no scale: the data primes do not hold one field and the smallest."""
    needed = candidate.field_bits + candidate.min_scale + 1
    return ConfigError(
        "encryption.coeff_mod_bits",
        candidate.coeff_mod_bits,
        f"the data primes hold {candidate.capacity + 1} bits; a sum of {candidate.max_clients} "
        f"clients at {candidate.extent.value_bits} bits needs {candidate.field_bits} and a scale "
        f"of at least {candidate.min_scale}",
        allowed=f"data primes of at least {needed} bits together",
        hint="a larger encryption.poly_modulus, or a smaller encryption.value_bits",
    )

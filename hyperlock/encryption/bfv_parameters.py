"""Choosing BFV parameters for packed sums, by rule.

The plaintext modulus t is the smallest prime of at least `fields * field_bits` bits that is 1
modulo 2N, so that each of the N slots holds `fields` signed integers of `field_bits` bits, wide
enough for the sum of `max_clients` values.

Margin. Decryption reads the coefficients of round(t / q * c(s)), and what distorts them there is
the noise of `noise.py` itself, not a transform of it. In the sum of K ciphertexts it is a sum of K
polynomials r1 * s; beside it, each ciphertext adds less than 2: 1/2 for r0, 1/2 for rounding q/t
times the message, and v/P < 1. (A sum that wraps around t adds nothing, for SEAL rounds q/t * m
itself, not q/t.) Decryption is exact while all of it stays below q / (2t). The rule is

    q / (4t) >= B + 2K,

with B so large that no coefficient exceeds it but with a probability of 2^-64, q being the product
of the data primes as SEAL chooses them. One wrong coefficient changes every slot: the probability
is that of a whole ciphertext of N coefficients, so that it holds for each of its coordinates. B is
10.35 standard deviations of sqrt(K N / 18) at N=4096, 10.53 at N=32768 (`noise.coefficient_bits`).

The spare factor of two keeps one bit of noise budget: a sum whose noise exceeds q / (4t) may have
none left and is then refused. A wrong value is not released unless noise leaps over the refused
band, from q / (4t) to 3q / (4t) if q is just below a power of two (the band ends at q / (2t) at the
least): `undetected_bits`, beyond 256 for every automatic choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hyperlock.encryption.noise import coefficient_bits, least_allowed
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    EXACT_BITS,
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    POLY_MODULI,
    SECURITY_LIMITS,
    check_security,
    data_modulus_bits,
    is_prime,
    not_exact_enough,
    read_chain,
    read_integer,
    sum_bits,
)
from hyperlock.errors import ConfigError

# SEAL takes plaintext moduli of up to 60 bits, and t has one bit more than the fields.
MAX_PLAIN_BITS = 59
_SPECIAL_BITS = 30  # as long as nothing is key-switched, any prime far above the noise does


@dataclass(frozen=True)
class BfvParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree and the number of slots.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext
            carries.
        plain_modulus: t.
        packing: fields in a slot.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.
        security_bits: the best tabled level that the chain stays under.
        margin_bits: log2 of q / (4t) over what the rule needs; never negative.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    plain_modulus: int
    packing: Packing
    value_bits: int
    max_clients: int
    security_bits: int
    margin_bits: float

    @property
    def slots(self) -> int:
        """Slots of one ciphertext: N, twice as many as CKKS has."""
        return self.poly_modulus

    @property
    def exact_to_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is refused or not exact; at
        least 64."""
        return exact_bits(self.poly_modulus, self.max_clients, self._budget)

    @property
    def undetected_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is released and wrong."""
        # SEAL counts the budget from 2^ceil(log2 q).
        short = math.ceil(self._modulus_bits) - self._modulus_bits
        return exact_bits(self.poly_modulus, self.max_clients, (4 - 2**short) * self._budget)

    @property
    def _modulus_bits(self) -> float:
        return data_modulus_bits(self.poly_modulus, self.coeff_mod_bits)

    @property
    def _budget(self) -> float:
        """q / (4t), below which the noise must stay."""
        return 2 ** (self._modulus_bits - 2) / self.plain_modulus


@dataclass(frozen=True)
class Candidate:
    """A secure choice, which is exact if its margin is not negative.

    Attributes:
        poly_modulus: N.
        coeff_mod_bits: the chain, special prime included.
        packing: fields in a slot.
        max_clients: no more updates than this may be added.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    packing: Packing
    max_clients: int

    @property
    def plain_modulus(self) -> int:
        """t, the smallest prime that holds the fields."""
        return plain_modulus(self.poly_modulus, self.packing.bits)

    @property
    def budget_bits(self) -> float:
        """log2 of q / (4t), below which the noise must stay."""
        modulus_bits = data_modulus_bits(self.poly_modulus, self.coeff_mod_bits)
        return modulus_bits - 2 - math.log2(self.plain_modulus)

    @property
    def margin_bits(self) -> float:
        """log2 of q / (4t) over what the rule needs: exact if it is not negative."""
        return self.budget_bits - needed_margin(self.poly_modulus, self.max_clients)

    @property
    def bytes_per_value(self) -> float:
        """Bytes of a ciphertext by the coordinates that it holds."""
        return wire_bytes(self.coeff_mod_bits) / self.packing.fields


def bfv_parameters(
    poly_modulus: object,
    coeff_mod_bits: object,
    fields: object,
    value_bits: int,
    max_clients: int,
    security: int,
) -> BfvParameters:
    """Complete and check a choice; each of the first three may be `auto`.

    Of all that is secure and exact, the fewest bytes a value win; then the smaller ring, which
    wastes less of the last ciphertext.

    Raises:
        ConfigError: nothing fits; the text names the figure that fails (margin, field overflow or
            security limit).
    """
    # What may be chosen: rings from small to large, packings from many fields to one.
    rings = _rings(poly_modulus, security)
    packings = _packings(fields, value_bits, max_clients)

    # Each with its chain, if security has room for one.
    if coeff_mod_bits == "auto":
        candidates = _with_shortest_chains(rings, packings, max_clients, security)
    else:
        chain = read_chain(coeff_mod_bits)
        candidates = _with_chain(chain, rings, packings, max_clients, security)

    # The best of those that are exact; or, if none is, why.
    exact = [candidate for candidate in candidates if candidate.margin_bits >= 0]
    if not exact:
        if not packings:
            raise _field_overflow(value_bits, max_clients)
        if not candidates:
            raise _no_secure_chain(rings[-1], packings[-1].field_bits, max_clients, security)
        raise _too_noisy(candidates[-1])  # the last has the fewest fields, in the largest ring
    best = min(exact, key=lambda candidate: (candidate.bytes_per_value, candidate.poly_modulus))
    return BfvParameters(
        poly_modulus=best.poly_modulus,
        coeff_mod_bits=best.coeff_mod_bits,
        plain_modulus=best.plain_modulus,
        packing=best.packing,
        value_bits=value_bits,
        max_clients=max_clients,
        security_bits=check_security(best.poly_modulus, best.coeff_mod_bits, security),
        margin_bits=best.margin_bits,
    )


@lru_cache
def needed_margin(poly_modulus: int, max_clients: int) -> float:
    """log2 of B + 2K, the right-hand side of the rule."""
    return math.log2(
        least_allowed(lambda budget: exact_bits(poly_modulus, max_clients, budget), EXACT_BITS)
    )


def exact_bits(poly_modulus: int, clients: int, budget: float) -> float:
    """-log2 of the probability that all noise of a ciphertext, sum of `clients`, does not stay
    within `budget`."""
    return coefficient_bits(poly_modulus, clients, budget - 2 * clients)


def wire_bytes(chain: tuple[int, ...]) -> float:
    """Bytes of one coefficient pair as serialised: SEAL stores 64-bit words and compresses whole
    zero bytes away."""
    return 2 * sum(math.ceil(bits / 8) for bits in chain[:-1])


@lru_cache
def plain_modulus(poly_modulus: int, plain_bits: int) -> int:
    """The smallest prime of at least `plain_bits` + 1 bits that is 1 modulo 2N, as batching
    needs."""
    step = 2 * poly_modulus
    candidate = (2**plain_bits // step) * step + 1
    while candidate < 2**plain_bits or not is_prime(candidate):
        candidate += step
    return candidate


def _rings(poly_modulus: object, security: int) -> tuple[int, ...]:
    """All rings for `auto`, else the one that is set."""
    rings: tuple[int, ...] = POLY_MODULI
    if poly_modulus != "auto":
        rings = (read_integer("encryption.poly_modulus", poly_modulus),)
    for ring in rings:
        check_security(ring, (), security)
    return rings


def _packings(fields: object, value_bits: int, max_clients: int) -> list[Packing]:
    """Fields wide enough for sums: as many as a slot takes down to one for `auto`, else as set."""
    field_bits = sum_bits(value_bits, max_clients)
    most = MAX_PLAIN_BITS // field_bits
    if fields == "auto":
        return [Packing(count, field_bits) for count in range(most, 0, -1)]
    count = read_integer("encryption.fields", fields)
    if not 1 <= count <= most:
        raise ConfigError(
            "encryption.fields",
            count,
            f"fields overflow: {count} x {field_bits} bits, for sums of {max_clients} "
            f"clients at {value_bits} bits",
            allowed=f"1 to {most} ({MAX_PLAIN_BITS} bits in a slot)",
            hint="encryption.fields=auto",
        )
    return [Packing(count, field_bits)]


def _with_chain(
    chain: tuple[int, ...],
    rings: tuple[int, ...],
    packings: list[Packing],
    max_clients: int,
    security: int,
) -> list[Candidate]:
    """Candidates of the given chain, in every ring for which it is short enough; ConfigError if
    there is none."""
    fitting = [ring for ring in rings if sum(chain) <= SECURITY_LIMITS[security][ring]]
    if not fitting:
        check_security(rings[-1], chain, security)
    return [
        Candidate(ring, chain, packing, max_clients) for ring in fitting for packing in packings
    ]


def _with_shortest_chains(
    rings: tuple[int, ...], packings: list[Packing], max_clients: int, security: int
) -> list[Candidate]:
    """A candidate for each ring and packing for which a secure chain holds the margin."""
    found = [
        _with_shortest_chain(ring, packing, max_clients, security)
        for ring in rings
        for packing in packings
    ]
    return [candidate for candidate in found if candidate is not None]


def _with_shortest_chain(
    ring: int, packing: Packing, max_clients: int, security: int
) -> Candidate | None:
    """The shortest chain of equal data primes that holds the margin, or None if security has no
    room for it."""
    # As many bits as the rule needs, in as few primes as hold them.
    plain = math.log2(plain_modulus(ring, packing.bits))
    data_bits = math.ceil(plain + 2 + needed_margin(ring, max_clients) + 1e-6)
    count = -(-data_bits // MAX_PRIME_BITS)
    size = max(-(-data_bits // count), MIN_PRIME_BITS)
    found = Candidate(ring, (size,) * count + (_SPECIAL_BITS,), packing, max_clients)
    if found.margin_bits < 0:
        size += 1  # so short that SEAL's primes lie well below 2^size

    # The special prime takes what security leaves.
    special = min(_SPECIAL_BITS, SECURITY_LIMITS[security][ring] - count * size)
    if special < MIN_PRIME_BITS:
        return None
    return Candidate(ring, (size,) * count + (special,), packing, max_clients)


def _field_overflow(value_bits: int, max_clients: int) -> ConfigError:
    """Why there is no packing: a slot does not hold even one field."""
    return ConfigError(
        "encryption.value_bits",
        value_bits,
        f"field overflow: sums of {max_clients} clients take "
        f"{sum_bits(value_bits, max_clients)} bits",
        allowed=f"at most {MAX_PLAIN_BITS} bits in a slot",
        hint="encryption.value_bits=8",
    )


def _no_secure_chain(ring: int, field_bits: int, max_clients: int, security: int) -> ConfigError:
    """Why there is no candidate: a chain that holds the noise is too long to be secure."""
    return ConfigError(
        "encryption.poly_modulus",
        ring,
        f"no chain of {security}-bit security (at most {SECURITY_LIMITS[security][ring]} bits) "
        f"holds a field of {field_bits} bits and the noise of {max_clients} ciphertexts",
        allowed=f"poly_modulus up to {POLY_MODULI[-1]}",
        hint="encryption.poly_modulus=auto",
    )


def _too_noisy(candidate: Candidate) -> ConfigError:
    """Why no candidate is exact: the chain is too short for the noise."""
    chain = candidate.coeff_mod_bits
    lacking = -candidate.margin_bits
    needed = needed_margin(candidate.poly_modulus, candidate.max_clients)
    return not_exact_enough(
        exact_bits(candidate.poly_modulus, candidate.max_clients, 2**candidate.budget_bits),
        "encryption.coeff_mod_bits",
        chain,
        f"the noise of {candidate.max_clients} ciphertexts would reach the message: at "
        f"poly_modulus={candidate.poly_modulus} the margin q/(4t) is {lacking:.1f} bits short of "
        f"2^{needed:.1f}",
        allowed=f"data primes of at least {sum(chain[:-1]) + math.ceil(lacking)} bits together",
        hint="encryption.coeff_mod_bits=auto",
    )

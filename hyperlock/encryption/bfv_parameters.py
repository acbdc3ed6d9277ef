"""Choosing BFV parameters for packed sums, by rule.

Values stand in the coefficients of the plaintext polynomial, as many fields to a coefficient as its
modulus t holds, and the first `RESERVED` coefficients of every ciphertext are zero. t is the
smallest prime above 2^(fields * field_bits) that is 3 or 5 modulo 8, so that each coefficient holds
`fields` signed integers of `field_bits` bits, wide enough for the sum of `max_clients` values
(`extent.py`). (It need not be 1 modulo 2N, for nothing is batched.)

Margin. Decryption reads the coefficients of round(t / q * c(s)), and what distorts them there is
the noise of `noise.py` itself, not a transform of it. In the sum of K ciphertexts it is a sum of K
polynomials r1 * s; beside it, each ciphertext adds less than 2: 1/2 for r0, 1/2 for rounding q/t
times the message, and v/P < 1; and at most 2^(d-1) for the d low bits of c0 that are rounded away
(`layout.py`), a hard bound and no probability. (A sum that wraps around t adds nothing, for SEAL
rounds q/t * m itself, not q/t.) Decryption is exact while all of it stays below q / (2t). The rule
is

    q / (4t) >= B + 2K + K 2^(d-1),

with B so large that no coefficient exceeds it but with a probability of 2^-64, q being the data
prime as SEAL chooses it. One wrong coefficient fails a ciphertext: the probability is that of all N
coefficients, so that it holds for each of them. B is 10.35 standard deviations of sqrt(K N / 18) at
N=4096, 10.53 at N=32768 (`noise.coefficient_bits`). Seeded ciphertexts have less noise and their
own d, one larger or so; the rule holds for sums of any mixture of both.

The spare factor of two keeps one bit of noise budget: a sum whose noise exceeds q / (4t) may have
none left and is then refused. A wrong value is not released unless noise leaps over the refused
band, from q / (4t) to 3q / (4t) if q is just below a power of two (the band ends at q / (2t) at the
least): `undetected_bits`, beyond 256 for every automatic choice.

Guard. Who can add round(q/t p) to c1 of what is decrypted, the server or one client in its own
update, adds p * s to the plaintext, s being the secret key and p any polynomial: p = 1 would give
away s itself, whose coefficients -1, 0 and 1 are in every range. So the key holder refuses a
ciphertext unless its reserved coefficients are exactly zero, and all behind the vector too. Modulo
a prime t that is 3 or 5 modulo 8, X^N + 1 is a product of two irreducible polynomials of degree N/2
(t has the order N/2 modulo 2N). The reserved coefficients of p * s are RESERVED linear functions of
s; a combination of them that vanishes for every s is a polynomial g of degree below RESERVED with
g * p = 0, and g is divisible by no factor of that degree: for every p that is not zero they are
independent. An affine subspace of codimension k holds at most 3^(N-k) of the 3^N ternary vectors
(its free coordinates decide the others), so whoever knows no more of s than its distribution
sends a forgery that passes with a probability of at most

    3^-RESERVED = 2^-101.4,

whatever p is, for every choice of bits and clients. (More of s than that is what the public key
hides by the assumption that the encryption rests on.) With t a power of two it would be (2/3)^k,
and with t = 1 modulo 2N a p of rank k below RESERVED would pass with 3^-k. It costs 1.6% of the
bytes at N=4096.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.noise import coefficient_bits, least_allowed
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    EXACT_BITS,
    MANY,
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    POLY_MODULI,
    automatic_limit,
    check_security,
    ciphertexts,
    data_modulus_bits,
    data_primes,
    fitting_rings,
    is_prime,
    not_exact_enough,
    read_chain,
    read_integer,
    rings,
    smallest_ring,
)
from hyperlock.errors import ConfigError

# SEAL takes plaintext moduli of up to 60 bits, and t has one bit more than the fields.
MAX_PLAIN_BITS = 59
# Coefficients of every ciphertext that are zero.
RESERVED = 64
_FORGERY_BITS = RESERVED * math.log2(3)
# Bytes that one prime may take, and residues that it must save, against more.
_QUICK_BYTES = 1.07
_QUICK_RESIDUES = 0.8
_SPECIAL_BITS = 30  # as long as nothing is key-switched, any prime far above the noise does


@dataclass(frozen=True)
class BfvParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext
            carries.
        plain_modulus: t.
        packing: fields in a coefficient.
        extent: how large values and their sums may be.
        max_clients: no more updates than this may be added.
        security_bits: the best tabled level that the chain stays under.
        margin_bits: log2 of q / (4t) over what the rule needs with no bit of c0 dropped; never
            negative.
        layout: of its ciphertexts, with the bits of c0 that are dropped.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    plain_modulus: int
    packing: Packing
    extent: Extent
    max_clients: int
    security_bits: int
    margin_bits: float
    layout: Layout

    @property
    def slots(self) -> int:
        """Coefficients of one ciphertext that hold values."""
        return self.poly_modulus - RESERVED

    @property
    def exact_to_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is refused or not exact; at
        least 64."""
        return self._exact_bits(1.0)

    @property
    def undetected_bits(self) -> float:
        """-log2 of the probability that a coordinate of an honest sum is released and wrong."""
        # SEAL counts the budget from 2^ceil(log2 q).
        modulus_bits = data_modulus_bits(self.poly_modulus, self.coeff_mod_bits)
        short = math.ceil(modulus_bits) - modulus_bits
        return self._exact_bits(4 - 2**short)

    @property
    def forgery_bits(self) -> float:
        """-log2 of the probability that a ciphertext which would give away the key's multiples is
        released."""
        return _FORGERY_BITS

    def _exact_bits(self, budgets: float) -> float:
        """Of noise within so many times q / (4t)."""
        modulus_bits = data_modulus_bits(self.poly_modulus, self.coeff_mod_bits)
        budget = budgets * 2 ** (modulus_bits - 2) / self.plain_modulus
        dropped = (self.layout.dropped, self.layout.dropped_seeded)
        return exact_bits(self.poly_modulus, self.max_clients, budget, *dropped)


@dataclass(frozen=True)
class Candidate:
    """A secure choice, which is exact if its margin is not negative.

    Attributes:
        poly_modulus: N.
        coeff_mod_bits: the chain, special prime included.
        packing: fields in a coefficient.
        max_clients: no more updates than this may be added.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    packing: Packing
    max_clients: int

    @property
    def plain_modulus(self) -> int:
        """t, the smallest prime that holds the fields and keeps the guard."""
        return plain_modulus(self.packing.bits)

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
    def layout(self) -> Layout:
        """Of its ciphertexts, with as many low bits of c0 dropped as the margin has room for."""
        primes = data_primes(self.poly_modulus, self.coeff_mod_bits)
        if len(primes) > 1:
            return Layout(self.poly_modulus, primes)
        dropped = dropped_bits(self.poly_modulus, self.max_clients, 2**self.budget_bits)
        return Layout(self.poly_modulus, primes, *dropped)

    def bytes(self, length: int) -> int:
        """Of the ciphertexts of a vector of so many values, made with the public key."""
        return self._ciphertexts(length) * self.layout.whole_bytes

    def residues(self, length: int) -> int:
        """Of each of their polynomials: what the seconds grow with."""
        return self._ciphertexts(length) * self.poly_modulus * (len(self.coeff_mod_bits) - 1)

    def _ciphertexts(self, length: int) -> int:
        return ciphertexts(self.packing.slots(length), self.poly_modulus - RESERVED)


def bfv_parameters(
    poly_modulus: object,
    coeff_mod_bits: object,
    fields: object,
    extent: Extent,
    max_clients: int,
    security: int,
    length: int = MANY,
) -> BfvParameters:
    """Complete and check a choice; each of the first three may be `auto`.

    Of all that is secure and exact, the fewest bytes for a vector of `length` values win; of rings
    that differ little, the smaller (`parameters.smallest_ring`); and one data prime, where that
    saves a fifth of the residues, which are what takes time, for at most 7% of the bytes. Where
    values carry noise, which takes bytes enough, the fewest win alone.

    Raises:
        ConfigError: nothing fits; the text names the figure that fails (margin, field overflow or
            security limit).
    """
    # What may be chosen: rings from small to large, packings from many fields to one.
    allowed = rings(poly_modulus, security)
    packings = _packings(fields, extent, max_clients)

    # Each with its chains, if security has room for one.
    if coeff_mod_bits == "auto":
        candidates = _with_short_chains(allowed, packings, max_clients, security)
    else:
        chain = read_chain(coeff_mod_bits)
        candidates = [
            Candidate(ring, chain, packing, max_clients)
            for ring in fitting_rings(chain, allowed, security)
            for packing in packings
        ]

    # The best of those that are exact; or, if none is, why.
    exact = [candidate for candidate in candidates if candidate.margin_bits >= 0]
    if not exact:
        if not packings:
            raise _field_overflow(extent, max_clients)
        if not candidates:
            raise _no_secure_chain(allowed[-1], packings[-1].field_bits, max_clients, security)
        raise _too_noisy(candidates[-1])  # the last has the fewest fields, in the largest ring
    best = smallest_ring(exact, length) if extent.spread else _best(exact, length)
    return BfvParameters(
        poly_modulus=best.poly_modulus,
        coeff_mod_bits=best.coeff_mod_bits,
        plain_modulus=best.plain_modulus,
        packing=best.packing,
        extent=extent,
        max_clients=max_clients,
        security_bits=check_security(best.poly_modulus, best.coeff_mod_bits, security),
        margin_bits=best.margin_bits,
        layout=best.layout,
    )


def _best(exact: list[Candidate], length: int) -> Candidate:
    """By bytes, with one data prime where that costs little."""
    best = smallest_ring(exact, length)
    single = [candidate for candidate in exact if len(candidate.coeff_mod_bits) == 2]
    if not single:
        return best
    quick = smallest_ring(single, length)
    small_enough = quick.bytes(length) <= _QUICK_BYTES * best.bytes(length)
    quick_enough = quick.residues(length) <= _QUICK_RESIDUES * best.residues(length)
    return quick if small_enough and quick_enough else best


@lru_cache
def needed_margin(poly_modulus: int, max_clients: int) -> float:
    """log2 of B + 2K, the right-hand side of the rule with no bit dropped."""
    return math.log2(
        least_allowed(lambda budget: exact_bits(poly_modulus, max_clients, budget), EXACT_BITS)
    )


def exact_bits(
    poly_modulus: int, clients: int, budget: float, dropped: int = 0, dropped_seeded: int = 0
) -> float:
    """-log2 of the probability that all noise of a ciphertext, sum of `clients` in any mixture of
    the two forms, does not stay within `budget`."""
    left = budget - clients * (2 + _rounding(dropped))
    left_seeded = budget - clients * (2 + _rounding(dropped_seeded))
    return coefficient_bits(poly_modulus, clients, left, left_seeded)


@lru_cache(maxsize=1024)
def dropped_bits(poly_modulus: int, clients: int, budget: float) -> tuple[int, int]:
    """d of whole and of seeded ciphertexts: the most with which sums stay exact, the whole ones'
    first."""

    def most(holds: Callable[[int], bool]) -> int:
        found = 0
        while holds(found + 1):
            found += 1
        return found

    whole = most(
        lambda d: exact_bits(poly_modulus, clients, budget, d, d) >= EXACT_BITS,
    )
    seeded = most(
        lambda d: d <= whole or exact_bits(poly_modulus, clients, budget, whole, d) >= EXACT_BITS,
    )
    return whole, seeded


@lru_cache
def plain_modulus(plain_bits: int) -> int:
    """The smallest prime above 2^plain_bits that is 3 or 5 modulo 8."""
    candidate = 2**plain_bits + 1
    while candidate % 8 not in (3, 5) or not is_prime(candidate):
        candidate += 2
    return candidate


def _rounding(dropped: int) -> float:
    """By how much a coefficient of c0 changes at most when so many bits are rounded away."""
    return 2 ** (dropped - 1) if dropped else 0.0


def _packings(fields: object, extent: Extent, max_clients: int) -> list[Packing]:
    """Fields wide enough for sums: as many as t holds down to one for `auto`, else as set."""
    field_bits = extent.sum_bits(max_clients)
    most = MAX_PLAIN_BITS // field_bits
    if fields == "auto":
        return [Packing(count, field_bits) for count in range(most, 0, -1)]
    count = read_integer("encryption.fields", fields)
    if not 1 <= count <= most:
        raise ConfigError(
            "encryption.fields",
            count,
            f"fields overflow: {count} x {field_bits} bits, for sums of {max_clients} "
            f"clients at {extent.value_bits} bits",
            allowed=f"1 to {most} ({MAX_PLAIN_BITS} bits in a coefficient)",
            hint="encryption.fields=auto",
        )
    return [Packing(count, field_bits)]


def _with_short_chains(
    rings: tuple[int, ...], packings: list[Packing], max_clients: int, security: int
) -> list[Candidate]:
    """Candidates for each ring and packing for which a secure chain holds the margin."""
    return [
        found
        for ring in rings
        for packing in packings
        for found in _short_chains(ring, packing, max_clients, security)
    ]


def _short_chains(
    ring: int, packing: Packing, max_clients: int, security: int
) -> Iterator[Candidate]:
    """The shortest chain of equal data primes that holds the margin; and with one prime longer ones
    too, whose further bits let more of c0's be dropped. From the third on, a bit more in both
    polynomials saves one in c0 at most."""
    # As many bits as the rule needs, in as few primes as hold them.
    plain = math.log2(plain_modulus(packing.bits))
    data_bits = math.ceil(plain + 2 + needed_margin(ring, max_clients) + 1e-6)
    count = -(-data_bits // MAX_PRIME_BITS)
    size = max(-(-data_bits // count), MIN_PRIME_BITS)
    sizes = range(size, min(size + 4, MAX_PRIME_BITS + 1)) if count == 1 else (size, size + 1)

    # The special prime takes what security leaves; of several primes the shortest that hold it, for
    # SEAL's may lie well below 2^size.
    for bits in sizes:
        special = min(_SPECIAL_BITS, automatic_limit(ring, security) - count * bits)
        found = Candidate(ring, (bits,) * count + (special,), packing, max_clients)
        if special >= MIN_PRIME_BITS and found.margin_bits >= 0:
            yield found
            if count > 1:
                return


def _field_overflow(extent: Extent, max_clients: int) -> ConfigError:
    """Why there is no packing: a coefficient does not hold even one field."""
    return ConfigError(
        "encryption.value_bits",
        extent.value_bits,
        f"field overflow: sums of {max_clients} clients take {extent.sum_bits(max_clients)} bits",
        allowed=f"at most {MAX_PLAIN_BITS} bits in a coefficient",
        hint="encryption.value_bits=8",
    )


def _no_secure_chain(ring: int, field_bits: int, max_clients: int, security: int) -> ConfigError:
    """Why there is no candidate: a chain that holds the noise is too long to be secure."""
    return ConfigError(
        "encryption.poly_modulus",
        ring,
        f"no chain of {security}-bit security (at most {automatic_limit(ring, security)} bits) "
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

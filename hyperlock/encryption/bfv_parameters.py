"""Choosing BFV parameters for packed sums, by rule.

The plaintext modulus t is the smallest prime of at least `fields * field_bits` bits that is 1 modulo 2N, so that each
of the N slots holds `fields` signed integers of `field_bits` bits, wide enough for the sum of `max_clients` values.

Margin. A fresh public-key ciphertext carries the same rounding noise as in CKKS (see `ckks_parameters.py`), but it is
read in the coefficients, not through a transform: one is a sum of about 2N/3 independent terms, close to Gaussian,
with sigma = sqrt((1 + 2N/3) / 12) (15.1 at N=4096). A sum of K ciphertexts has sigma * sqrt(K); scaling a message by
q/t rounds by at most 1/2 a ciphertext, and each wrap around t adds less than one more, 2K in all. Decryption is exact
while the noise stays below q / (2t). Since P(|Z| > 9.5) < 2^-64 for a Gaussian, the rule is

    q / (4t) >= 9.5 * sigma * sqrt(K) + 2 K

with q the product of the data primes. The spare factor of two keeps one bit of noise budget, so that the key holder
can refuse a sum whose budget is used up without ever refusing an honest one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    POLY_MODULI,
    SECURITY_LIMITS,
    check_security,
    read_chain,
    read_integer,
)
from hyperlock.errors import ConfigError

MAX_PLAIN_BITS = 59  # SEAL takes plaintext moduli of up to 60 bits, and t has one bit more than the fields
_TAIL = 9.5
_SPECIAL_BITS = 30  # as long as nothing is key-switched, any prime far above the noise does


@dataclass(frozen=True)
class BfvParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree and the number of slots.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext carries.
        plain_modulus: t.
        packing: fields in a slot.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.
        security: the best tabled level that the chain stays under.
        margin_bits: log2 of q / (4t) over what the rule needs; never negative.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    plain_modulus: int
    packing: Packing
    value_bits: int
    max_clients: int
    security: int
    margin_bits: float

    @property
    def slots(self) -> int:
        """Slots of one ciphertext."""
        return self.poly_modulus


def bfv_parameters(
    poly_modulus: object, coeff_mod_bits: object, fields: object, value_bits: int, max_clients: int, security: int
) -> BfvParameters:
    """Complete and check a choice; each of the first three may be `auto`.

    Of all that is secure and exact, the fewest bytes a value win; then the smaller ring, which wastes less of the last
    ciphertext.

    Raises:
        ConfigError: nothing fits; the text names the figure that fails (margin, field overflow or security limit).
    """
    field_bits = value_bits + math.ceil(math.log2(max_clients))
    rings = POLY_MODULI if poly_modulus == "auto" else (read_integer("encryption.poly_modulus", poly_modulus),)
    for ring in rings:
        check_security(ring, (), security)
    counts = range(MAX_PLAIN_BITS // field_bits, 0, -1)
    if fields != "auto":
        count = read_integer("encryption.fields", fields)
        if not 1 <= count * field_bits <= MAX_PLAIN_BITS:
            raise ConfigError(
                "encryption.fields",
                count,
                f"fields overflow: {count} x {field_bits} bits, for sums of {max_clients} clients at {value_bits} bits",
                allowed=f"1 to {MAX_PLAIN_BITS // field_bits} ({MAX_PLAIN_BITS} bits in a slot)",
                hint="encryption.fields=auto",
            )
        counts = range(count, count - 1, -1)
    choices = [(ring, count) for ring in rings for count in counts]
    if coeff_mod_bits != "auto":
        chain = read_chain(coeff_mod_bits)
        fitting = [ring for ring in rings if sum(chain) <= SECURITY_LIMITS[security][ring]]
        check_security((fitting or rings)[0 if fitting else -1], chain, security)
        candidates = [(ring, count, chain) for ring, count in choices if ring in fitting]
    else:
        candidates = [
            (ring, count, found)
            for ring, count in choices
            if (found := _auto_chain(ring, count * field_bits, max_clients, security))
        ]
    exact = [c for c in candidates if margin_bits(c[0], c[2], c[1] * field_bits, max_clients) >= 0]
    if not exact:
        raise _refusal(choices, candidates, field_bits, max_clients, security)
    ring, count, chain = min(exact, key=lambda c: (wire_bytes(c[2]) / c[1], c[0]))
    plain = plain_modulus(ring, count * field_bits)
    margin = margin_bits(ring, chain, count * field_bits, max_clients)
    level = check_security(ring, chain, security)
    return BfvParameters(ring, chain, plain, Packing(count, field_bits), value_bits, max_clients, level, margin)


def needed_margin(poly_modulus: int, max_clients: int) -> float:
    """The right-hand side of the rule, in log2."""
    sigma = math.sqrt((1 + 2 * poly_modulus / 3) / 12)
    return math.log2(_TAIL * sigma * math.sqrt(max_clients) + 2 * max_clients)


def margin_bits(poly_modulus: int, chain: tuple[int, ...], plain_bits: int, max_clients: int) -> float:
    """log2 of q / (4t), less what the rule needs, for fields of `plain_bits` bits together."""
    plain = math.log2(plain_modulus(poly_modulus, plain_bits))
    return sum(chain[:-1]) - 2 - plain - needed_margin(poly_modulus, max_clients)


def wire_bytes(chain: tuple[int, ...]) -> float:
    """Bytes of one coefficient pair as serialised: SEAL stores 64-bit words and compresses whole zero bytes away."""
    return 2 * sum(math.ceil(bits / 8) for bits in chain[:-1])


@lru_cache
def plain_modulus(poly_modulus: int, plain_bits: int) -> int:
    """The smallest prime of at least `plain_bits` + 1 bits that is 1 modulo 2N, as batching needs."""
    step = 2 * poly_modulus
    candidate = (2**plain_bits // step) * step + 1
    while candidate < 2**plain_bits or not is_prime(candidate):
        candidate += step
    return candidate


def is_prime(number: int) -> bool:
    """Miller-Rabin with the first twelve primes as bases: exact below 2^64 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(
        (x := pow(base, odd, number)) in (1, number - 1)
        or any(pow(x, 2**i, number) == number - 1 for i in range(1, twos))
        for base in bases
    )


def _auto_chain(ring: int, plain_bits: int, max_clients: int, security: int) -> tuple[int, ...] | None:
    """The shortest chain of equal data primes that holds the margin, or None if security has no room for it."""
    plain = math.log2(plain_modulus(ring, plain_bits))
    data_bits = math.ceil(plain + 2 + needed_margin(ring, max_clients) + 1e-6)
    count = -(-data_bits // MAX_PRIME_BITS)
    size = max(-(-data_bits // count), MIN_PRIME_BITS)
    special = min(_SPECIAL_BITS, SECURITY_LIMITS[security][ring] - count * size)
    return (size,) * count + (special,) if special >= MIN_PRIME_BITS else None


def _refusal(
    choices: list[tuple[int, int]],
    candidates: list[tuple[int, int, tuple[int, ...]]],
    field_bits: int,
    max_clients: int,
    security: int,
) -> ConfigError:
    if not choices:
        return ConfigError(
            "encryption.value_bits",
            field_bits - math.ceil(math.log2(max_clients)),
            f"field overflow: sums of {max_clients} clients take {field_bits} bits",
            allowed=f"at most {MAX_PLAIN_BITS} bits in a slot",
            hint="encryption.value_bits=8",
        )
    if candidates:
        ring, count, chain = candidates[-1]
        lacking = -margin_bits(ring, chain, count * field_bits, max_clients)
        return ConfigError(
            "encryption.coeff_mod_bits",
            chain,
            f"the noise of {max_clients} ciphertexts would reach the message: at poly_modulus={ring} the margin "
            f"q/(4t) is {lacking:.1f} bits short of 2^{needed_margin(ring, max_clients):.1f}",
            allowed=f"data primes of at least {sum(chain[:-1]) + math.ceil(lacking)} bits together",
            hint="encryption.coeff_mod_bits=auto",
        )
    ring, count = choices[-1]
    return ConfigError(
        "encryption.poly_modulus",
        ring,
        f"no chain of {security}-bit security (at most {SECURITY_LIMITS[security][ring]} bits) holds a field of "
        f"{field_bits} bits and the noise of {max_clients} ciphertexts",
        allowed=f"poly_modulus up to {POLY_MODULI[-1]}",
        hint="encryption.poly_modulus=auto",
    )

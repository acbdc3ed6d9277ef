"""What encryption parameters have in common: the security table, exactness, SEAL's primes, and
reading them.

Security: the largest coefficient modulus (all primes, the special one included) for a ring of N
coefficients with a uniform ternary secret, classical attacks: Albrecht et al., "Homomorphic
Encryption Standard", 2018, table 1, as in SEAL's `hestdparms.h`.

Exactness: a coordinate of an honest sum is released, and released exactly, but for a probability of
at most 2^-EXACT_BITS. `noise.py` derives it; `ckks_parameters.py` and `bfv_parameters.py` say how
much noise each scheme bears. That a sum is no larger than it was sized for is apart from it:
certain or, with noise in the values themselves, but for 2^-65 (`extent.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

from hyperlock.errors import ConfigError, show

SECURITY_LIMITS: dict[int, dict[int, int]] = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
# A little less for 128 bits: Bossuat et al., eprint 2024/463. Automatic choices stay under both.
NEWER_LIMITS = {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}
# At 1024, two primes cannot hold a value with its noise.
POLY_MODULI = (2048, 4096, 8192, 16384, 32768)
EXACT_BITS = 64
# A vector so long that its last ciphertext, full or not, does not count.
MANY = 10**8
_SAVED = 1.02
# SEAL's largest, and the smallest that exists for every N above.
MIN_PRIME_BITS = 20
MAX_PRIME_BITS = 60


def automatic_limit(poly_modulus: int, security: int) -> int:
    """The longest chain in bits that `auto` chooses."""
    limit = SECURITY_LIMITS[security][poly_modulus]
    return min(limit, NEWER_LIMITS[poly_modulus]) if security == 128 else limit


def check_security(poly_modulus: int, coeff_mod_bits: tuple[int, ...], security: int) -> int:
    """The highest tabled security level of a chain.

    Raises:
        ConfigError: the ring is not tabled, or the chain is too long for it at `security` bits.
    """
    if security not in SECURITY_LIMITS:
        raise ConfigError(
            "encryption.security",
            security,
            "is not a tabled level",
            allowed="128, 192, 256 (bits)",
            hint="encryption.security=128",
        )
    if poly_modulus not in POLY_MODULI:
        nearest = min(POLY_MODULI, key=lambda n: abs(n - poly_modulus))
        raise ConfigError(
            "encryption.poly_modulus",
            poly_modulus,
            "the polynomial modulus degree must be a tabled power of two",
            allowed=", ".join(map(str, POLY_MODULI)),
            hint=f"encryption.poly_modulus={nearest}",
        )
    total = sum(coeff_mod_bits)
    limit = SECURITY_LIMITS[security][poly_modulus]
    if total > limit:
        fitting = [n for n in POLY_MODULI if SECURITY_LIMITS[security][n] >= total]
        hint = "encryption.coeff_mod_bits=auto"
        if fitting:
            hint += f" or encryption.poly_modulus={fitting[0]}"
        raise ConfigError(
            "encryption.coeff_mod_bits",
            coeff_mod_bits,
            f"{total} bits in all are too many for {security}-bit security at "
            f"poly_modulus={poly_modulus}",
            allowed=f"at most {limit} bits in all",
            hint=hint,
        )
    return max(level for level, limits in SECURITY_LIMITS.items() if total <= limits[poly_modulus])


def rings(poly_modulus: object, security: int) -> tuple[int, ...]:
    """All tabled rings, small to large, for `auto`; else the one that is set, or ConfigError."""
    found: tuple[int, ...] = POLY_MODULI
    if poly_modulus != "auto":
        found = (read_integer("encryption.poly_modulus", poly_modulus),)
    for ring in found:
        check_security(ring, (), security)
    return found


def fitting_rings(chain: tuple[int, ...], allowed: Sequence[int], security: int) -> tuple[int, ...]:
    """The rings for which a chain is short enough; ConfigError if there is none."""
    fitting = tuple(ring for ring in allowed if sum(chain) <= SECURITY_LIMITS[security][ring])
    if not fitting:
        check_security(allowed[-1], chain, security)
    return fitting


class Candidate(Protocol):
    """A choice of parameters that is secure and exact."""

    @property
    def poly_modulus(self) -> int:
        """N."""
        ...

    def bytes(self, length: int) -> int:
        """Of the ciphertexts of a vector of so many values."""
        ...


C = TypeVar("C", bound=Candidate)


def smallest_ring(candidates: Sequence[C], length: int) -> C:
    """The choice with the fewest bytes for a vector of `length` values; but a smaller ring, whose
    keys are half as large, wins over a larger one that saves less than 2% of the bytes."""
    by_bytes = [(candidate.bytes(length), candidate) for candidate in candidates]
    enough = _SAVED * min(size for size, _ in by_bytes)
    ring = min(candidate.poly_modulus for size, candidate in by_bytes if size <= enough)
    _, best = min(
        ((size, candidate) for size, candidate in by_bytes if candidate.poly_modulus == ring),
        key=lambda pair: pair[0],
    )
    return best


def ciphertexts(slots: int, in_one: int) -> int:
    """How many ciphertexts so many slots take."""
    return -(-slots // in_one)


def not_exact_enough(
    bits: float, setting: str, value: object, problem: str, *, allowed: str, hint: str
) -> ConfigError:
    """The refusal of a choice that is exact to fewer than EXACT_BITS bits, naming how many."""
    figure = f"a coordinate would be exact to {bits:.1f} bits, {EXACT_BITS} are needed"
    return ConfigError(setting, value, f"{problem}; {figure}", allowed=allowed, hint=hint)


def data_modulus_bits(poly_modulus: int, coeff_mod_bits: tuple[int, ...]) -> float:
    """log2 of q, the product of the data primes, as SEAL will choose them."""
    return sum(map(math.log2, data_primes(poly_modulus, coeff_mod_bits)))


@lru_cache(maxsize=1024)
def data_primes(poly_modulus: int, coeff_mod_bits: tuple[int, ...]) -> tuple[int, ...]:
    """The primes that a ciphertext has residues of, as SEAL will choose them.

    `CoeffModulus::Create` takes, of each size, the largest primes that are 1 modulo 2N, the smaller
    ones first. Among short primes these lie far apart: nine of ten of 21 bits at N=8192 come to
    183.1 bits, not 189.
    """
    sizes = Counter(coeff_mod_bits)
    primes = {
        bits: list(_largest_primes(poly_modulus, bits, count)) for bits, count in sizes.items()
    }
    return tuple(primes[bits].pop() for bits in coeff_mod_bits)[:-1]


@lru_cache
def _largest_primes(poly_modulus: int, bits: int, count: int) -> tuple[int, ...]:
    """The `count` largest primes of so many bits that are 1 modulo 2N; SEAL refuses chains that
    would need more."""
    step = 2 * poly_modulus
    candidates = range((2**bits - 1) // step * step + 1, 2 ** (bits - 1), -step)
    found: list[int] = []
    for candidate in candidates:
        if len(found) == count:
            break
        if is_prime(candidate):
            found.append(candidate)
    return (*found, *[2 ** (bits - 1)] * (count - len(found)))


def is_prime(number: int) -> bool:
    """Miller-Rabin with the first twelve primes as bases: exact below 2^64 (Sorenson and Webster
    2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    # number - 1 = odd * 2^twos.
    odd = number - 1
    twos = 0
    while odd % 2 == 0:
        odd //= 2
        twos += 1
    return all(_passes(number, base, odd, twos) for base in bases)


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    """Whether `base`, raised to number - 1 by squaring, comes to 1 as it does modulo a prime: as 1
    from the start, or by way of -1."""
    power = pow(base, odd, number)
    if power == 1:
        return True
    return any(pow(power, 2**i, number) == number - 1 for i in range(twos))


def read_chain(value: object) -> tuple[int, ...]:
    """`encryption.coeff_mod_bits` as a chain of primes, or ConfigError."""
    allowed = (
        f"auto, or a list of two or more prime sizes of {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits"
    )
    setting = "encryption.coeff_mod_bits"
    hint = "encryption.coeff_mod_bits=[60,40]"
    if not isinstance(value, list | tuple) or not all(type(bits) is int for bits in value):
        raise ConfigError(setting, value, "is not a chain of primes", allowed=allowed, hint=hint)
    chain = tuple(value)
    if len(chain) < 2:
        raise ConfigError(
            setting,
            value,
            "one prime is not enough: the last is the special prime",
            allowed=allowed,
            hint=hint,
        )
    if not all(MIN_PRIME_BITS <= bits <= MAX_PRIME_BITS for bits in chain):
        raise ConfigError(
            setting, value, "a prime is too small or too large", allowed=allowed, hint=hint
        )
    return chain


def read_integer(setting: str, value: object) -> int:
    """A setting that is not `auto` as an integer, or ConfigError."""
    if type(value) is not int:
        raise ConfigError(
            setting,
            value,
            f"{show(value)!r} is not a number",
            allowed="auto, or an integer",
            hint=f"{setting}=auto",
        )
    return value

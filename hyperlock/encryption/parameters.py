"""Choosing encryption parameters, and refusing those that are unsafe or not exact.

Security: the largest coefficient modulus (all primes, the special one included) for a ring of N coefficients
with a uniform ternary secret, classical attacks: Albrecht et al., "Homomorphic Encryption Standard", 2018,
table 1, as in SEAL's `hestdparms.h`.

Exactness of a CKKS sum. The server adds K fresh public-key ciphertexts, each holding integers at scale D.
SEAL encrypts one prime higher and divides that prime away, which leaves the rounding error r0 + r1 * s, with
r0, r1 uniform in [-1/2, 1/2] and s the ternary secret; everything before it is smaller by the special prime.
A coefficient's variance is (1 + 2N/3) / 12; a slot is a sum of N coefficients times roots of unity, so the
real part that is read has

    sigma_slot = sqrt(N / 2 * (1 + 2N/3) / 12)             (683 at N=4096; 1,365 at N=8192; measured within 2%)

At a slot the noise is r1's transform times s's transform. Both are near complex Gaussian, and the real part
of such a product follows a Laplace distribution, not a Gaussian: with b the residue allowed,

    P(|noise| > b) = exp(-sqrt(2) * b * D / (sigma_slot * sqrt(K)))

which is at most 2^-64 for b * D >= 31.4 * sigma_slot * sqrt(K). A release is refused when a residue exceeds
1/4; the scale is chosen so that noise stays below 3/16 at that probability, and the other 1/16 covers
double-precision rounding in the transforms, which grows with the size of the packed integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperlock.encryption.packing import Packing
from hyperlock.errors import ConfigError, show

SECURITY_LIMITS: dict[int, dict[int, int]] = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
POLY_MODULI = (2048, 4096, 8192, 16384, 32768)  # at 1024, two primes cannot hold a value with its noise
MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 60  # SEAL's largest, and the smallest that exists for every N above
RESIDUE_LIMIT = 1 / 4
_NOISE_SHARE, _ROUNDING_SHARE = 3 / 16, 1 / 16
_LAPLACE_TAIL = 64 * math.log(2) / math.sqrt(2)  # standard deviations that noise exceeds once in 2^64
_AUTO_SCALE_CEILING = 40  # more buys nothing, and SEAL encodes past 64 bits more slowly


@dataclass(frozen=True)
class CkksParameters:
    """A checked choice.

    Attributes:
        poly_modulus: N, the ring's degree; N/2 slots a ciphertext.
        coeff_mod_bits: bits of each prime; the last is the special prime, which no ciphertext carries.
        scale_bits: log2 of the scale D.
        packing: fields in a slot.
        value_bits: bits of one signed value on the grid.
        max_clients: no more updates than this may be added.
        security: the best level of `SECURITY_LIMITS` that the chain stays under.
    """

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    scale_bits: int
    packing: Packing
    value_bits: int
    max_clients: int
    security: int

    @property
    def slots(self) -> int:
        """Slots of one ciphertext."""
        return self.poly_modulus // 2

    @property
    def data_bits(self) -> int:
        """Bits of the primes that a ciphertext carries."""
        return sum(self.coeff_mod_bits[:-1])


def check_security(poly_modulus: int, coeff_mod_bits: tuple[int, ...], security: int) -> int:
    """The highest tabled security level of a chain.

    Raises:
        ConfigError: the ring is not tabled, or the chain is too long for it at `security` bits.
    """
    if security not in SECURITY_LIMITS:
        raise ConfigError(
            "encryption.security", security, "is not a tabled level", allowed="128, 192, 256 (bits)", hint="128"
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
    total, limit = sum(coeff_mod_bits), SECURITY_LIMITS[security][poly_modulus]
    if total > limit:
        fitting = [n for n in POLY_MODULI if SECURITY_LIMITS[security][n] >= total]
        hint = "encryption.coeff_mod_bits=auto" + (f" or encryption.poly_modulus={fitting[0]}" if fitting else "")
        raise ConfigError(
            "encryption.coeff_mod_bits",
            coeff_mod_bits,
            f"{total} bits in all are too many for {security}-bit security at poly_modulus={poly_modulus}",
            allowed=f"at most {limit} bits in all",
            hint=hint,
        )
    return max(level for level, limits in SECURITY_LIMITS.items() if total <= limits[poly_modulus])


def ckks_parameters(
    poly_modulus: int,
    coeff_mod_bits: object,
    scale_bits: object,
    value_bits: int,
    max_clients: int,
    security: int,
) -> CkksParameters:
    """Complete and check a CKKS choice.

    `auto` for the chain takes one prime for the data, as long as security allows up to 60 bits, and a short
    special prime, since nothing is ever key-switched. As many fields as fit are packed into a slot. `auto` for
    the scale takes what the fields leave, so that the noise is as far below the grid as it can be.

    Raises:
        ConfigError: the choice is insecure, or its sums would not certainly be exact.
    """
    check_security(poly_modulus, (), security)
    chain = _auto_chain(SECURITY_LIMITS[security][poly_modulus]) if coeff_mod_bits == "auto" else _chain(coeff_mod_bits)
    level = check_security(poly_modulus, chain, security)

    field_bits = value_bits + math.ceil(math.log2(max_clients))
    # One bit is left free, so that sum * scale stays away from the modulus' ends with all its noise.
    capacity = sum(chain[:-1]) - 1
    smallest = min_scale_bits(poly_modulus, max_clients)
    exact_fields = (max_sum_bits(poly_modulus)) // field_bits
    if exact_fields < 1:
        raise ConfigError(
            "encryption.value_bits",
            value_bits,
            f"sums of {max_clients} clients take {field_bits} bits, more than double precision keeps exact",
            allowed=f"at most {max_sum_bits(poly_modulus) - field_bits + value_bits}",
            hint="encryption.value_bits=16",
        )
    if scale_bits == "auto":
        fields = min((capacity - smallest) // field_bits, exact_fields)
        if fields < 1:
            raise ConfigError(
                "encryption.coeff_mod_bits",
                chain,
                f"the data primes hold {capacity + 1} bits; a sum of {max_clients} clients at {value_bits} bits "
                f"needs {field_bits} and a scale of at least {smallest}",
                allowed=f"data primes of at least {field_bits + smallest + 1} bits together",
                hint="a larger encryption.poly_modulus, or a smaller encryption.value_bits",
            )
        scale = min(capacity - fields * field_bits, _AUTO_SCALE_CEILING)
    else:
        scale = _integer("encryption.scale_bits", scale_bits)
        if scale < smallest:
            raise ConfigError(
                "encryption.scale_bits",
                scale,
                f"too small for the grid: the noise of a sum of {max_clients} ciphertexts would reach it",
                allowed=f"{smallest} to {capacity - field_bits}",
                hint="encryption.scale_bits=auto",
            )
        fields = min((capacity - scale) // field_bits, exact_fields)
        if fields < 1:
            raise ConfigError(
                "encryption.scale_bits",
                scale,
                f"too large for the grid: {field_bits} bits of sum times the scale overflow the "
                f"{capacity + 1} bits of the data primes",
                allowed=f"{smallest} to {capacity - field_bits}"
                if capacity - field_bits >= smallest
                else "none with this chain",
                hint="encryption.scale_bits=auto",
            )
    return CkksParameters(poly_modulus, chain, scale, Packing(fields, field_bits), value_bits, max_clients, level)


def ckks_noise(poly_modulus: int, clients: int) -> float:
    """Standard deviation, at scale 1, of a slot of the sum of `clients` fresh ciphertexts."""
    return math.sqrt(clients * poly_modulus / 2 * (1 + 2 * poly_modulus / 3) / 12)


def min_scale_bits(poly_modulus: int, max_clients: int) -> int:
    """The smallest log2 scale at which a slot's noise stays below 3/16 but once in 2^64."""
    return math.ceil(math.log2(_LAPLACE_TAIL * ckks_noise(poly_modulus, max_clients) / _NOISE_SHARE))


def max_sum_bits(poly_modulus: int) -> int:
    """Bits of the largest packed sum whose rounding error in double precision stays below 1/16.

    The transforms' relative error is taken as 8 log2(N) units of 2^-53, eight times what they show.
    """
    return math.floor(math.log2(_ROUNDING_SHARE * 2**53 / (8 * math.log2(poly_modulus)))) + 1


def _auto_chain(limit: int) -> tuple[int, int]:
    special = min(max(limit - MAX_PRIME_BITS, MIN_PRIME_BITS), 30)
    return min(MAX_PRIME_BITS, limit - special), special


def _chain(value: object) -> tuple[int, ...]:
    allowed = f"auto, or a list of two or more prime sizes of {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits"
    setting, hint = "encryption.coeff_mod_bits", "encryption.coeff_mod_bits=[60,40]"
    if not isinstance(value, list | tuple) or not all(type(bits) is int for bits in value):
        raise ConfigError(setting, value, "is not a chain of primes", allowed=allowed, hint=hint)
    chain = tuple(value)
    if len(chain) < 2:
        raise ConfigError(
            setting, value, "one prime is not enough: the last is the special prime", allowed=allowed, hint=hint
        )
    if not all(MIN_PRIME_BITS <= bits <= MAX_PRIME_BITS for bits in chain):
        raise ConfigError(setting, value, "a prime is too small or too large", allowed=allowed, hint=hint)
    return chain


def _integer(setting: str, value: object) -> int:
    if type(value) is not int:
        raise ConfigError(
            setting, value, f"{show(value)!r} is not a number", allowed="auto, or an integer", hint=f"{setting}=auto"
        )
    return value

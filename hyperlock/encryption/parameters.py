"""What encryption parameters have in common: the security table, and reading them.

Security: the largest coefficient modulus (all primes, the special one included) for a ring of N coefficients
with a uniform ternary secret, classical attacks: Albrecht et al., "Homomorphic Encryption Standard", 2018,
table 1, as in SEAL's `hestdparms.h`.
"""

from __future__ import annotations

from hyperlock.errors import ConfigError, show

SECURITY_LIMITS: dict[int, dict[int, int]] = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
POLY_MODULI = (2048, 4096, 8192, 16384, 32768)  # at 1024, two primes cannot hold a value with its noise
MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 60  # SEAL's largest, and the smallest that exists for every N above


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


def read_chain(value: object) -> tuple[int, ...]:
    """`encryption.coeff_mod_bits` as a chain of primes, or ConfigError."""
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


def read_integer(setting: str, value: object) -> int:
    """A setting that is not `auto` as an integer, or ConfigError."""
    if type(value) is not int:
        raise ConfigError(
            setting, value, f"{show(value)!r} is not a number", allowed="auto, or an integer", hint=f"{setting}=auto"
        )
    return value

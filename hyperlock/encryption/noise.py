"""The noise in a sum of ciphertexts, and how surely it stays as small as decryption needs it.

Where it comes from. SEAL's public-key encryption (`Encryptor::encrypt_zero_internal` and
`encrypt_zero_asymmetric`, SEAL 4) encrypts zero modulo q * P, with P the special prime, divides by
P, and rounds. With r0, r1 the rounding errors of the two polynomials, and v = e * u + e0 + e1 * s
the noise before,

    c0 + c1 * s = message + r0 + r1 * s + v / P        modulo q and X^N + 1.

The secret s has N coefficients uniform on {-1, 0, 1}. c1 = a * u + e1 is an RLWE sample under a
secret u of its own, so that nobody, even with s in hand, tells it from a uniform polynomial: this
is the assumption that the encryption rests on anyway, and under it r1 is uniform on [-1/2, 1/2],
independent of s and of other ciphertexts. Each |r0| <= 1/2, and |v| / P < 1: at most 21 (2N + 1) /
P, and at N=32768, where this can pass 1 if P has 20 bits, 900 standard deviations away. Against r1
* s that is 2^-15, and left out. Ciphertexts made with the secret key (seeded) are not rounded;
their noise is e alone, a sum of 42 halves of either sign (SEAL's centred binomial): at most 21, of
variance 10.5.

How far it reaches. Chernoff's bound, P(|X| > b) <= 2 exp(-L b) E exp(L X) for every L > 0, with two
moment generating functions: sinh(L/2) / (L/2) <= exp(L^2 / 24) for a uniform error, (1 + 2 cosh L)
/ 3 <= exp(L^2 / 3) for a coefficient of s, and cosh(L/2)^42 <= exp(21 L^2 / 4) for one of e. No
noise is taken to be Gaussian, as the estimates of
Cheon, Kim, Kim and Song (eprint 2016/421, after 2012/099) do; at 2^-64 that would be a guess. K is
the number of ciphertexts added, all under one s.

A coefficient (BFV) of the sum of K polynomials r1 * s adds N products of a secret coefficient and K
errors:

    E exp(L X) <= (1/3 + 2/3 exp(K L^2 / 24))^N        close to a Gaussian of variance K N / 18

or, if all are seeded, exp(21 K L^2 / 4). A sum may hold both forms, k whole ones and K - k seeded,
and what each form adds beside (its bits rounded away) makes what is left for the noise linear in k.
At one L the bound's exponent is then convex in k, and largest at one of the ends, k = 0 or k = K:
an L at which both ends are small enough covers all mixtures.

A slot (CKKS) is complex: its real part is one number and its imaginary part another. Either is read
off r1(z) * s(z) at a 2N-th root of unity z. Given s, the real part adds N errors with weights
|s(z)| cos(a_i), the imaginary part with |s(z)| sin(a_i), where a_i = i w + a, w is z's angle and a
that of s(z). The squares of either sum to |s(z)|^2 N / 2, since the sum of exp(2 i w) over N powers
is (1 - z^2N) / (1 - z^2) = 0: both parts have the same bound. And E exp(A |s(z)|^2) <= 1 / (1 - 2 A
N / 3), since real and imaginary part of s(z) are sums of N coefficients of s with weights whose
squares sum to N / 2 in every direction. Together

    E exp(L X) <= 1 / (1 - L^2 S^2 / 2),    S^2 = K N^2 / 36

which is that of a Laplace distribution with standard deviation S: the tail is exponential, not
Gaussian. r0 adds a variance of K N / 24, and rounding the encoded messages to integers one of up to
K^2 N / 24, if all clients encode the same; to each part of a slot, by the weights above. Both are
taken as uniform (2016/421) and independent of the rest.

What the figure is for. Released sums are a function of the inputs, but for the probability counted
here: by Li and Micciancio (eprint 2020/1533) a scheme whose decryptions are exact is as secure when
they are shared as when they are not, and the loss is at most that probability, once a run, not
something to search for. Li, Micciancio, Schultz and Sorrell (eprint 2022/816) keep such a
statistical figure apart from the computational one of the security table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

MOST_BITS = 256.0  # as strong as any tabled security; figures above it are not told apart
_SEEDED_VARIANCE = 10.5  # of a coefficient of e
_RATES = 8  # values of L that are tried between the best for either form


def coefficient_bits(
    poly_modulus: int, clients: int, allowed: float, allowed_seeded: float | None = None
) -> float:
    """-log2 of the probability that the noise of any of N coefficients of a sum exceeds what is
    allowed, at least.

    All N count: in BFV one coefficient holds several values, and a ciphertext is released whole or
    not at all.

    Args:
        poly_modulus: N.
        clients: K, the ciphertexts in the sum.
        allowed: for r1 * s, if all of them were made with the public key.
        allowed_seeded: for e, if all were made with the secret key, in sums that may hold both;
            None if they hold none of these.
    """
    if allowed <= 0 or (allowed_seeded is not None and allowed_seeded <= 0):
        return 0.0
    best = 18 * allowed / (clients * poly_modulus)  # for a Gaussian; every L gives a bound
    if allowed_seeded is None:
        return _bits(_whole_exponent(poly_modulus, clients, best, allowed))
    most = allowed_seeded / (_SEEDED_VARIANCE * clients)
    rates = [best * (most / best) ** (i / _RATES) for i in range(_RATES + 1)]
    return max(
        _bits(
            min(
                _whole_exponent(poly_modulus, clients, rate, allowed),
                _seeded_exponent(poly_modulus, clients, rate, allowed_seeded),
            )
        )
        for rate in rates
    )


def slot_bits(poly_modulus: int, clients: int, allowed: float) -> float:
    """-log2 of the probability that the noise of one part, real or imaginary, of one CKKS slot of a
    sum, at scale 1, exceeds `allowed`, at least."""
    if allowed <= 0:
        return 0.0
    deviations = math.sqrt(2) * allowed / math.sqrt(clients * poly_modulus**2 / 36)
    rate = (math.sqrt(1 + deviations**2) - 1) / deviations  # L S / sqrt(2), between 0 and 1
    rounding = 1.5 * (1 + clients) / poly_modulus * rate**2
    return _bits(rate * deviations - rounding + math.log1p(-(rate**2)))


def run_bits(bits: float, coordinates: int, rounds: int) -> float:
    """-log2 of the probability that anything in a run is not exact, by the union bound over
    coordinates and rounds."""
    return bits - math.log2(coordinates * rounds)


def least_allowed(bits: Callable[[float], float], wanted: float) -> float:
    """The smallest argument at which a growing `bits` reaches `wanted`, within 2^-20 of it and
    never below."""
    # Doubled until it is reached, then halved between the ends, in log2.
    low = 1.0
    high = 2.0
    while bits(high) < wanted:
        low = high
        high = 2 * high
    while high / low > 1 + 2**-20:
        middle = math.sqrt(low * high)
        if bits(middle) >= wanted:
            high = middle
        else:
            low = middle
    return high


def _whole_exponent(poly_modulus: int, clients: int, rate: float, allowed: float) -> float:
    """Of Chernoff's bound for N coefficients, at this L, if all ciphertexts are whole."""
    exponent = clients * rate**2 / 24
    moments = exponent + math.log(2 / 3 + math.exp(-exponent) / 3)
    return rate * allowed - poly_modulus * moments - math.log(poly_modulus)


def _seeded_exponent(poly_modulus: int, clients: int, rate: float, allowed: float) -> float:
    """The same, if all are seeded."""
    moments = clients * _SEEDED_VARIANCE * rate**2 / 2
    return rate * allowed - moments - math.log(poly_modulus)


def _bits(exponent: float) -> float:
    """Of 2 exp(-exponent), which both signs together may reach; between 0 and MOST_BITS."""
    return min(max(exponent / math.log(2) - 1, 0.0), MOST_BITS)

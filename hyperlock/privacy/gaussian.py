"""How private a Gaussian is: the exact trade between epsilon and delta at a given mu.

A sum moved by its sensitivity under Gaussian noise of z times that sensitivity is mu-GDP with mu =
1 / z, and releases compose by the root of the sum of squares (Dong, Roth and Su, "Gaussian
Differential Privacy", JRSS B 2022, corollary 3.3). Then (Balle and Wang, ICML 2018, theorem 8)

    delta = Phi(mu / 2 - epsilon / mu) - exp(epsilon) Phi(-mu / 2 - epsilon / mu)

    >>> round(epsilon(1.0, 1e-5), 3)
    4.377
"""

from __future__ import annotations

import math


def epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon >= 0 at a delta in (0, 1); infinite if it is above 10^6."""
    if mu <= 0 or log_delta(mu, 0.0) <= math.log(delta):
        return 0.0
    low, high = 0.0, 1.0
    while log_delta(mu, high) > math.log(delta):
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    # Upwards: what is returned is enough.
    for _ in range(60):
        middle = (low + high) / 2
        if log_delta(mu, middle) > math.log(delta):
            low = middle
        else:
            high = middle
    return high


def log_delta(mu: float, at: float) -> float:
    """The logarithm of delta at an epsilon."""
    first = _log_phi(mu / 2 - at / mu)
    second = at + _log_phi(-mu / 2 - at / mu)
    if second >= first:
        return -math.inf  # below what double precision tells apart
    return first + math.log(-math.expm1(second - first))


def _log_phi(x: float) -> float:
    """log Phi(x) of the standard normal."""
    if x > -30:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    # Mills' ratio: Phi(-t) = phi(t) / t (1 - 1 / t^2 + 3 / t^4 - ...)
    square = x * x
    series = math.log1p(-1 / square + 3 / square**2 - 15 / square**3)
    return -square / 2 - math.log(-x * math.sqrt(2 * math.pi)) + series

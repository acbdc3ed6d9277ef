"""How much less private shares on the integers are than the Gaussian that an accountant counts.

Three steps lie between a sum of cut discrete shares and the Gaussian mechanism. With sigma^2 = m
s^2, m secret shares, and n coordinates in all releases together:

1. Rounding. A Gaussian of variance sigma^2 - 1/12, rounded, is nearly N_Z(0, sigma^2), and integers
   plus that are a function of the Gaussian mechanism's output: its exact loss applies. Call l the
   logarithm of the ratio of both chances at an integer. Within 16 sigma |l| <= 23 / sigma^4, its
   deviation is at most 0.002 / sigma^4 and its mean 2e-6 / sigma^8, under either distribution
   (computed in 200 bits; `tests/privacy/test_closeness.py`). Freedman's inequality for the sum of
   n of them: it is above

       e = 2e-6 n / sigma^8 + sqrt(2 n v log(1/d)) + 23 / sigma^4 log(1/d),   v = 4e-6 / sigma^8

   with at most d. What is beyond 16 sigma has 2^-183 a coordinate.
2. Adding. m shares N_Z(0, s^2) are N_Z(0, m s^2) but for a ratio of 10 m exp(-pi^2 s^2) a
   coordinate (Kairouz, Liu and Steinke, ICML 2021, theorem 1).
3. Cutting. Any share is cut with t = n m 2^-65.5 (`noise.CUT`). Two bounds, each enough:
   as a distance, which adds (1 + exp(epsilon)) t to delta; or where outputs lie. Outputs whose
   noise is within c sigma everywhere had uncut shares but for h = n 4 m exp(-(9.6 - c / sqrt(m))^2
   m / (2 (m - 1))), for given their sum, shares are its m-th part and N_Z of variance s^2 (m - 1) /
   m: that adds 2 h to epsilon where h < 1/2. The other outputs have at most 2 n exp(-(c - 1 /
   z)^2 / 2) to add to delta, without exp(epsilon), since that is asked of one of two neighbours
   only. The first is the better one at a small epsilon, the second at a large one.

If M and N are (e, d)-close both ways, what is (epsilon, delta) for N is (epsilon + 2 e, exp(e)
delta + d (1 + exp(epsilon + e))) for M. With d chosen as delta exp(-epsilon) 2^-20 the last term is
a millionth of delta. Over 50 rounds of 101,770 coordinates, 70 shares and sigma = 638, epsilon
grows by 10^-5 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyperlock.privacy.noise import CUT

_PART = 2.0**-20  # of delta, for what the bridge may miss


@dataclass(frozen=True)
class Shares:
    """The noise of one release.

    Attributes:
        coordinates: d.
        secret: m, shares in it that who attacks does not know.
        deviation: s, of one share, in steps.
        noise: z, what they have together over the sensitivity.
    """

    coordinates: int
    secret: int
    deviation: float
    noise: float

    @property
    def variance(self) -> float:
        """sigma^2."""
        return self.secret * self.deviation**2

    @property
    def rounded(self) -> float:
        """What is left of the noise multiplier once a twelfth of a square step is taken off."""
        return self.noise * math.sqrt(1 - 1 / (12 * self.variance))


Releases = Mapping[Shares, int]  # how often with which shares


def epsilon(ideal: Callable[[float], float], releases: Releases, delta: float) -> float:
    """Epsilon of releases with these shares.

    Args:
        ideal: epsilon of the same releases with rounded Gaussians (`Shares.rounded`), at a delta.
        releases: how often with which shares; none if Gaussians were meant.
        delta: of the whole.

    Returns:
        The smaller one by the two bounds on the cut; infinite if neither gives one.
    """
    if not releases:
        return ideal(delta)
    return min(_least(ideal, releases, delta, cut) for cut in (_by_distance, _by_place))


Cut = Callable[[Releases, float, float], tuple[float, float]]


def _least(ideal: Callable[[float], float], releases: Releases, delta: float, cut: Cut) -> float:
    """The smallest epsilon that is its own correction's, from below."""
    found = ideal(delta)
    for _ in range(100):
        loss, missed = cut(releases, found, delta)
        failure = _PART * delta * math.exp(-min(found, 600.0))
        bridge = _bridge(releases, failure)
        left = (delta * (1 - 4 * _PART) - missed) * math.exp(-bridge - loss)
        if not left > 0 or math.isinf(found):
            return math.inf
        again = ideal(left) + 2 * bridge + loss
        if again <= found * (1 + 1e-9):
            return max(again, found)
        found = again
    return math.inf


def _bridge(releases: Releases, failure: float) -> float:
    """e of the first two steps, at a chance to fail of `failure`."""
    logarithm = -math.log(failure)
    squares = sum(times * one.coordinates / one.variance**4 for one, times in releases.items())
    worst = max(23 / one.variance**2 for one in releases)
    added = sum(
        times * one.coordinates * 10 * one.secret * math.exp(-((math.pi * one.deviation) ** 2))
        for one, times in releases.items()
    )
    return 2e-6 * squares + math.sqrt(8e-6 * squares * logarithm) + worst * logarithm + added


def cut_chance(releases: Releases) -> float:
    """With what chance any secret share of these releases is cut."""
    draws = sum(times * one.coordinates * one.secret for one, times in releases.items())
    return draws * 2 * math.exp(-(CUT**2) / 2)


def _by_distance(releases: Releases, at: float, _: float) -> tuple[float, float]:
    """What the cut adds to epsilon and to delta, at an epsilon."""
    chance = cut_chance(releases)
    return 2 * chance, (1 + math.exp(min(at, 600.0))) * chance


def _by_place(releases: Releases, _: float, delta: float) -> tuple[float, float]:
    missed = _PART * delta
    if any(one.secret < 2 for one in releases):
        return math.inf, missed
    outside = math.sqrt(
        2 * math.log(2 * sum(times * one.coordinates for one, times in releases.items()) / missed)
    )
    loss = 2 * cut_chance(releases)
    for one, times in releases.items():
        m = one.secret
        left = CUT - (outside + 1 / one.noise) / math.sqrt(m)
        if left <= 0:
            return math.inf, missed
        within = 4 * m * one.coordinates * math.exp(-(left**2) * m / (2 * (m - 1)))
        loss += 2 * times * within
    return (loss, missed) if loss < 1 else (math.inf, missed)

"""The distinguishing game: what an attack on the real rounding and noise shows at least.

Sums are played many times, with the worst client there and without. Who attacks says "there" above
a threshold; its rates of false and of true alarms bound epsilon from below (Jagielski, Ullman and
Oprea, NeurIPS 2020), with Clopper and Pearson's intervals. Through mu they bound it far better
(Nasr et al., USENIX Security 2023): a sum with Gaussian noise that is as private as claimed has
Phi^-1(true) - Phi^-1(false) <= mu = 1 / z at every threshold. A mechanism that claims mu and shows
more is caught; one that shows less is not proved by it.

The threshold is chosen on one half of the games, the rates are counted on the other.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hyperlock.privacy import gaussian, noise
from hyperlock.privacy.mechanism import Mechanism

_BATCH = 100_000  # sums at a time
_FEWEST_ALARMS = 20  # a rate below that many is not chosen as a threshold's
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Shown:
    """What a game shows, each with the confidence that it was asked for.

    Attributes:
        mu: at least; at most 1 / z where the mechanism is what it claims.
        epsilon: at least, by mu, at the delta of the game.
        direct: at least, by the rates alone, whatever the noise is: (true - delta) / false.
    """

    mu: float
    epsilon: float
    direct: float


def shown(
    absent: NDArray[np.float64],
    present: NDArray[np.float64],
    delta: float,
    confidence: float = 0.95,
) -> Shown:
    """What an attack's scores show.

    Args:
        absent: float64[n], scores of games without the client, in the order they were played.
        present: float64[n], scores with it, larger ones if the attack works.
        delta: at which epsilon is asked for.
        confidence: of each figure.
    """
    half = absent.size // 2
    chosen_false, chosen_true = np.sort(absent[:half]), np.sort(present[:half])
    counted_false, counted_true = absent[half:], present[half:]
    # For mu, where both errors are alike; it is the same at every threshold, and known best there.
    thresholds = np.quantile(np.concatenate([chosen_false, chosen_true]), np.linspace(0, 1, 1001))
    false = 1 - np.searchsorted(chosen_false, thresholds) / half
    true = 1 - np.searchsorted(chosen_true, thresholds) / half
    middle = thresholds[np.argmin(np.abs(false - (1 - true)))]
    # Directly, where the ratio is largest.
    rare = np.quantile(chosen_false, 1 - np.logspace(-0.3, math.log10(_FEWEST_ALARMS / half), 100))
    rare_false = 1 - np.searchsorted(chosen_false, rare) / half
    rare_true = 1 - np.searchsorted(chosen_true, rare) / half
    ratio = (rare_true - delta) / np.maximum(rare_false, _FEWEST_ALARMS / half)
    end = rare[np.argmax(ratio)]
    # Both rates of a figure at once: half of the error for each.
    error = (1 - confidence) / 2
    least, most = _rates(counted_false, counted_true, middle, error)
    mu = max(0.0, _quantile(least) - _quantile(most))
    least, most = _rates(counted_false, counted_true, end, error)
    direct = math.log(least - delta) - math.log(most) if least > delta else 0.0
    return Shown(mu, gaussian.epsilon(mu, delta), max(0.0, direct))


def _rates(
    absent: NDArray[np.float64], present: NDArray[np.float64], threshold: float, error: float
) -> tuple[float, float]:
    """The least rate of true alarms and the largest of false ones, each but for `error`."""
    least, _ = interval(int((present >= threshold).sum()), present.size, error)
    _, most = interval(int((absent >= threshold).sum()), absent.size, error)
    return least, most


def interval(hits: int, tries: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds on a rate, each missed with at most `error`."""
    from scipy.special import betaincinv  # late: a process that only runs has no use for it

    low = float(betaincinv(hits, tries - hits + 1, error)) if hits else 0.0
    high = float(betaincinv(hits + 1, tries - hits, 1 - error)) if hits < tries else 1.0
    return low, high


def _quantile(rate: float) -> float:
    return _NORMAL.inv_cdf(min(max(rate, 1e-300), 1 - 1e-16))


def play(
    mechanism: Mechanism,
    update: NDArray[np.floating],
    games: int,
    rng: np.random.Generator,
    contributors: int | None = None,
    source: noise.Source = os.urandom,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the best attack on one client's update, others sending zeros and noise.

    Who attacks knows the update (under `sample`, a record's gradient) and how it was rounded, and
    projects the sum on it: for Gaussian noise no test is better (Neyman and Pearson). Both
    neighbours get the same noise, so that a difference between them is the update's.

    Args:
        mechanism: its own `round`, and the deviation of its shares.
        update: float[d], the worst that a client can send.
        games: how many sums of either kind.
        rng: roundings, of which a few hundred are made.
        contributors: how many shares are in a sum; None for as few as are ever released and secret.
        source: where noise comes from.

    Returns:
        float64[games] without and with the client, in units of its own length.
    """
    shares = mechanism.promise.shares if contributors is None else contributors
    rounded = _roundings(mechanism, update, min(games, 300), rng)
    lengths = np.linalg.norm(rounded, axis=1)
    absent = np.empty(games)
    present = np.empty(games)
    batch = max(1, min(_BATCH, 2**22 // update.size))
    for at in range(0, games, batch):
        part = slice(at, min(at + batch, games))
        sums = np.zeros((part.stop - at) * update.size, np.int32)
        for _ in range(shares):
            noise.add_share(sums, mechanism.spread, source)
        which = rng.integers(len(rounded), size=part.stop - at)
        along = rounded[which] / lengths[which, None]
        absent[part] = np.einsum("gd,gd->g", sums.reshape(-1, update.size), along)
        present[part] = absent[part] + lengths[which]
    return absent, present


def _roundings(
    mechanism: Mechanism, update: NDArray[np.floating], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """float64[k, d]: what the update is on the grid, k <= count times; never all zeros."""
    drawn = np.array([mechanism.round(update, rng) for _ in range(count)], np.float64)
    kept = drawn[drawn.any(axis=1)]
    return kept if len(kept) else np.ones((1, update.size)) * np.finfo(float).tiny

"""Canaries: one release that holds many planted clients, and what it shows of epsilon at least.

Each canary is an update of the whole clip in a random direction; a fair half of them is there. In
high dimension their directions are nearly orthogonal, so that one sum is as many games as there
are canaries (Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR
2024): products of the sum with those that are there and with those that are not are two Gaussians,
as far apart as mu. Other canaries are noise to each, sqrt(present / d) of its length, so that what
is shown is somewhat below what is true; it is a lower bound either way.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.privacy import gaussian, noise
from hyperlock.privacy.mechanism import Mechanism

# A run's own length may be millions; directions of so many are orthogonal enough.
_LONGEST = 8192
_CONFIDENT = 1.645  # standard errors: 95%, from one side


@dataclass(frozen=True)
class Canaries:
    """What was planted.

    Attributes:
        signs: int8[count, d], the directions.
        present: bool[count], which of them are in the sum.
    """

    signs: NDArray[np.int8]
    present: NDArray[np.bool_]

    def updates(self, clip: float) -> NDArray[np.float32]:
        """float32[present, d]: the updates that are sent, each of norm `clip`."""
        length = self.signs.shape[1]
        return (self.signs[self.present] * (clip / math.sqrt(length))).astype(np.float32)


@dataclass(frozen=True)
class Found:
    """What a release shows.

    Attributes:
        mu: the estimate.
        least: mu at least, with 95% confidence.
        epsilon: at least, with the same confidence, by `least`, at the delta asked for.
    """

    mu: float
    least: float
    epsilon: float


def plant(count: int, coordinates: int, rng: np.random.Generator) -> Canaries:
    """Random canaries, half of them present; no less than 20."""
    if count < 20:
        raise ValueError(f"{count} canaries show nothing")
    signs = rng.integers(0, 2, (count, coordinates), np.int8)
    signs *= 2
    signs -= 1
    present = np.zeros(count, bool)
    present[rng.permutation(count)[: count // 2]] = True
    return Canaries(signs, present)


def look(canaries: Canaries, total: NDArray[np.number], delta: float) -> Found:
    """What a sum tells of the canaries.

    Args:
        canaries: what was planted.
        total: number[d], the sum that was released, in any unit.
        delta: at which epsilon is asked for.
    """
    scores = canaries.signs.astype(np.float32) @ total.astype(np.float32)
    there, away = scores[canaries.present], scores[~canaries.present]
    deviation = math.sqrt((there.var(ddof=1) + away.var(ddof=1)) / 2)
    mu = float(there.mean() - away.mean()) / deviation
    # Two means, and a deviation from as many scores (Hedges and Olkin 1985, p. 86).
    error = math.sqrt(1 / there.size + 1 / away.size + mu * mu / (2 * scores.size))
    least = max(0.0, mu - _CONFIDENT * error)
    return Found(mu, least, gaussian.epsilon(least, delta))


def release(
    mechanism: Mechanism,
    delta: float,
    rng: np.random.Generator,
    count: int = 600,
    source: noise.Source = os.urandom,
) -> Found:
    """Plant, round, add and look: one release of the mechanism, with as much noise as the fewest
    contributors leave secret.

    Args:
        mechanism: its `round` and its shares; of the first 8192 coordinates if it has more.
        delta: at which epsilon is asked for.
        rng: the directions, which of them are there, and the rounding.
        count: how many canaries.
        source: where noise comes from.
    """
    canaries = plant(count, min(mechanism.coordinates, _LONGEST), rng)
    updates = canaries.updates(mechanism.promise.clip)
    # Canaries are clients, or records of one.
    if mechanism.promise.unit == "sample":
        updates = updates.sum(axis=0, keepdims=True)
    total = np.zeros(canaries.signs.shape[1], np.int32)
    for update in updates:
        total += mechanism.round(update, rng)
    for _ in range(mechanism.promise.shares):
        noise.add_share(total, mechanism.spread, source)
    return look(canaries, total, delta)

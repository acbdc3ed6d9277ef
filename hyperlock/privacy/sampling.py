"""Who and what is in a round, where that decides how private it is.

Chance that is to hide somebody comes from the operating system, and never from a run's seed, which
is in its record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperlock.randomness import generator

Source = Callable[[int], bytes]  # from a number of bytes to that many random ones
_BITS = 53  # of a draw: a chance is one of 2^53 steps


def balanced(clients: Sequence[str], size: int, seed: int, round_number: int) -> list[str]:
    """The cohort of a round in which every client is asked equally often: the clients in an order
    that the seed draws, `size` at a time, round and round; in the clients' own order.

    Whoever takes part in one round of N / n takes part in the next of them again: in R rounds, at
    most ceil(R n / N) times.
    """
    order = generator(seed, "balanced").permutation(len(clients))
    start = (round_number - 1) * size
    chosen = order[np.arange(start, start + size) % len(clients)]
    return [clients[i] for i in np.sort(chosen)]


def most_rounds(clients: int, size: int, rounds: int) -> int:
    """Rounds that one client takes part in, at most, in so many rounds of `balanced` cohorts."""
    return -(-rounds * size // clients)


def by_chance(count: int, rate: float, source: Source = os.urandom) -> NDArray[np.int64]:
    """Which of `count` are drawn, each with chance `rate` and whatever the others (Poisson
    sampling): sorted indices."""
    draws = np.frombuffer(source(8 * count), np.uint64) >> np.uint64(64 - _BITS)
    return np.flatnonzero(draws < np.uint64(round(rate * 2**_BITS)))

"""The global model, and how an exact sum of updates steps it.

The state is frozen and its step pure: whoever holds the model (the server; under keys=clients the
clients) computes the same next state from the same sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import Grid
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused
from hyperlock.learning.types import ServerOptimizer
from hyperlock.parties.messages import Release
from hyperlock.parties.session import Session

# Share of coordinates outside the range beyond which the range is doubled.
_SATURATION_TOLERATED = 1e-3
_SMALLEST_RANGE = 1e-8
# By how much a range may grow or shrink in a round.
RANGE_STEP = 16.0
# In so many rounds a range may become any other float32.
_ALL_ROUNDS = 70


@dataclass(frozen=True)
class GlobalModel:
    """State after some round.

    Attributes:
        weights: float32[parameters].
        grid: on which the next round's updates are rounded.
        optimizer: the server-side optimiser and its slots.
        weight_unit: the public sample count that gives a client weight 1; clients multiply their
            update by samples / weight_unit before the grid, so that weighting costs nothing under
            encryption.
        range_factor: the next range of a tensor is this times its largest mean magnitude in this
            round, but no more than `RANGE_STEP` times larger or smaller than this round's.
    """

    weights: NDArray[np.float32]
    grid: Grid
    optimizer: ServerOptimizer
    weight_unit: float
    range_factor: float

    @property
    def digest(self) -> bytes:
        """SHA-256 of weights and ranges, 32 bytes."""
        found = hashlib.sha256(self.weights.astype("<f4").tobytes())
        found.update(np.array(self.grid.ranges, "<f4").tobytes())
        return found.digest()

    def step(self, totals: Totals, update: NDArray[np.integer]) -> GlobalModel:
        """The next state, from what a release says of the round and the exact sum of its updates.

        Args:
            totals: of at least one update.
            update: int[parameters], on this state's grid.
        """
        mean = self.grid.dequantise(update) * (self.weight_unit / totals.samples)
        weights, optimizer = self.optimizer.step(self.weights, mean)
        grid = replace(self.grid, ranges=self._next_ranges(mean, totals))
        return replace(self, weights=weights, grid=grid, optimizer=optimizer)

    def _next_ranges(self, mean: NDArray[np.float64], totals: Totals) -> tuple[float, ...]:
        """Follow the public aggregate; float32, as they travel."""
        tensors = np.split(mean, np.cumsum(self.grid.sizes)[:-1])
        largest = [float(np.abs(tensor).max()) for tensor in tensors]
        ranges = [max(self.range_factor * value, _SMALLEST_RANGE) for value in largest]
        tolerated = _SATURATION_TOLERATED * self.weights.size * totals.contributors
        if totals.saturated > tolerated:
            ranges = [max(new, 2 * old) for new, old in zip(ranges, self.grid.ranges, strict=True)]
        return tuple(
            float(np.float32(min(max(new, old / RANGE_STEP), old * RANGE_STEP)))
            for new, old in zip(ranges, self.grid.ranges, strict=True)
        )


def ranges_follow(new: Sequence[float], old: Sequence[float], rounds: int) -> bool:
    """Whether ranges can have become these in so many rounds.

    A client asks this of every Train: with ranges that only some of the clients are sent, or that
    make most updates round to nothing, a server would see one client's update in the sum.
    """
    # A float32's rounding, once a round.
    most = (RANGE_STEP * (1 + 2**-23)) ** min(rounds, _ALL_ROUNDS)
    return all(b / most <= a <= b * most for a, b in zip(new, old, strict=True))


class ModelKeeper:
    """Holds the global model and steps it by Release messages.

    Attributes:
        model: the state after `round`.
        round: the last round that was released, 0 before the first.
        totals: of that round; None before the first.

    Args:
        model: the state after `round_number`.
        round_number: the last round that was released.
    """

    def __init__(self, model: GlobalModel, round_number: int = 0) -> None:
        self.model = model
        self.round = round_number
        self.totals: Totals | None = None

    def take(self, release: bytes, session: Session) -> None:
        """Step the model by the next round's Release.

        Args:
            release: what arrived.
            session: of the party that holds the model.

        Raises:
            MessageRefused: it is not that release, or one of no updates.
        """
        message = session.hear(Release, release)
        message.expect(round=self.round + 1)
        sums = np.frombuffer(message.parts[0], session.vector.sum_type(session.scheme.max_clients))
        totals, update = session.vector.split(sums)
        if min(totals.contributors, totals.samples) < 1:
            raise MessageRefused("the release is of no updates")
        self.model = self.model.step(totals, update)
        self.totals = totals
        self.round += 1

"""The global model, and how an exact sum of updates steps it.

The state is frozen and its step pure: whoever holds the model (the server; under keys=clients the
clients) computes the same next state from the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid
from hyperlock.errors import MessageRefused
from hyperlock.learning.types import ServerOptimizer
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import Release

# Share of coordinates outside the range beyond which the range is doubled.
_SATURATION_TOLERATED = 1e-3
_SMALLEST_RANGE = 1e-8


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
            round.
    """

    weights: NDArray[np.float32]
    grid: Grid
    optimizer: ServerOptimizer
    weight_unit: float
    range_factor: float

    @property
    def length(self) -> int:
        """Coordinates of an update's vector: totals and parameters."""
        return totals.width(self.grid.value_bits) + self.weights.size

    def read_totals(self, sums: NDArray[np.integer]) -> totals.Totals:
        """What the exact sums int[length] say about the round."""
        return totals.decode(sums[: totals.width(self.grid.value_bits)], self.grid.value_bits)

    def step(self, sums: NDArray[np.integer]) -> GlobalModel:
        """The next state from the exact sums int[length] of at least one update."""
        width, round_totals = totals.width(self.grid.value_bits), self.read_totals(sums)
        mean = self.grid.dequantise(sums[width:]) * (self.weight_unit / round_totals.samples)
        weights, optimizer = self.optimizer.step(self.weights, mean)
        grid = replace(self.grid, ranges=self._next_ranges(mean, round_totals))
        return replace(self, weights=weights, grid=grid, optimizer=optimizer)

    def _next_ranges(
        self, mean: NDArray[np.float64], round_totals: totals.Totals
    ) -> tuple[float, ...]:
        """Follow the public aggregate; float32, as they travel."""
        largest = [
            float(np.abs(part).max()) for part in np.split(mean, np.cumsum(self.grid.sizes)[:-1])
        ]
        ranges = [max(self.range_factor * value, _SMALLEST_RANGE) for value in largest]
        if (
            round_totals.saturated
            > _SATURATION_TOLERATED * self.weights.size * round_totals.contributors
        ):
            ranges = [max(new, 2 * old) for new, old in zip(ranges, self.grid.ranges, strict=True)]
        return tuple(float(np.float32(value)) for value in ranges)


class ModelKeeper:
    """Holds the global model and steps it by Release messages.

    Attributes:
        model: the state after `round`.
        round: the last round that was released, 0 before the first.
        totals: the totals of that round.

    Args:
        identity: of the party that holds it; a Release must be signed by the key holder enrolled
            with it.
        model: the state after `round_number`.
        round_number: the last round that was released.
    """

    def __init__(self, identity: Identity, model: GlobalModel, round_number: int = 0) -> None:
        self.model, self.round = model, round_number
        self.totals: totals.Totals | None = None
        self._identity = identity

    def step(self, release: bytes, key_id: str, fingerprint: str) -> None:
        """Take a Release under this key and scheme and step the model, or raise MessageRefused."""
        length = self.model.length
        message = Release.decode(release, self._identity, max_parts=1, max_part_bytes=8 * length)
        message.expect(round=self.round + 1, length=length, key_id=key_id, fingerprint=fingerprint)
        # Bytes a sum: as many as the scheme's largest sum takes.
        width = sum(map(len, message.parts)) / length
        if len(message.parts) != 1 or width not in (1, 2, 4, 8):
            raise MessageRefused("the release has another length than the model")
        sums = np.frombuffer(message.parts[0], f"<i{width:.0f}")
        round_totals = self.model.read_totals(sums)
        if min(round_totals.contributors, round_totals.samples) < 1:
            raise MessageRefused("the release is of no updates")
        self.model, self.totals = self.model.step(sums), round_totals
        self.round += 1

"""The global model, and how an exact sum of updates steps it.

The state is frozen and its step pure: whoever holds the model (the server; under keys=clients the
clients) computes the same next state from the same sums.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import Grid
from hyperlock.encryption.totals import Totals
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.files import write_whole
from hyperlock.learning.types import ServerOptimizer
from hyperlock.parties.messages import Release
from hyperlock.parties.session import Session

# Share of coordinates outside the range beyond which the range is doubled.
_SATURATION_TOLERATED = 1e-3
_SLOT_BYTES = 1024  # of a slot's name, type and shape, at most
_ROUND_BYTES = 8
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
        expected: under privacy, the public number of clients, or of samples, that a sum is divided
            by: how many there were is not told, and weights are uniform. Ranges stay as they are.
    """

    weights: NDArray[np.float32]
    grid: Grid
    optimizer: ServerOptimizer
    weight_unit: float
    range_factor: float
    expected: float | None = None

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the state, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def most_bytes(self) -> int:
        """More than `encode` ever gives: of weights and of each slot a float64 a parameter."""
        vectors = 1 + len(fields(cast(Any, self.optimizer)))
        return vectors * (8 * self.weights.size + _SLOT_BYTES) + 8 * len(self.grid.ranges)

    def encode(self) -> bytes:
        """Weights, ranges and the optimiser's slots: all that the next steps depend on."""
        slots = {
            name: [value.dtype.str, list(value.shape), value.tobytes()]
            for name, value in optimizer_state(self.optimizer).items()
        }
        weights = self.weights.astype("<f4").tobytes()
        ranges = np.array(self.grid.ranges, "<f4").tobytes()
        return cast(bytes, msgpack.packb([weights, ranges, slots]))

    def decode(self, data: bytes | memoryview) -> GlobalModel:
        """The state that `encode` wrote, of a model like this one; MessageRefused if it is none."""
        try:
            weights, ranges, slots = msgpack.unpackb(data)
            arrays = {
                name: np.frombuffer(content, dtype).reshape(shape)
                for name, (dtype, shape, content) in slots.items()
            }
            found = self.restored(
                np.frombuffer(weights, "<f4"),
                tuple(map(float, np.frombuffer(ranges, "<f4"))),
                arrays,
            )
        except Exception as error:  # msgpack and NumPy raise many kinds for malformed input
            raise MessageRefused(f"not a model ({type(error).__name__})") from None
        if found is None:
            raise MessageRefused("not a model of this run's kind")
        return found

    def restored(
        self,
        weights: NDArray[np.float32],
        ranges: tuple[float, ...],
        slots: Mapping[str, NDArray],
    ) -> GlobalModel | None:
        """This model with another state; None if that is of another architecture or optimiser."""
        known = {f.name for f in fields(cast(Any, self.optimizer))}
        fits = weights.shape == self.weights.shape and len(ranges) == len(self.grid.ranges)
        if not fits or not known >= slots.keys():
            return None
        values = {name: value if value.ndim else value.item() for name, value in slots.items()}
        return replace(
            self,
            weights=weights,
            grid=replace(self.grid, ranges=ranges),
            optimizer=replace(cast(Any, self.optimizer), **values),
        )

    def step(self, totals: Totals, update: NDArray[np.integer]) -> GlobalModel:
        """The next state, from what a release says of the round and the exact sum of its updates.

        Args:
            totals: of at least one update.
            update: int[parameters], on this state's grid.
        """
        private = self.expected is not None
        share = 1 / self.expected if self.expected else self.weight_unit / totals.samples
        mean = self.grid.dequantise(update) * share
        weights, optimizer = self.optimizer.step(self.weights, mean)
        ranges = self.grid.ranges if private else self._next_ranges(mean, totals)
        grid = replace(self.grid, ranges=ranges)
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


def optimizer_state(optimizer: Any) -> dict[str, NDArray]:
    """The arrays and numbers of a server optimiser, by field."""
    values = {f.name: getattr(optimizer, f.name) for f in fields(optimizer)}
    return {
        name: np.asarray(value)
        for name, value in values.items()
        if isinstance(value, np.ndarray | float | int)
    }


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
        file: where the state is kept, and found again by who is restarted; nowhere if None.

    Raises:
        HyperLockError: the file cannot be read.
    """

    def __init__(self, model: GlobalModel, round_number: int = 0, file: Path | None = None) -> None:
        self.model = model
        self.round = round_number
        self.totals: Totals | None = None
        self._changing = threading.Lock()
        self._file = file
        if file is not None and file.exists():
            try:
                data = file.read_bytes()
                self.model = model.decode(memoryview(data)[_ROUND_BYTES:])
                self.round = int.from_bytes(data[:_ROUND_BYTES], "little")
            except (OSError, MessageRefused) as error:
                raise HyperLockError(
                    f"{file}: the model of before the restart cannot be read ({error})\n"
                    "  try: the file as it was, or another run"
                ) from None

    def settle(self, digest: bytes, round_number: int, candidate: bytes = b"") -> None:
        """Be at the state of this digest, that after this round.

        Args:
            digest: what somebody vouches for.
            round_number: the last round that was released.
            candidate: what `GlobalModel.encode` wrote, of whatever origin.

        Raises:
            MessageRefused: neither the model nor the candidate is that state.
        """
        with self._changing:
            if self.model.digest == digest:
                return
            if hashlib.sha256(candidate).digest() != digest:
                raise MessageRefused("another model than the one that this client has stepped to")
            self.model = self.model.decode(candidate)
            self.round = round_number
            self._keep()

    def catch_up(self, release: bytes, session: Session) -> None:
        """`take` it, unless it is of a round before; several who share a model may be given the
        same."""
        message = session.hear(Release, release)
        with self._changing:
            if message.round > self.round:
                self._take(message, session)

    def take(self, release: bytes, session: Session) -> None:
        """Step the model by the next round's Release.

        Args:
            release: what arrived.
            session: of the party that holds the model.

        Raises:
            MessageRefused: it is not that release, or one of no updates.
        """
        message = session.hear(Release, release)
        with self._changing:
            self._take(message, session)

    def _take(self, message: Release, session: Session) -> None:
        message.expect(round=self.round + 1)
        sums = np.frombuffer(message.parts[0], session.vector.sum_type(session.scheme.max_clients))
        totals, update = session.vector.split(sums)
        evaluated = session.vector.evaluated and not totals.samples
        told = totals.samples or evaluated or session.vector.counted
        if totals.contributors < 1 or not told:
            raise MessageRefused("the release is of no updates")
        if not evaluated:
            self.model = self.model.step(totals, update)
        self.totals = totals
        self.round += 1
        self._keep()

    def _keep(self) -> None:
        """Write the state down, if it is to outlive the process."""
        if self._file is not None:
            number = self.round.to_bytes(_ROUND_BYTES, "little")
            write_whole(self._file, number + self.model.encode())

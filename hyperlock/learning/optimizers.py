"""Server-side optimisers: pure steps from a mean update to new weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class ServerOptimizer(Protocol):
    """A frozen optimiser that carries its own slots."""

    def step(self, weights: NDArray[np.float32], mean: NDArray[np.float64]) -> tuple[NDArray[np.float32], Self]:
        """New weights float32[parameters], and the optimiser for the next round."""
        ...


@dataclass(frozen=True)
class Sgd:
    """weights - learning_rate * mean. With rate 1 and weight differences this is FedAvg's averaging."""

    learning_rate: float

    def step(self, weights: NDArray[np.float32], mean: NDArray[np.float64]) -> tuple[NDArray[np.float32], Self]:
        """One step."""
        return (weights - self.learning_rate * mean).astype(np.float32), self

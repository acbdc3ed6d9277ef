"""What every way of a round starts from: initial weights and, client by client, samples in the
order in which HyperLock's first round trains on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH = 10
RATE = 0.1
SHAPES = ((784, 200), (200,), (200, 200), (200,), (200, 10), (10,))  # the 2NN's tensors


@dataclass(frozen=True)
class Exchange:
    """As it travels, in one file.

    Attributes:
        weights: float32[parameters], the initial model; tensors as SHAPES, one after the other.
        x: float32[clients, samples, 784] in [0, 1].
        y: int64[clients, samples].
        after: float32[parameters], the model after one round on these, in exact float32 terms: the
            mean of what HyperLock's clients train, without its grid.
    """

    weights: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    after: NDArray[np.float32]

    def save(self, path: str | Path) -> None:
        """Write it."""
        np.savez(path, weights=self.weights, x=self.x, y=self.y, after=self.after)

    @staticmethod
    def load(path: str | Path) -> Exchange:
        """Read it."""
        with np.load(path) as kept:
            return Exchange(**{name: kept[name] for name in ("weights", "x", "y", "after")})


def tensors(weights: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The flat model as its tensors, matrices [in, out]."""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])[:-1]
    parts = np.split(weights, ends)
    return [part.reshape(shape) for part, shape in zip(parts, SHAPES, strict=True)]


def accuracy(weights: NDArray[np.float32], x: NDArray[np.float32], y: NDArray) -> float:
    """The share of samples x [samples, 784] that the 2NN gets right, by NumPy."""
    activation = x
    parts = tensors(weights)
    for layer in range(0, len(parts), 2):
        if layer:
            activation = np.maximum(activation, 0)
        activation = activation @ parts[layer] + parts[layer + 1]
    return float(np.mean(activation.argmax(axis=1) == y))

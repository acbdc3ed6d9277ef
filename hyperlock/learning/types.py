"""What is handed from one part of learning to the next, by name.

    Samples -> network -> Algorithm(trainer, optimizer)
    weights, LocalData -> trainer -> LocalUpdate -> mean of many -> optimizer -> weights

Nothing here imports TensorFlow, so that parties can name what they hold without loading it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]  # [parameters]: the trainable tensors, flat, in Keras' order
Mean = NDArray[np.float64]  # [parameters]: the weighted mean of the clients' updates


@dataclass(frozen=True)
class Samples:
    """What everybody may know of the samples, and all that a model is built from.

    Attributes:
        shape: of one sample.
        dtype: uint8, which stands for [0, 1] in steps of 1/255, or float32.
        classes: number of classes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    classes: int


@dataclass(frozen=True)
class LocalData:
    """One client's training samples: x [samples, *shape], y int32[samples]."""

    x: NDArray
    y: NDArray[np.int32]


@dataclass(frozen=True)
class LocalUpdate:
    """What a client's training came to.

    Attributes:
        vector: float[parameters]; the server subtracts the mean of these.
        loss: the training loss: its mean over the batches, times the client's samples.
    """

    vector: NDArray[np.floating]
    loss: float


# From the global weights, which it must not write to, the client's data, the round (from 1) and
# what draws its batches, to its update. Several threads may call it at once.
Trainer = Callable[[Weights, LocalData, int, np.random.Generator], LocalUpdate]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in [0, 1] and mean cross-entropy (nats) over a labelled set."""

    accuracy: float
    loss: float


@dataclass(frozen=True)
class Answers:
    """How many test samples a client has asked the model, and how many of them were right."""

    samples: int
    right: int


@dataclass(frozen=True)
class Evaluator:
    """How a client evaluates the global model on test samples of its own.

    Attributes:
        test: from weights to what came of it.
        every: rounds from one evaluation to the next.
    """

    test: Callable[[Weights], Answers]
    every: int

    def due(self, round_number: int) -> bool:
        """Whether the model that this round begins with, that after the round before, is tested."""
        return round_number > 1 and (round_number - 1) % self.every == 0


class ServerOptimizer(Protocol):
    """A frozen dataclass that carries its own slots: arrays and numbers, which checkpoints keep."""

    def step(self, weights: Weights, mean: Mean) -> tuple[Weights, Self]:
        """New weights float32[parameters], and the optimiser for the next round."""
        ...


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm: what every client does, and what is done with their mean update."""

    trainer: Trainer
    optimizer: ServerOptimizer

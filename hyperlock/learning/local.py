"""What a client does with the global model: pure functions from weights and data to an update.

An update points downhill's opposite way: the server subtracts its mean, so that a gradient (FedSGD) and a
weight difference (FedAvg, the "pseudo-gradient" of Reddi et al. 2021) are used alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # TensorFlow is imported where a network is built, not where one is used
    from hyperlock.learning.network import Network

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class LocalData:
    """One client's training samples: x [samples, *shape], y int32[samples]."""

    x: NDArray
    y: NDArray[np.int32]


@dataclass(frozen=True)
class LocalUpdate:
    """float32[parameters], and the training loss summed over the client's samples."""

    vector: Vector
    loss: float


Trainer = Callable[[Vector, LocalData, np.random.Generator], LocalUpdate]


def sgd_epochs(network: Network, epochs: int, learning_rate: float) -> Trainer:
    """FedAvg's client (McMahan et al. 2017, algorithm 1): epochs of SGD; the update is before minus after."""

    def train(weights: Vector, data: LocalData, rng: np.random.Generator) -> LocalUpdate:
        trained, loss = weights, 0.0
        for _ in range(epochs):
            order = rng.permutation(len(data.y))
            trained, loss = network.train(trained, data.x, data.y, order, learning_rate)
        return LocalUpdate(weights - trained, loss)

    return train


def full_gradient(network: Network) -> Trainer:
    """FedSGD's client (McMahan et al. 2017, section 2): the gradient over all of its samples."""

    def train(weights: Vector, data: LocalData, rng: np.random.Generator) -> LocalUpdate:
        gradient, loss = network.gradient(weights, data.x, data.y)
        return LocalUpdate(gradient, loss)

    return train

"""What a client does with the global model: pure functions from weights and data to an update.

An update points downhill's opposite way: the server subtracts its mean, so that a gradient (FedSGD)
and a weight difference (FedAvg, the "pseudo-gradient" of Reddi et al. 2021) are used alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hyperlock.learning.types import LocalData, LocalUpdate, Trainer, Weights

if TYPE_CHECKING:  # TensorFlow is imported where a network is built, not where one is used
    from hyperlock.learning.network import Network


_MARGIN = 2.0**-8  # of a clip, for what float32 does to a norm and, with 4,096 samples, to a sum


@dataclass(frozen=True)
class LearningRate:
    """The rate of a round's local SGD: initial * decay^(round - 1)."""

    initial: float
    decay: float = 1.0

    def __call__(self, round_number: int) -> float:
        """The rate of a round, counted from 1."""
        return self.initial * self.decay ** (round_number - 1)


def sgd_epochs(network: Network, epochs: int, rate: LearningRate, mu: float = 0.0) -> Trainer:
    """FedAvg's client (McMahan et al. 2017, algorithm 1): epochs of SGD; the update is before minus
    after.

    With `mu` it is FedProx's (Li et al. 2020, Federated Optimization in Heterogeneous Networks,
    algorithm 2): the clients' objective has mu / 2 * |w - w_global|² added to it.
    """

    def train(
        weights: Weights, data: LocalData, round_number: int, rng: np.random.Generator
    ) -> LocalUpdate:
        trained = weights
        loss = 0.0
        for _ in range(epochs):
            order = rng.permutation(len(data.y))
            trained, loss = network.train(
                trained, data.x, data.y, order, rate(round_number), mu, weights
            )
        return LocalUpdate(weights - trained, loss)

    return train


def sgd_steps(
    network: Network, steps: int, batch_size: int, rate: LearningRate, mu: float = 0.0
) -> Trainer:
    """As `sgd_epochs`, but so many batches whatever a client has: passes over its shuffled samples,
    cut at the end."""

    def train(
        weights: Weights, data: LocalData, round_number: int, rng: np.random.Generator
    ) -> LocalUpdate:
        samples = len(data.y)
        drawn = steps * batch_size
        passes = -(-drawn // samples)
        order = np.concatenate([rng.permutation(samples) for _ in range(passes)])[:drawn]
        trained, loss = network.train(
            weights, data.x, data.y, order, rate(round_number), mu, weights
        )
        # As of one pass over the client's samples, whatever was drawn.
        return LocalUpdate(weights - trained, loss * samples / drawn)

    return train


def clipped_gradient(
    network: Network, clip: float, rate: float, draw: Callable[[int], NDArray[np.int64]]
) -> Trainer:
    """The client of privacy=sample: `rate` times the sum of the gradients of the samples that it
    draws, each clipped to this norm (Abadi et al. 2016, Deep Learning with Differential Privacy,
    algorithm 1, whose noise comes later).

    One sample more or less moves the sum by at most `clip`. Its own gradient is cut a little
    shorter: beside it, the others move to other places of their batches, where float32 rounds them
    differently, by less than 2^-20 of the clip each.

    Args:
        network: its batches decide memory, and the result but for rounding.
        clip: by how much one sample may move the sum, in L2.
        rate: of one local step; 1 for a gradient.
        draw: from a number of samples to those that are in the round.
    """

    def train(
        weights: Weights, data: LocalData, round_number: int, rng: np.random.Generator
    ) -> LocalUpdate:
        chosen = draw(len(data.y))
        gradient = network.clipped_gradient(weights, data.x, data.y, chosen, clip * (1 - _MARGIN))
        return LocalUpdate(rate * gradient, 0.0)

    return train


def full_gradient(network: Network) -> Trainer:
    """FedSGD's client (McMahan et al. 2017, section 2): the gradient over all of its samples."""

    def train(
        weights: Weights, data: LocalData, round_number: int, rng: np.random.Generator
    ) -> LocalUpdate:
        gradient, loss = network.gradient(weights, data.x, data.y)
        return LocalUpdate(gradient, loss)

    return train

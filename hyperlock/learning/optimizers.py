"""Server-side optimisers: pure steps from a mean update to new weights.

The mean update points the opposite way of downhill (`local.py`), so every optimiser subtracts it
where its paper adds Δ. An optimiser is frozen and a step returns the next one, with its slots:
whoever takes the same steps from the same sums, as the clients do under keys=clients, holds the
same model. Slots are float64[parameters].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hyperlock.learning.types import Mean, Weights

Slot = NDArray[np.float64] | float  # a number stands for a vector of it


@dataclass(frozen=True)
class Sgd:
    """weights - learning_rate * mean. With rate 1 and weight differences this is FedAvg's
    averaging.

    Attributes:
        learning_rate: of this step.
        decay: what the rate is multiplied by after every step.
    """

    learning_rate: float
    decay: float = 1.0

    def step(self, weights: Weights, mean: Mean) -> tuple[Weights, Self]:
        """New weights, and the same with the rate of the next step."""
        after = (weights - self.learning_rate * mean).astype(np.float32)
        return after, replace(self, learning_rate=self.learning_rate * self.decay)


@dataclass(frozen=True)
class Momentum:
    """FedAvgM (Hsu et al. 2019, arXiv 1909.06335, section 3).

    v <- beta v + mean; then weights - learning_rate * v.

    Attributes:
        learning_rate: of the server.
        beta: share of the last velocity in the next, in [0, 1).
        velocity: v; 0 before the first step.
    """

    learning_rate: float
    beta: float
    velocity: Slot = 0.0

    def step(self, weights: Weights, mean: Mean) -> tuple[Weights, Self]:
        """New weights, and the same with the next velocity."""
        velocity = self.beta * self.velocity + mean
        after = (weights - self.learning_rate * velocity).astype(np.float32)
        return after, replace(self, velocity=velocity)


# From v, the squared mean update and beta2 to the next v.
SecondMoment = Callable[[Slot, Mean, float], Mean]


def adagrad(second: Slot, squared: Mean, beta2: float) -> Mean:
    """FedAdagrad's next second moment: v + Δ²; beta2 plays no part."""
    return second + squared


def adam(second: Slot, squared: Mean, beta2: float) -> Mean:
    """FedAdam's next second moment: beta2 v + (1 - beta2) Δ²."""
    return beta2 * second + (1 - beta2) * squared


def yogi(second: Slot, squared: Mean, beta2: float) -> Mean:
    """FedYogi's next second moment: v - (1 - beta2) Δ² sign(v - Δ²)."""
    return second - (1 - beta2) * squared * np.sign(second - squared)


@dataclass(frozen=True)
class Adaptive:
    """Algorithm 2 of Reddi et al. 2021 (Adaptive Federated Optimization, arXiv 2003.00295), in its
    order and signs:

        m <- beta1 m + (1 - beta1) Δ
        v <- second_moment(v, Δ²)
        x <- x + learning_rate m / (sqrt(v) + tau)

    from m = 0 and v = tau², without bias correction, for the paper has none.

    Attributes:
        second_moment: `adagrad`, `adam` or `yogi`.
        learning_rate: the server's, η.
        beta1, beta2: decay of the moments, in [0, 1).
        tau: degree of adaptivity; the smaller, the more the steps of all coordinates are alike.
        first: m; 0 before the first step.
        second: v; None, which stands for tau², before the first step.
    """

    second_moment: SecondMoment
    learning_rate: float
    beta1: float
    beta2: float
    tau: float
    first: Slot = 0.0
    second: Slot | None = None

    def step(self, weights: Weights, mean: Mean) -> tuple[Weights, Self]:
        """New weights, and the same with the next moments."""
        first = self.beta1 * self.first + (1 - self.beta1) * mean
        before = self.tau**2 if self.second is None else self.second
        second = self.second_moment(before, mean**2, self.beta2)
        step = self.learning_rate * first / (np.sqrt(second) + self.tau)
        after = (weights - step).astype(np.float32)
        return after, replace(self, first=first, second=second)

"""Federated learning on logistic regression in plain NumPy and float64, written from the papers'
algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hyperlock.randomness import generator

# Weights, samples, round, client -> update.
Update = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def gradient(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy; weights are the kernel [64, 10] and the bias [10]."""
    x = x.reshape(len(x), -1).astype(np.float64)
    logits = x @ weights[:-10].reshape(-1, 10) + weights[-10:]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = shares / shares.sum(axis=1, keepdims=True) - np.eye(10)[y]
    return np.concatenate([(x.T @ errors).ravel(), errors.sum(axis=0)]) / len(y)


def sgd(
    data,
    rate: Callable[[int], float],
    mu: float = 0.0,
    epochs: int = 1,
    steps: int = 0,
    batch: int = 16,
) -> Update:
    """A client's weight difference, before minus after."""

    def batches(part: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        if not steps:
            for _ in range(epochs):
                order = rng.permutation(part.size)
                yield from (part[order[i : i + batch]] for i in range(0, part.size, batch))
            return
        stream: list[int] = []
        for _ in range(steps):
            while len(stream) < batch:
                stream += rng.permutation(part.size).tolist()
            yield part[stream[:batch]]
            del stream[:batch]

    def update(weights: np.ndarray, part: np.ndarray, number: int, client: int) -> np.ndarray:
        now = weights.copy()
        for chosen in batches(part, generator(0, "batches", number, client)):
            pull = mu * (now - weights)
            now -= rate(number) * (gradient(now, data.x_train[chosen], data.y_train[chosen]) + pull)
        return weights - now

    return update


def full_gradient(data) -> Update:
    """A client's gradient."""
    return lambda weights, part, number, client: gradient(
        weights, data.x_train[part], data.y_train[part]
    )


def play(federation, update: Update, server, cohorts: list[list[int]]) -> list[np.ndarray]:
    """The weights after each round; `server` is called with weights and the weighted mean of the
    updates."""
    weights = federation.initial.astype(np.float64)
    after = []
    for number, cohort in enumerate(cohorts, start=1):
        parts = [federation.parts[client] for client in cohort]
        updates = [
            update(weights, part, number, client)
            for part, client in zip(parts, cohort, strict=True)
        ]
        weights = server(
            weights, np.average(updates, axis=0, weights=[part.size for part in parts])
        )
        after.append(weights)
    return after


class Momentum:
    """Hsu et al. 2019: v = beta v + mean; w = w - rate v."""

    def __init__(self, rate: float, beta: float) -> None:
        self.rate = rate
        self.beta = beta
        self.v = None

    def __call__(self, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
        self.v = mean if self.v is None else self.beta * self.v + mean
        return weights - self.rate * self.v


class Adaptive:
    """Reddi et al. 2021, algorithm 2, coordinate by coordinate as printed; Δ is what goes
    downhill."""

    def __init__(self, kind: str, rate: float, beta1: float, beta2: float, tau: float) -> None:
        self.kind = kind
        self.rate = rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.tau = tau
        self.m = None
        self.v = None

    def __call__(self, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
        delta = -mean
        after = weights.copy()
        if self.m is None:
            self.m = np.zeros(delta.size)
            self.v = np.full(delta.size, self.tau**2)
        for i in range(delta.size):
            d2 = delta[i] ** 2
            self.m[i] = self.beta1 * self.m[i] + (1 - self.beta1) * delta[i]
            if self.kind == "fedadagrad":
                self.v[i] = self.v[i] + d2
            elif self.kind == "fedyogi":
                self.v[i] = self.v[i] - (1 - self.beta2) * d2 * np.sign(self.v[i] - d2)
            else:
                self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * d2
            after[i] = weights[i] + self.rate * self.m[i] / (np.sqrt(self.v[i]) + self.tau)
        return after

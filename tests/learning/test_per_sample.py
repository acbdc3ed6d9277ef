"""Clipped gradients of single samples: the sum is that of gradients made one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hyperlock.learning import models
from hyperlock.learning.network import Network
from hyperlock.learning.per_sample import dense_chain
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Samples

SHAPE = (6, 6)
FLOATS = Samples(SHAPE, np.dtype(np.float32), 4)


def convolution(shape: tuple[int, ...], classes: int) -> Any:
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [tf.keras.Input(shape), layers.Reshape((*shape, 1)), layers.Conv2D(3, 3, activation="relu"),
         layers.Flatten(), layers.Dense(classes)]
    )  # fmt: skip


def without_bias(shape: tuple[int, ...], classes: int) -> Any:
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [tf.keras.Input(shape), layers.Flatten(), layers.Dense(5, activation="tanh"),
         layers.Dense(classes, use_bias=False)]
    )  # fmt: skip


MODELS = {
    "logistic": models.logistic,
    "mlp": lambda shape, classes: models.mlp(shape, classes, units=7, layers=2),
    "without bias": without_bias,
    "convolution": convolution,
}


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest) -> Network:
    tf.keras.utils.set_random_seed(0)
    return Network(MODELS[request.param](SHAPE, 4), FLOATS, 8)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, *SHAPE)).astype(np.float32)
    return x, rng.integers(0, 4, 30).astype(np.int32)


def one_by_one(
    network: Network, x: np.ndarray, y: np.ndarray, chosen: np.ndarray, clip: float
) -> np.ndarray:
    total = np.zeros(network.parameters)
    weights = network.initial_weights()
    for i in chosen:
        gradient = network.gradient(weights, x[i : i + 1], y[i : i + 1])[0].astype(np.float64)
        total += gradient * min(1.0, clip / np.linalg.norm(gradient))
    return total


def test_only_dense_layers_in_a_row_are_a_chain() -> None:
    assert [dense_chain(make(SHAPE, 4)) is None for make in MODELS.values()] == [False] * 3 + [True]
    rows = tf.keras.Sequential([tf.keras.Input(SHAPE), tf.keras.layers.Dense(3)])
    assert dense_chain(rows) is None  # each row of a sample is a sample to it


@pytest.mark.parametrize("clip", [0.05, 1.5, 1e6])
@pytest.mark.parametrize("count", [1, 8, 19])
def test_the_sum_is_that_of_single_gradients(
    network: Network, data: tuple[np.ndarray, np.ndarray], clip: float, count: int
) -> None:
    x, y = data
    chosen = np.random.default_rng(count).permutation(30)[:count]
    found = network.clipped_gradient(network.initial_weights(), x, y, chosen, clip)
    expected = one_by_one(network, x, y, chosen, clip)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6 * np.abs(expected).max())
    assert np.linalg.norm(found) <= count * clip * (1 + 1e-5)


def test_no_sample_is_the_sum_of_none(
    network: Network, data: tuple[np.ndarray, np.ndarray]
) -> None:
    found = network.clipped_gradient(network.initial_weights(), *data, np.zeros(0, int), 1.0)
    assert found.shape == (network.parameters,) and not found.any()


@pytest.mark.parametrize("worst", [np.nan, np.inf, 1e30])
def test_a_sample_whose_gradient_is_not_finite_counts_nothing(
    network: Network, data: tuple[np.ndarray, np.ndarray], worst: float
) -> None:
    x, y = data
    broken = x.copy()
    broken[3] = worst
    weights = network.initial_weights()
    found = network.clipped_gradient(weights, broken, y, np.arange(8), 1.0)
    others = network.clipped_gradient(weights, x, y, np.delete(np.arange(8), 3), 1.0)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - others) <= 1.0 + 1e-5

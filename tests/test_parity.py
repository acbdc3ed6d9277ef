"""Whole federations on real data: what may not change the model does not, and the model is what
NumPy says it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hyperlock.encryption.grid import Grid
from hyperlock.errors import ConfigError
from hyperlock.randomness import generator
from hyperlock.settings.parse import parse

Played = Callable[..., Any]


@pytest.fixture(scope="module")
def played(federate: Callable) -> Played:
    """A federation after its rounds; the same settings are played once for all tests."""
    known: dict[tuple[str, ...], Any] = {}

    def play(*overrides: str) -> Any:
        if overrides not in known:
            known[overrides] = federate(*overrides).play()
        return known[overrides]

    return play


def assert_the_same(a: Any, b: Any) -> None:
    assert len(a.weights) == len(b.weights) == a.config.federation.rounds
    assert all(
        x.dtype == np.float32 and x.tobytes() == y.tobytes()
        for x, y in zip(a.weights, b.weights, strict=True)
    )
    assert a.accuracies == b.accuracies
    assert a.parties.keeper.totals == b.parties.keeper.totals
    assert a.parties.keeper.model.grid == b.parties.keeper.model.grid


BASE = ("federation.rounds=3",)


@pytest.mark.parametrize(
    "overrides",
    [
        BASE,
        ("encryption.value_bits=16", "federation.cohort=3"),
        ("federation=fedsgd", "encryption.value_bits=12", "model=mlp", "model.units=8"),
    ],
    ids=str,
)
def test_encryption_does_not_change_the_model(played: Played, overrides: tuple[str, ...]) -> None:
    ckks, bfv, plain = (
        played(*encryption, *overrides)
        for encryption in ((), ("encryption=bfv",), ("encryption=none",))
    )
    assert [f.parties.server._session.scheme.name for f in (ckks, bfv, plain)] == [
        "ckks",
        "bfv",
        "none",
    ]
    assert_the_same(ckks, plain)
    assert_the_same(bfv, plain)


@pytest.mark.parametrize("custody", ["clients", "server"])
def test_key_custody_does_not_change_the_model(played: Played, custody: str) -> None:
    assert_the_same(played(*BASE), played(*BASE, f"keys={custody}"))


def test_key_custody_does_not_change_the_model_whatever_the_first_range(played: Played) -> None:
    fine = ("encryption.initial_range=0.1", "encryption.value_bits=24", "encryption=none")
    assert_the_same(played(*fine), played(*fine, "keys=clients"))


@pytest.mark.parametrize("value", ["1e39", "1e-50"])
def test_a_first_range_that_float32_cannot_hold_is_refused(compose: Callable, value: str) -> None:
    with pytest.raises(ConfigError, match=r"encryption\.initial_range="):
        parse(compose(f"encryption.initial_range={value}"))


def test_workers_do_not_change_the_model(played: Played) -> None:
    assert_the_same(played(*BASE), played(*BASE, "runtime.workers=3"))


def test_keys_do_not_change_the_model(played: Played, federate: Callable) -> None:
    """Keys and encryption noise are fresh in every run, and leave no trace."""
    assert_the_same(played(*BASE), federate(*BASE).play())


def test_the_ring_does_not_change_the_model(played: Played) -> None:
    other = played(*BASE, "encryption.poly_modulus=8192", "encryption.coeff_mod_bits=[60,40,40,60]")
    assert_the_same(played(*BASE), other)


def test_the_seed_changes_the_model(played: Played) -> None:
    first = played(*BASE)
    other = played(*BASE, "seed=1")
    assert all((a != b).any() for a, b in zip(first.weights, other.weights, strict=True))


def test_the_model_learns(played: Played) -> None:
    federation = played(*BASE)
    assert federation.accuracies[-1] > 0.5
    assert federation.parties.keeper.totals.contributors == 4
    assert federation.parties.keeper.totals.samples == 300


def test_more_bits_come_closer_to_the_model_without_a_grid(played: Played) -> None:
    """The grid's error is what the reference tests below allow for; here it shrinks as it
    should."""
    fine = played("encryption=none", "encryption.value_bits=24", *BASE).weights[0]
    errors = [
        np.abs(
            played("encryption=none", f"encryption.value_bits={bits}", *BASE).weights[0] - fine
        ).mean()
        for bits in (6, 10, 14)
    ]
    assert errors[0] > 8 * errors[1] > 64 * errors[2]


# Against NumPy, in float64, on logistic regression


def gradient(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy; weights are the kernel [64, 10] and the bias [10]."""
    x = x.reshape(len(x), -1).astype(np.float64)
    logits = x @ weights[:-10].reshape(-1, 10) + weights[-10:]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = shares / shares.sum(axis=1, keepdims=True) - np.eye(10)[y]
    return np.concatenate([(x.T @ errors).ravel(), errors.sum(axis=0)]) / len(y)


def steps(grid: Grid) -> np.ndarray:
    """By how much a client's rounding may move each coordinate, and so the weighted mean of all
    clients."""
    return grid.dequantise(np.ones(sum(grid.sizes), np.int64))


def test_fedsgd_is_full_batch_gradient_descent(federate: Callable) -> None:
    """However the samples are divided, the weighted mean of the clients' gradients is the
    gradient."""
    federation = federate(
        "federation=fedsgd", "federation.learning_rate=0.5", "encryption.value_bits=16"
    ).play()
    weights = federation.initial.astype(np.float64)
    data = federation.dataset
    for after, grid in zip(federation.weights, federation.grids, strict=True):
        moved = 0.5 * gradient(weights, data.x_train, data.y_train)
        tolerance = 0.5 * steps(grid) + 1e-6
        assert (np.abs(after - (weights - moved)) < tolerance).all()
        assert np.abs(moved).max() > 100 * tolerance.max()
        weights = after.astype(np.float64)
    assert federation.parties.keeper.totals.saturated == 0


def test_fedavg_is_the_weighted_mean_of_local_epochs(federate: Callable) -> None:
    federation = federate(
        "federation.learning_rate=0.3", "encryption.value_bits=16", "federation.rounds=1"
    )
    data = federation.dataset
    start = federation.initial.astype(np.float64)
    batch = 16
    updates = []
    sizes = [part.size for part in federation.parts]
    assert len(set(sizes)) > 1 and any(size % batch for size in sizes)
    for client, part in enumerate(federation.parts):
        weights = start.copy()
        order = generator(0, "batches", 1, client).permutation(part.size)
        for i in range(0, part.size, batch):
            chosen = part[order[i : i + batch]]
            weights -= 0.3 * gradient(weights, data.x_train[chosen], data.y_train[chosen])
        updates.append(start - weights)
    mean = np.average(updates, axis=0, weights=sizes)
    after = federation.play().weights[0]
    tolerance = steps(federation.grids[0]) + 1e-5
    assert (np.abs(after - (start - mean)) < tolerance).all()
    assert np.abs(mean).max() > 100 * tolerance.max()
    # That is, weighted.
    assert (np.abs(after - (start - np.mean(updates, axis=0))) > tolerance).any()
    totals = federation.parties.keeper.totals
    assert (totals.contributors, totals.samples, totals.saturated) == (4, 300, 0)


def test_the_accuracy_is_the_share_of_right_answers(played: Played) -> None:
    federation = played(*BASE)
    x = federation.dataset.x_test.reshape(len(federation.dataset.y_test), -1)
    for weights, accuracy in zip(federation.weights, federation.accuracies, strict=True):
        answers = (x @ weights[:-10].reshape(-1, 10) + weights[-10:]).argmax(axis=1)
        assert accuracy == np.mean(answers == federation.dataset.y_test)

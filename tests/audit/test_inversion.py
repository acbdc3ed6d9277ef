"""Gradient inversion finds a sample where it must, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from hyperlock.audit import inversion, replay
from hyperlock.audit.inversion import Layer, Row, structural_similarity
from hyperlock.audit.past import Past, find
from hyperlock.experiment.simulation import build_network, build_scheme
from hyperlock.learning.types import Samples
from hyperlock.settings.parse import parse


def rows(past: Past) -> dict[str, Row]:
    """Of the round after the checkpoint."""
    number = past.rounds + 1
    played = replay.play(past, number, replay.model_before(past, number))
    scheme = build_scheme(past.config, past.network.sizes, past.guarantee)
    return {row.name: row for row in inversion.invert(past, played, scheme)}


def test_a_client_with_one_sample_is_read_and_its_sum_with_many_others_is_not(
    played: Callable[..., Path],
) -> None:
    job = (
        "dataset.train_samples=40", "model=mlp", "model.units=16", "federation.clients=40",
        "federation.rounds=2", "encryption=bfv", "encryption.value_bits=12",
    )  # fmt: skip
    found = rows(find(str(played("single", *job))))
    assert list(found) == ["original", "control", "update", "other", "sum", "ciphertext"]
    assert found["control"].median > 0.99
    assert found["update"].median > 0.9 and found["update"].images.shape == (1, 8, 8)
    assert found["sum"].median < 0.8
    assert found["ciphertext"].median < 0.5
    assert found["other"].median < 0.8


def test_many_samples_of_one_client_hide_each_other(played: Callable[..., Path]) -> None:
    job = (
        "dataset.train_samples=800", "model=mlp", "model.units=16", "federation.clients=4",
        "federation.rounds=3", "encryption=none",
    )  # fmt: skip
    past = find(str(played("many", *job)))
    found = rows(past)
    assert "ciphertext" not in found  # there is none
    assert found["control"].median > 0.99 and len(found["original"].images) == inversion.SHOWN
    assert found["update"].median < 0.8
    # As close as to samples that the client never had, or nearly.
    assert abs(found["update"].median - found["other"].median) < 0.2


def test_a_convolution_comes_first(compose: Callable[..., DictConfig]) -> None:
    config = parse(compose("dataset=digits", "model=cnn"))
    samples = Samples((8, 8), np.dtype(np.float32), 10)
    assert inversion.first_dense(build_network(config, samples)) is None


def test_the_layer_is_where_the_vector_has_it() -> None:
    """A gradient of one sample, by hand."""
    rng = np.random.default_rng(0)
    x, errors = rng.random(64), rng.normal(size=5)
    errors[2] = 0  # a unit that was not moved says nothing
    vector = np.concatenate([np.outer(x, errors).ravel(), errors, rng.normal(size=9)])
    images = inversion.Images((8, 8), 0.0, 1.0)
    candidates = inversion._candidates(vector, Layer(64, 5), images)
    assert candidates.shape == (8, 8, 8)
    np.testing.assert_allclose(candidates[:4], np.broadcast_to(x.reshape(8, 8), (4, 8, 8)))
    nothing = inversion._candidates(np.zeros_like(vector), Layer(64, 5), images)
    assert nothing.shape == (1, 8, 8) and not nothing.any()


@pytest.mark.parametrize("shape", [(9, 12), (8, 8, 3), (5, 6)])
def test_similarity_is_the_papers(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    one = rng.random(shape)
    many = np.clip(one + rng.normal(0, 0.2, (3, *shape)), 0, 1)
    window = min(7, *shape[:2])
    channels = np.stack([one, *many]).reshape(4, *shape[:2], -1)
    expected = []
    for other in channels[1:]:
        scores = []
        for top in range(shape[0] - window + 1):
            for left in range(shape[1] - window + 1):
                for channel in range(channels.shape[3]):
                    place = np.s_[top : top + window, left : left + window, channel]
                    a, b = channels[0][place], other[place]
                    both = np.mean(a * b) - a.mean() * b.mean()
                    light = (2 * a.mean() * b.mean() + 1e-4) / (
                        a.mean() ** 2 + b.mean() ** 2 + 1e-4
                    )
                    scores.append(light * (2 * both + 9e-4) / (a.var() + b.var() + 9e-4))
        expected.append(np.mean(scores))
    np.testing.assert_allclose(structural_similarity(many, one), expected, rtol=1e-6)
    assert structural_similarity(one[None], one) == pytest.approx(1.0)

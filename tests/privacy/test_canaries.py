"""Canaries: one release shows no more than is claimed, and halved noise at once."""

import time

import numpy as np
import pytest

from hyperlock.privacy import gaussian
from hyperlock.privacy.canaries import look, plant, release
from hyperlock.privacy.mechanism import Mechanism, Promise, fit
from tests.privacy.planted import Halved, promise

DELTA = 1e-5
CLAIM = gaussian.epsilon(1.0, DELTA)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def mechanism(kind: type[Mechanism] = Mechanism, coordinates: int = 7850) -> Mechanism:
    fitted = fit(promise(70), coordinates)
    return kind(fitted.promise, fitted.coordinates, fitted.bound, fitted.signal)


@pytest.mark.parametrize("coordinates", [7850, 1_663_370])
def test_the_mechanism_keeps_its_claim(coordinates: int) -> None:
    start = time.thread_time()
    found = release(mechanism(coordinates=coordinates), DELTA, rng(1), source=rng(2).bytes)
    assert time.thread_time() - start < 2  # 0.13 s on a quiet core
    assert 0.6 < found.least < 1 and 2 < found.epsilon < CLAIM
    assert found.least < found.mu < 1.2


def test_halved_noise_is_caught() -> None:
    found = release(mechanism(Halved), DELTA, rng(1), source=rng(2).bytes)
    assert found.least > 1.4 and found.epsilon > 1.5 * CLAIM


def test_noise_of_the_operating_system_is_seen_for_what_it_is() -> None:
    assert release(mechanism(Halved), DELTA, rng(3)).epsilon > CLAIM
    assert release(mechanism(), DELTA, rng(3)).epsilon < 1.5 * CLAIM


def test_records_as_canaries() -> None:
    sampled = Promise("sample", clip=1.0, noise=1.0, fewest=10, records=300)
    found = release(fit(sampled, 7850), DELTA, rng(4), source=rng(5).bytes)
    assert 0.5 < found.least < 1 and found.epsilon < CLAIM


def test_what_is_shown_is_a_lower_bound() -> None:
    above = 0
    for seed in range(40):
        canaries = plant(200, 2000, rng(seed))
        total = canaries.updates(1.0).sum(axis=0) + rng(100 + seed).standard_normal(2000)
        above += look(canaries, total, DELTA).least > 1
    assert above <= 5  # 2 are expected


def test_a_sum_without_canaries_shows_nothing() -> None:
    found = look(plant(600, 2000, rng(6)), rng(7).standard_normal(2000), DELTA)
    assert found.least < 0.1 and found.epsilon < 0.5


def test_too_few_canaries_are_refused() -> None:
    with pytest.raises(ValueError, match="19 canaries"):
        plant(19, 100, rng(8))

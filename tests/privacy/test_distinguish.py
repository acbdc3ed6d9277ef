"""The distinguishing game on the real rounding and noise: the mechanism keeps what it claims, and
every planted fault is caught."""

import time

import numpy as np
import pytest

from hyperlock.privacy import gaussian
from hyperlock.privacy.distinguish import Shown, interval, play, shown
from hyperlock.privacy.mechanism import Mechanism
from tests.privacy.planted import Halved, Unchecked, Weighted, promise

DELTA = 1e-5
CLAIM = gaussian.epsilon(1.0, DELTA)  # of one release at z = 1
FEW = 20_000
MANY = 1_000_000


def fine(kind: type[Mechanism] = Mechanism, fewest: int = 4) -> Mechanism:
    return kind(promise(fewest), coordinates=4, bound=200, signal=200)


def coarse(kind: type[Mechanism] = Mechanism) -> Mechanism:
    """A grid that `fit` refuses, on which rounding alone may double the norm."""
    return kind(promise(2), coordinates=64, bound=5, signal=5)


def game(mechanism: Mechanism, games: int, contributors: int | None = None) -> Shown:
    """With noise of a seed, so that a bound with 95% is the same bound every time."""
    worst = np.full(mechanism.coordinates, 0.5 / mechanism.coordinates**0.5, np.float32)
    source = np.random.default_rng(1).bytes
    played = play(mechanism, worst, games, np.random.default_rng(2), contributors, source)
    return shown(*played, DELTA)


def caught(found: Shown) -> bool:
    return found.mu > 1 or found.epsilon > CLAIM or found.direct > CLAIM


def test_the_mechanism_keeps_its_claim() -> None:
    start = time.thread_time()
    found = game(fine(), FEW)
    assert time.thread_time() - start < 4  # 0.1 s on a quiet core
    assert not caught(found)
    assert found.mu > 0.9


def test_with_noise_of_the_operating_system_too() -> None:
    worst = np.full(4, 0.25, np.float32)
    for kind, is_caught in ((Mechanism, False), (Halved, True)):
        played = play(fine(kind), worst, FEW, np.random.default_rng())
        assert caught(shown(*played, DELTA, confidence=1 - 1e-9)) == is_caught


def test_halved_noise_is_caught() -> None:
    found = game(fine(Halved), FEW)
    assert caught(found) and found.epsilon > 2 * CLAIM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "contributors"),
    [(fine(), None), (fine(fewest=3), 3), (coarse(), None)],
    ids=["4 of 4", "3 of 4, for 3", "a coarse grid, checked"],
)
def test_a_million_sums_keep_the_claim(mechanism: Mechanism, contributors: int | None) -> None:
    found = game(mechanism, MANY // (1 if mechanism.coordinates == 4 else 5), contributors)
    assert not caught(found)
    assert found.mu > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "contributors", "mu"),
    [
        (fine(), 3, 1.14),
        (fine(Halved), None, 1.98),
        (fine(Weighted), None, 1.18),
        (coarse(Unchecked), None, 1.2),
    ],
    ids=["for more than answer", "halved", "a weight after the clip", "unchecked"],
)
def test_a_million_sums_show_every_fault(
    mechanism: Mechanism, contributors: int | None, mu: float
) -> None:
    found = game(mechanism, MANY // (1 if mechanism.coordinates == 4 else 5), contributors)
    assert caught(found) and found.mu > mu


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 3.0])
def test_what_is_shown_is_a_lower_bound(mu: float) -> None:
    draws = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        found = shown(draws.standard_normal(2000), draws.standard_normal(2000) + mu, DELTA)
        missed += found.mu > mu
        assert found.direct <= gaussian.epsilon(mu, DELTA) + (0 if mu else 0.2)
    assert missed <= 10  # 5 of 100 are


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    assert interval(0, 20, 0.025) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert interval(20, 20, 0.025) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    # Clopper and Pearson 1934: 10 of 100 at 95%.
    assert interval(10, 100, 0.025) == (
        pytest.approx(0.0490, abs=1e-4),
        pytest.approx(0.1762, abs=1e-4),
    )

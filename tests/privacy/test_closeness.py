"""The constants of closeness.py, computed, and that no share less is counted than there is."""

import math

import mpmath
import pytest

from hyperlock.privacy import closeness, gaussian
from hyperlock.privacy.closeness import Shares

DELTA = 1e-5


@pytest.mark.parametrize("sigma", [3.0, 4.25, 10.0, 40.0])
def test_a_rounded_gaussian_is_as_close_as_is_said(sigma: float) -> None:
    with mpmath.workprec(200):
        two = 2 * mpmath.mpf(sigma) ** 2
        root = mpmath.sqrt(two - mpmath.mpf(1) / 6)  # of twice the variance, less a twelfth
        whole = 1 + 2 * sum(mpmath.exp(-(k**2) / two) for k in range(1, int(26 * sigma)))
        largest, square, mean, other = 0, 0, 0, 0
        for k in range(int(16 * sigma) + 1):
            times = 2 if k else 1
            discrete = mpmath.exp(-(k**2) / two) / whole
            edges = [mpmath.erfc((k + side) / root) for side in (-0.5, 0.5)]
            rounded = (edges[0] - edges[1]) / 2
            loss = mpmath.log(discrete / rounded)
            largest = max(largest, abs(loss))
            square += times * max(discrete, rounded) * loss**2
            mean += times * discrete * loss
            other -= times * rounded * loss
        assert largest <= 23 / sigma**4
        assert mpmath.sqrt(square) <= 0.002 / sigma**4
        assert 0 <= mean <= 2e-6 / sigma**8 and 0 <= other <= 2e-6 / sigma**8


def known(rounds: int, noise: float, shares: int, bound: float = 638) -> tuple[float, float]:
    """Epsilon with Gaussians, and with shares over 101,770 coordinates."""
    made = Shares(101_770, shares, noise * bound / math.sqrt(shares), noise)
    root = math.sqrt(rounds)
    ideal = gaussian.epsilon(root / noise, DELTA)
    real = closeness.epsilon(
        lambda delta: gaussian.epsilon(root / made.rounded, delta), {made: rounds}, DELTA
    )
    return ideal, real


@pytest.mark.parametrize(
    ("rounds", "noise", "shares", "most"),
    [
        (1, 1.0, 2, 1e-5),
        (5, 1.0, 70, 1e-5),
        (5, 1.0, 10, 1e-3),
        (14, 0.5, 70, 1e-4),
        (14, 1, 10, 0.03),
    ],
)
def test_shares_cost_little(rounds: int, noise: float, shares: int, most: float) -> None:
    ideal, real = known(rounds, noise, shares)
    assert ideal < real < ideal + most


def test_every_step_between_is_paid_for() -> None:
    """Formulas 1 to 3 of the docstring, on coarse shares, where they count."""
    made = Shares(coordinates=5000, secret=4, deviation=3.0, noise=2.0)
    assert made.rounded == pytest.approx(2 * math.sqrt((36 - 1 / 12) / 36), rel=1e-12)
    epsilon, n, sigma = 3.0, 5000 * 20, 6.0
    logarithm = math.log(2**20 / DELTA) + epsilon
    bridge = 2e-6 * n / sigma**8 + math.sqrt(2 * n * 4e-6 / sigma**8 * logarithm)
    bridge += 23 / sigma**4 * logarithm
    asked = []

    def ideal(delta: float) -> float:
        asked.append(delta)
        return epsilon

    real = closeness.epsilon(ideal, {made: 20}, DELTA)
    assert real == pytest.approx(epsilon + 2 * bridge, rel=0.03)
    assert real > epsilon + 2 * bridge  # at what it comes to, the logarithm is larger
    assert min(asked) < DELTA * math.exp(-bridge)
    many = closeness.epsilon(ideal, {made: 40}, DELTA)
    assert many > real


def test_few_shares_at_an_epsilon_without_meaning_have_none() -> None:
    assert known(14, 0.5, 2)[1] == math.inf


def test_coarse_shares_cost_more_than_fine_ones() -> None:
    prices = []
    for bound in (30, 60, 120):
        ideal, real = known(1, 1.0, 70, bound)
        prices.append(real - ideal)
    assert prices[0] > prices[1] > prices[2]


def test_a_cut_is_as_rare_as_the_study_says() -> None:
    run = {Shares(101_770, 100, 100.0, 1.0): 50}
    assert 2**-37 < closeness.cut_chance(run) < 2**-36

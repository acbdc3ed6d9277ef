"""Budgets: the noise that an epsilon needs, the rounds it pays for, and what is refused."""

import math

import pytest

from hyperlock.errors import ConfigError
from hyperlock.privacy.budget import MAX_NOISE, Plan, check_rounds, noise_for, rounds_for

DELTA = 1e-5


# studies/privacy.md: by dp-accounting's own calibration.
@pytest.mark.parametrize(
    ("epsilon", "rate", "rounds", "noise"),
    [(8, 0.1, 50, 0.804), (2, 0.1, 50, 1.751), (8, 1.0, 10, 1.898)],
)
def test_figures_of_the_study(epsilon: float, rate: float, rounds: int, noise: float) -> None:
    assert noise_for(epsilon, Plan(rounds, DELTA, rate)) == pytest.approx(noise, abs=0.002)


@pytest.mark.parametrize(
    ("epsilon", "plan"),
    [
        (8.0, Plan(5, DELTA)),
        (0.5, Plan(150, DELTA, rate=0.02)),
        (100.0, Plan(3, DELTA)),
        (0.01, Plan(3, DELTA)),
        (8.0, Plan(5, DELTA, coordinates=101_770, secret=70)),
        (2.0, Plan(50, DELTA, rate=0.1, coordinates=101_770, secret=70, short=1e-8)),
    ],
)
def test_noise_is_the_least_that_stays_within(epsilon: float, plan: Plan) -> None:
    noise = noise_for(epsilon, plan)
    assert plan.epsilon(noise) <= epsilon < plan.epsilon(noise - 0.0015)
    assert noise == round(noise, 3)
    paid = rounds_for(epsilon, noise, plan)
    assert paid >= plan.rounds
    check_rounds(epsilon, noise, plan, rounds=500)


def test_rounds_are_the_most_that_stay_within() -> None:
    plan = Plan(rounds=1, delta=DELTA)
    paid = rounds_for(8.0, 1.0, plan)
    assert Plan(paid, DELTA).epsilon(1.0) <= 8.0 < Plan(paid + 1, DELTA).epsilon(1.0)
    assert rounds_for(1.0, 1.0, plan) == 0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy.epsilon=.*\n.*above 0"):
        noise_for(epsilon, Plan(1, DELTA))


def test_what_no_noise_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"over 500000 rounds .* gives 2.94\n.*above 2.94"):
        noise_for(0.01, Plan(500_000, DELTA))
    with pytest.raises(ConfigError, match="gives none at all"):
        noise_for(8.0, Plan(50, DELTA, rate=0.1, short=1e-6))
    assert Plan(50, DELTA, rate=0.1, short=1e-6).epsilon(MAX_NOISE) == math.inf


def test_more_rounds_than_are_paid_for_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_rounds(8.0, 1.0, Plan(5, DELTA), rounds=50)
    text = str(caught.value)
    assert "federation.rounds=50: one client is in 5 of them" in text
    assert "epsilon 11.5, and 8 is the budget" in text
    assert "put one client in 2" in text
    assert "privacy.noise_multiplier=1.343" in text

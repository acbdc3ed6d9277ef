"""Accounting: the figures of the literature and of studies/privacy.md, and nothing claimed that is
not given."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hyperlock.errors import ConfigError
from hyperlock.privacy import gaussian
from hyperlock.privacy.accounting import Spent, check_delta, epsilons, shortfall
from hyperlock.privacy.closeness import Shares
from hyperlock.privacy.mechanism import Promise, fit

DELTA = 1e-5


def balanced(rounds: int, noise: float, groups: int = 10) -> list[Spent]:
    return [Spent(n, noise, cohort=frozenset([n % groups])) for n in range(rounds)]


def poisson(rounds: int, noise: float, rate: float = 0.1) -> list[Spent]:
    cohorts = np.random.default_rng(0).random((rounds, 1000)) < rate
    return [
        Spent(n, noise, cohort_rate=rate, cohort=frozenset(np.flatnonzero(cohorts[n]).tolist()))
        for n in range(rounds)
    ]


# q=.1, T=50, delta 1e-5: the table of studies/privacy.md.
@pytest.mark.parametrize(
    ("noise", "hidden", "five", "fourteen"),
    [
        (0.5, 22.62, 28.4, 59.1),
        (0.7, 10.71, 18.1, 36.4),
        (1.0, 5.148, 11.48, 22.3),
        (1.5, 2.530, 7.00, 13.2),
        (2.0, 1.653, 4.98, 9.21),
    ],
)
def test_figures_of_the_study(noise: float, hidden: float, five: float, fourteen: float) -> None:
    assert epsilons(poisson(50, noise), DELTA).hidden == pytest.approx(hidden, rel=5e-4)
    assert epsilons(balanced(50, noise), DELTA).known == pytest.approx(five, rel=3e-3)
    everybody = [Spent(n, noise) for n in range(14)]
    assert epsilons(everybody, DELTA).known == pytest.approx(fourteen, rel=3e-3)


# Ten clients, records drawn at q=.02, 150 rounds.
@pytest.mark.parametrize(("noise", "epsilon"), [(1.0, 1.65), (2.0, 0.50), (4.0, 0.21)])
def test_figures_of_records(noise: float, epsilon: float) -> None:
    spent = [Spent(n, noise, record_rate=0.02) for n in range(150)]
    both = epsilons(spent, DELTA)
    assert both.known == both.hidden == pytest.approx(epsilon, abs=0.005)


def test_a_gaussian_is_what_the_convolution_makes_of_it() -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    for rounds, noise in ((1, 1.0), (5, 1.0), (14, 2.0), (3, 20.0)):
        loss = pld.from_gaussian_mechanism(noise).self_compose(rounds)
        exact = gaussian.epsilon(math.sqrt(rounds) / noise, DELTA)
        assert exact == pytest.approx(loss.get_epsilon_for_delta(DELTA), abs=2e-4)
        assert math.exp(gaussian.log_delta(math.sqrt(rounds) / noise, exact)) <= DELTA


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.0, 7.5, 40.0, 200.0])
def test_a_gaussian_of_any_mu_has_its_epsilon(mu: float) -> None:
    found = gaussian.epsilon(mu, DELTA)
    assert gaussian.epsilon(mu * 1.01, DELTA) >= found
    if found:
        assert gaussian.log_delta(mu, found) == pytest.approx(math.log(DELTA), abs=1e-6)
    first, second = stats.norm.logcdf([mu / 2 - found / mu, -mu / 2 - found / mu])
    exact = first + math.log(-math.expm1(found + second - first))
    assert gaussian.log_delta(mu, found) == pytest.approx(exact, rel=1e-6)


def test_who_was_in_most_rounds_pays_most() -> None:
    spent = [*balanced(10, 1.0), *(Spent(n, 1.0, cohort=frozenset([3, 4])) for n in range(4))]
    assert epsilons(spent, DELTA).known == epsilons([Spent(n, 1.0) for n in range(5)], DELTA).known
    # Fewer rounds with less noise may cost more than more rounds with more.
    mixed = [Spent(1, 0.5, cohort=frozenset([1])), *balanced(3, 1.0, groups=1)]
    assert epsilons(mixed, DELTA).known == epsilons([Spent(1, 0.5)], DELTA).known


def test_a_cohort_that_somebody_drew_is_no_secret() -> None:
    both = epsilons(balanced(50, 1.0), DELTA)
    assert both.known == both.hidden
    both = epsilons(poisson(50, 1.0), DELTA)
    assert both.hidden < both.known


def test_nothing_spent_costs_nothing() -> None:
    both = epsilons([], DELTA)
    assert (both.known, both.hidden) == (0.0, 0.0)
    everywhere = [Spent(1, 1.0)] * 3
    assert epsilons(everywhere, DELTA).known < epsilons([*everywhere, Spent(4, 9.0)], DELTA).known


def test_a_sweep_composes_its_trials() -> None:
    trial = balanced(50, 1.0)
    ten = epsilons([one for _ in range(10) for one in trial], DELTA)
    assert ten.known == pytest.approx(gaussian.epsilon(math.sqrt(50), DELTA))
    other = [Spent(n, 2.0, record_rate=0.05) for n in range(20)]
    together = epsilons([*trial, *other], DELTA).known
    alone = [epsilons(part, DELTA).known for part in (trial, other)]
    assert max(alone) < together < sum(alone)


def test_what_shares_cost_beside_is_small_and_never_less_than_nothing() -> None:
    mechanism = fit(Promise("client", 0.5, 1.0, 70), 101_770, 10)
    for spent in (balanced(50, 1.0), poisson(50, 1.0)):
        meant = epsilons(spent, DELTA)
        made = epsilons([replace(one, shares=mechanism.shares(100)) for one in spent], DELTA)
        for ideal, real in ((meant.known, made.known), (meant.hidden, made.hidden)):
            assert ideal < real < ideal + 5e-5


def test_noise_that_is_missing_is_not_claimed() -> None:
    assert epsilons([Spent(1, 0.0)], DELTA).known == math.inf
    # One share alone cannot hide the cut at a large epsilon.
    alone = Shares(100, 1, 20.0, 0.05)
    assert epsilons([Spent(1, 0.05, shares=alone)], DELTA).known == math.inf
    with pytest.raises(ValueError, match="for 1"):
        Spent(1, 2.0, shares=Shares(100, 5, 20.0, 1.0))
    with pytest.raises(ValueError, match="other records"):
        Spent(1, 1.0, record_rate=0.1, cohort_rate=0.1)
    with pytest.raises(ValueError, match="some do not"):
        epsilons([Spent(1, 1.0), Spent(2, 1.0, shares=Shares(100, 5, 20.0, 1.0))], DELTA)


def test_a_delta_as_large_as_one_member_is_refused() -> None:
    check_delta(1e-5, 1000, "client")
    for delta, members in ((1e-3, 1000), (0.1, 10), (0.0, 10), (math.nan, 10)):
        with pytest.raises(ConfigError, match=f"with {members} clients"):
            check_delta(delta, members, "client")
    with pytest.raises(ConfigError, match=r"below 0.001\n.*privacy.delta=1e-"):
        check_delta(1e-3, 1000, "client")


def test_drawing_again_costs_what_it_makes_certain() -> None:
    exact = 0.1 * stats.binom.pmf(39, 999, 0.1) / stats.binom.sf(39, 1000, 0.1)
    assert shortfall(1000, 0.1, 40) == pytest.approx(exact, rel=1e-6)
    # As docs/privacy.md has it.
    assert shortfall(1000, 0.1, 70) == pytest.approx(1.375e-5, rel=1e-3)
    assert shortfall(1000, 0.1, 50) == pytest.approx(1.604e-10, rel=1e-3)
    assert shortfall(1000, 0.1, 100) > 1e-3 > shortfall(1000, 0.1, 60)
    assert shortfall(10, 0.1, 11) == shortfall(10, 1.0, 11) == 1.0
    assert shortfall(10, 1.0, 10) == 0.0
    spent = [replace(one, short=1e-8) for one in poisson(50, 1.0)]
    assert epsilons(spent, DELTA).hidden > epsilons(poisson(50, 1.0), DELTA).hidden
    spent = [replace(one, short=1e-6) for one in spent]
    assert epsilons(spent, DELTA).hidden == math.inf


def test_a_small_case_of_drawing_again() -> None:
    """Three clients, cohorts of two or more: the chance that one is in only because it has to."""
    rate = 0.3
    alone = rate * 2 * rate * (1 - rate)  # one of the two others, and this one
    enough = 3 * rate**2 * (1 - rate) + rate**3
    assert shortfall(3, rate, 2) == pytest.approx(alone / enough)


def test_a_round_is_counted_in_little_time() -> None:
    mechanism = fit(Promise("client", 0.5, 1.0, 70), 101_770, 10)
    spent = [replace(one, shares=mechanism.shares(100)) for one in poisson(50, 1.0)]
    epsilons(spent[:1], DELTA)
    start = time.thread_time()
    for rounds in (48, 49, 50):
        epsilons(spent[:rounds], DELTA)
    assert (time.thread_time() - start) / 3 < 0.3  # 0.05 s on a quiet core

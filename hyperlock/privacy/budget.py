"""A budget before a run: the noise that an epsilon needs, and the rounds that it pays for.

>>> plan = Plan(rounds=5, delta=1e-5)  # one client's: balanced cohorts, 50 rounds of a tenth
>>> noise_for(8.0, plan)
1.343
>>> rounds_for(8.0, 1.343, plan)
5
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hyperlock.errors import ConfigError
from hyperlock.privacy.accounting import Spent, repeated
from hyperlock.privacy.closeness import Shares
from hyperlock.privacy.noise import LEAST_DEVIATION

# A mean of noise a thousand times the clip teaches nothing, and no budget is met by more.
MAX_NOISE = 1000.0
_LEAST_NOISE = 0.05  # here a round alone costs epsilon 280
_TOLERANCE = 1e-3
_MANY = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What one client, or record, is going to go through.

    Attributes:
        rounds: how many rounds it is in. Known participation: those of the client that is in most
            (balanced: the rounds times the fraction, rounded up). Hidden: all of them.
        delta: of the whole.
        rate: the secret chance to be in one of them: of a record under `sample`, of a client where
            cohorts are hidden; else 1.
        coordinates: d; 0 counts Gaussians, as in the literature.
        secret: shares of noise, m0 - c; on the coarsest grid that `mechanism.fit` allows.
        short: what a round adds to delta (`accounting.shortfall`).
    """

    rounds: int
    delta: float
    rate: float = 1.0
    coordinates: int = 0
    secret: int = 2
    short: float = 0.0

    def epsilon(self, noise: float) -> float:
        """What it comes to with so much noise; infinite where this delta admits none."""
        shares = None
        if self.coordinates:
            deviation = noise * math.sqrt(self.coordinates / self.secret)
            coarsest = max(LEAST_DEVIATION, deviation)
            shares = Shares(self.coordinates, self.secret, coarsest, noise)
        one = Spent(1, noise, record_rate=self.rate, shares=shares, short=self.short)
        return repeated(one, self.rounds, self.delta)


def noise_for(epsilon: float, plan: Plan) -> float:
    """The smallest noise multiplier that stays within epsilon, to a thousandth, upwards.

    Raises:
        ConfigError: epsilon is not positive, or no noise up to `MAX_NOISE` reaches it.
    """
    if not 0 < epsilon < math.inf:
        raise ConfigError("privacy.epsilon", epsilon, "no budget", allowed="a number above 0")
    low, high = 0.0, 1.0
    while plan.epsilon(high) > epsilon:
        low, high = high, 2 * high
        if high > MAX_NOISE:
            raise _out_of_reach(epsilon, plan)
    # Downwards from 1, but not to where loss distributions grow without end.
    while low == 0.0 and high > _LEAST_NOISE:
        if plan.epsilon(high / 2) > epsilon:
            low = high / 2
        else:
            high /= 2
    while high - low > _TOLERANCE / 4 and low > 0:
        middle = (low + high) / 2
        if plan.epsilon(middle) > epsilon:
            low = middle
        else:
            high = middle
    return round(math.ceil(high / _TOLERANCE) * _TOLERANCE, 3)


def _out_of_reach(epsilon: float, plan: Plan) -> ConfigError:
    least = plan.epsilon(MAX_NOISE)
    reached = f"{least:.3g}" if math.isfinite(least) else "none at all"
    return ConfigError(
        "privacy.epsilon",
        epsilon,
        f"no noise reaches it: over {plan.rounds} rounds at delta {plan.delta:g}, {MAX_NOISE:.0f}"
        f" times the clip gives {reached}",
        allowed=f"above {least:.3g}" if math.isfinite(least) else "",
        hint="fewer rounds, or a larger privacy.delta",
    )


def rounds_for(epsilon: float, noise: float, plan: Plan) -> int:
    """How many rounds of `plan`, whatever it says of them, stay within epsilon: 0 to 10^6."""
    low, high = 0, 1
    while high <= _MANY and replace(plan, rounds=high).epsilon(noise) <= epsilon:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if replace(plan, rounds=middle).epsilon(noise) <= epsilon:
            low = middle
        else:
            high = middle
    return min(low, _MANY)


def check_rounds(epsilon: float, noise: float, plan: Plan, rounds: int) -> None:
    """Refuse a plan that costs more than it may; `rounds` is what was asked of all clients.

    Raises:
        ConfigError: it does; names what it costs, the rounds that are paid for, and the noise that
            all of them need.
    """
    cost = plan.epsilon(noise)
    if cost <= epsilon:
        return
    paid = rounds_for(epsilon, noise, plan)
    raise ConfigError(
        "federation.rounds",
        rounds,
        f"one client is in {plan.rounds} of them, which with noise_multiplier={noise:g} costs"
        f" epsilon {cost:.3g}, and {epsilon:g} is the budget",
        allowed=f"as many as put one client in {paid}",
        hint=f"privacy.noise_multiplier={noise_for(epsilon, plan):.4g}",
    )

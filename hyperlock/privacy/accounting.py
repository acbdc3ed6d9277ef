"""What releases have cost: epsilon, exactly counted, for who knows who took part and for who does
not.

`known`: who attacks knows which rounds a client was in; the key holder always does, and the server
wherever it drew the cohort. The client that was in most pays most. Under `client` its rounds are
plain Gaussians, which compose in closed form (`gaussian.py`); under `sample` each of them is
amplified by the records that the client drew, which it does secretly.

`hidden`: who attacks sees models only. Under `client`, where cohorts are drawn secretly
(`sampling=poisson`), every round counts, amplified by the chance to be in it. Everywhere else it is
`known`: under `sample` too, for who knows all of a client's records but one sees by them whether it
took part, however secretly it was drawn.

Amplified Gaussians have no closed form. Their privacy loss distributions are convolved (Koskela,
Jälkö and Honkela, AISTATS 2020; Doroshenko et al., "Connect the Dots", PoPETs 2022), by
`dp-accounting`, whose errors are upwards. `closeness.py` has what discrete, cut shares cost beside
that. Epsilons of several runs on the same data are those of their ledgers in a row.

    >>> rounds = [Spent(number, noise=1.0) for number in range(1, 6)]
    >>> round(epsilons(rounds, 1e-5).known, 2)
    11.48
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hyperlock.errors import ConfigError
from hyperlock.privacy import closeness, gaussian
from hyperlock.privacy.closeness import Shares

# Losses are counted in steps of this, upwards: at epsilon 0.2 that is 0.3 of a percent too much.
_LOSS_STEP = 1e-3


@dataclass(frozen=True)
class Spent:
    """One release, a line of the ledger.

    Attributes:
        round: which one, from 1.
        noise: z, its noise over its sensitivity (`Mechanism.multiplier`).
        record_rate: the chance with which a client drew a record; 1 under `client`.
        cohort_rate: the chance with which a client was drawn, if nobody was told; 1 if somebody
            was, and under `sample`.
        cohort: the numbers of those who took part; None if that was everybody.
        shares: how its noise was made; None for a Gaussian, as in the literature.
        short: what being drawn again when too few came adds to the hidden delta (`shortfall`).
    """

    round: int
    noise: float
    record_rate: float = 1.0
    cohort_rate: float = 1.0
    cohort: frozenset[int] | None = None
    shares: Shares | None = None
    short: float = 0.0

    def __post_init__(self) -> None:
        if self.record_rate < 1 and self.cohort_rate < 1:
            raise ValueError("a record's client shows by its other records: no amplification by it")
        if self.shares is not None and self.shares.noise != self.noise:
            raise ValueError(f"noise of {self.noise} by shares for {self.shares.noise}")


@dataclass(frozen=True)
class Epsilons:
    """Epsilon at one delta, for who knows who took part and for who sees models only."""

    known: float
    hidden: float


def epsilons(spent: Sequence[Spent], delta: float) -> Epsilons:
    """What all these releases cost together.

    Args:
        spent: in any order; also of several runs on the same data, if their clients are numbered
            alike.
        delta: of each of the two, in (0, 1).

    Returns:
        Infinite where this delta admits none. Nothing spent is 0.
    """
    known = max((_epsilon(kinds, delta) for kinds in _by_client(spent)), default=0.0)
    if all(one.cohort_rate == 1 for one in spent):
        return Epsilons(known, known)
    short = sum(one.short for one in spent)
    if short >= delta:
        return Epsilons(known, math.inf)
    # A client that nobody knows to have been in any round may have been in all.
    amplified = Counter(
        (one.noise, min(one.record_rate, one.cohort_rate), one.shares) for one in spent
    )
    return Epsilons(known, _epsilon(amplified, delta - short))


def repeated(one: Spent, times: int, delta: float) -> float:
    """Epsilon of a member that is so many times in a release such as this one."""
    rate = min(one.record_rate, one.cohort_rate)
    left = delta - times * one.short
    return _epsilon(Counter({(one.noise, rate, one.shares): times}), left) if left > 0 else math.inf


Kinds = Counter[tuple[float, float, Shares | None]]  # noise, rate and shares; how often


def _by_client(spent: Sequence[Spent]) -> Iterable[Kinds]:
    """The releases that a client was in, for every client that none was in more than."""
    everyone: Kinds = Counter()
    clients: dict[int, Kinds] = {}
    for one in spent:
        kind = (one.noise, one.record_rate, one.shares)
        everyone[kind] += one.cohort is None
        for client in one.cohort or ():
            clients.setdefault(client, Counter())[kind] += 1
    # Clients that were in as many releases of each kind have spent the same.
    alike = {frozenset(own.items()): own for own in [*clients.values(), Counter()]}
    counts = [own + everyone for own in alike.values()]
    for kinds in counts:
        if not any(kinds < other for other in counts):
            yield kinds


def _epsilon(kinds: Kinds, delta: float) -> float:
    releases: Counter[Shares] = Counter()
    gaussians: Counter[tuple[float, float]] = Counter()
    for (noise, rate, shares), times in kinds.items():
        gaussians[shares.rounded if shares else noise, rate] += times
        if shares:
            releases[shares] += times
    if releases and releases.total() < kinds.total():
        raise ValueError("some releases say how their noise was made and some do not")
    key = tuple(sorted(gaussians.items()))
    return closeness.epsilon(lambda at: _ideal(key, at), releases, delta) if key else 0.0


Gaussians = tuple[tuple[tuple[float, float], int], ...]  # ((noise, rate), how often)


@lru_cache(maxsize=4096)
def _ideal(kinds: Gaussians, delta: float) -> float:
    """Epsilon of Gaussians, each amplified at its rate."""
    if any(noise <= 0 for (noise, _), _ in kinds):
        return math.inf
    if all(rate == 1 for (_, rate), _ in kinds):
        squares = sum(times / noise**2 for (noise, _), times in kinds)
        return gaussian.epsilon(math.sqrt(squares), delta)
    return max(0.0, float(_composed(kinds).get_epsilon_for_delta(delta)))


@lru_cache(maxsize=4)
def _composed(kinds: Gaussians) -> Any:
    (first, times), *others = kinds
    whole = _loss(*first).self_compose(times)
    for kind, count in others:
        whole = whole.compose(_loss(*kind).self_compose(count))
    return whole


@lru_cache(maxsize=64)
def _loss(noise: float, rate: float) -> Any:
    """The privacy loss distribution of one Gaussian of which a rate is drawn."""
    # Late: it takes a second, and most runs have no use for it.
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=_LOSS_STEP
    )


def check_delta(delta: float, members: int, unit: str) -> None:
    """Refuse a delta at which one in so many clients, or records, could be published whole.

    Raises:
        ConfigError: delta is not in (0, 1 / members).
    """
    if not 0 < delta < 1 / members:
        raise ConfigError(
            "privacy.delta",
            delta,
            f"with {members} {unit}s, publishing one of them whole would be as private",
            allowed=f"above 0 and below {1 / members:.2g}",
            hint=f"privacy.delta={_rounded_down(0.1 / members)}",
        )


def _rounded_down(value: float) -> str:
    power = math.floor(math.log10(value))
    return f"1e{power}"


def shortfall(clients: int, rate: float, fewest: int) -> float:
    """What a round costs in delta where a cohort of too few is drawn again.

    Cohorts are then drawn as they are, but for being of at least `fewest`. Given the other clients
    in it, one client is still in with its own chance, and independently of them, unless exactly
    fewest - 1 others came: then it is in for sure, and nothing is amplified. That has the chance
    returned, the same whatever the client's data is; over rounds it adds up.

    Args:
        clients: who can be drawn.
        rate: the chance of each.
        fewest: m0.
    """
    others = clients - 1
    if fewest - 1 > others:
        return 1.0
    if rate == 1:
        return 0.0
    alone = rate * math.exp(_log_binomial(others, rate, fewest - 1))
    enough = 1 - sum(math.exp(_log_binomial(clients, rate, few)) for few in range(fewest))
    return min(1.0, alone / enough) if enough > 0 else 1.0


def _log_binomial(n: int, rate: float, k: int) -> float:
    """log P(Bin(n, rate) = k), for a rate in (0, 1)."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(rate) + (n - k) * math.log1p(-rate)

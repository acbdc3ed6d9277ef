"""What a run promises under privacy: from its settings to a mechanism, and from what it released to
epsilon.

Everything here follows from public figures, so that every party of a run comes to the same.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hyperlock.encryption.grid import largest_value
from hyperlock.errors import ConfigError
from hyperlock.parties.client import Protect
from hyperlock.parties.spending import Spending
from hyperlock.privacy import accounting, budget, mechanism
from hyperlock.privacy.account import Account
from hyperlock.privacy.accounting import Epsilons, Spent
from hyperlock.privacy.budget import Plan
from hyperlock.privacy.mechanism import Mechanism, Promise
from hyperlock.privacy.noise import Source
from hyperlock.privacy.sampling import most_rounds
from hyperlock.settings.schema import Config, LocalTraining, SamplePrivacy

log = logging.getLogger(__name__)

# Of a client that chance draws more often than others: standard deviations above the mean.
_UNLUCKY = 3.0
# Above that, noise is most of what a model learns from.
_NOISY = 5.0


@dataclass(frozen=True)
class Guarantee:
    """A run's privacy.

    Attributes:
        mechanism: what each client does to an update.
        delta: of the whole run.
        expected: the public number of clients, or of samples, that a sum is divided by.
        record_rate: chance of a sample to be drawn by its client; 1 under `client`.
        cohort_rate: chance of a client to be drawn in secret; 1 where cohorts are no secret.
        short: what a cohort that is drawn again, being too small, adds to the hidden delta.
        participations: releases that one client may be in, by the budget; None without one.
        planned: releases that one client will be in, at most, if all rounds are played.
        source: of the noise; anything but the operating system is for tests alone.
    """

    mechanism: Mechanism
    delta: float
    expected: float
    record_rate: float = 1.0
    cohort_rate: float = 1.0
    short: float = 0.0
    participations: int | None = None
    planned: int = 0
    source: Source = os.urandom

    @property
    def range(self) -> float:
        """What the largest integer of the grid stands for, in every tensor and round."""
        return self.mechanism.step * largest_value(self.mechanism.value_bits)

    @property
    def protect(self) -> Protect:
        """What a client calls."""
        return partial(self.mechanism.protect, source=self.source)

    def noise_to_clip(self, contributors: int) -> float:
        """Length of the noise in a mean of so many, over the clip."""
        here = self.mechanism
        length = here.spread * math.sqrt(contributors * here.coordinates)
        return length / (here.bound * self.expected)

    def spent(self, spending: Spending, clients: Sequence[str]) -> Epsilons:
        """What everything released so far costs.

        Args:
            spending: the key holder's.
            clients: all of the run, in order.
        """
        numbers = {name: number for number, name in enumerate(clients)}
        releases = [
            replace(
                self._release(len(names)),
                round=at,
                cohort_rate=self.cohort_rate,
                cohort=frozenset(numbers[name] for name in names),
                short=self.short,
            )
            for at, names in enumerate(spending.releases, start=1)
        ]
        found = accounting.epsilons(releases, self.delta)
        # Who knows less is told no more.
        return replace(found, hidden=min(found.hidden, found.known))

    @property
    def account(self) -> Account:
        """What a record says of it, for whoever has to count on."""
        promise = self.mechanism.promise
        return Account(promise.unit, self.delta, self.planned, self._release(promise.fewest))

    def _release(self, contributors: int) -> Spent:
        """A sum of so many, for who knows who they were."""
        return Spent(
            round=1,
            noise=self.mechanism.multiplier(contributors),
            record_rate=self.record_rate,
            shares=self.mechanism.shares(contributors),
        )

    def describe(self) -> dict[str, Any]:
        """The public parameters of privacy, for people."""
        here = self.mechanism
        return {
            "unit": here.promise.unit,
            "clip": here.promise.clip,
            "noise_multiplier": here.promise.noise,
            "delta": self.delta,
            "fewest_contributors": here.promise.fewest,
            "colluders": here.promise.colluders,
            "clip_in_steps": here.bound,
            "largest_signal": here.signal,
            "deviation_of_a_share": here.spread,
            "expected": self.expected,
            "record_rate": self.record_rate,
            "participations": self.participations,
        }


def build_guarantee(config: Config, coordinates: int, weight_unit: float) -> Guarantee | None:
    """What a run of these settings promises; None without privacy.

    Args:
        config: its settings.
        coordinates: of the model.
        weight_unit: the mean number of samples of a client, as everybody may know it.

    Raises:
        ConfigError: the settings promise nothing, or what no noise holds, or cost more than they
            may; the text names the figure.
    """
    if not config.private:
        return None
    records = config.federation.clients * weight_unit
    if isinstance(config.privacy, SamplePrivacy):
        accounting.check_delta(config.privacy.delta, math.ceil(records), "sample")

    # How much noise, and how often each client may take part.
    plan = _plan(config, coordinates)
    noise = _noise(config, plan)
    epsilon = config.privacy.epsilon
    if epsilon is not None:
        budget.check_rounds(epsilon, noise, plan, config.federation.rounds)
    allowed = None if epsilon is None else budget.rounds_for(epsilon, noise, plan)

    # On the grid of this model.
    bits = config.encryption.value_bits
    fitted = mechanism.fit(
        _promise(config, noise, weight_unit), coordinates, None if bits == "auto" else bits
    )
    found = Guarantee(
        mechanism=fitted,
        delta=config.privacy.delta,
        expected=config.federation.cohort_size * _records(config, weight_unit),
        record_rate=_record_rate(config),
        cohort_rate=_cohort_rate(config),
        short=_short(config),
        participations=allowed,
        planned=_most(config),
    )
    _warn(config, found)
    return found


def with_noise(config: Config, guarantee: Guarantee | None) -> Config:
    """The settings as everybody is told them: with the noise multiplier that was found."""
    if guarantee is None:
        return config
    noise = guarantee.mechanism.promise.noise
    return replace(config, privacy=replace(config.privacy, noise_multiplier=noise))


def _plan(config: Config, coordinates: int) -> Plan:
    """What the client goes through that takes part most often."""
    federation = config.federation
    rounds = federation.rounds
    if config.privacy.sampling == "poisson":
        mean = rounds * federation.cohort_size / federation.clients
        rounds = min(rounds, math.ceil(mean + _UNLUCKY * math.sqrt(mean)))
    else:
        rounds = most_rounds(federation.clients, federation.cohort_size, rounds)
    return Plan(
        rounds=rounds,
        delta=config.privacy.delta,
        rate=_record_rate(config),
        coordinates=coordinates,
        secret=config.keys.min_clients - _colluders(config),
    )


def _most(config: Config) -> int:
    """Rounds that one client can be in: all of them, where chance draws cohorts."""
    federation = config.federation
    if _cohort_rate(config) < 1:
        return federation.rounds
    return most_rounds(federation.clients, federation.cohort_size, federation.rounds)


def _noise(config: Config, plan: Plan) -> float:
    if config.privacy.noise_multiplier is not None:
        return float(config.privacy.noise_multiplier)
    return budget.noise_for(config.privacy.epsilon, plan)


def _promise(config: Config, noise: float, weight_unit: float) -> Promise:
    return Promise(
        unit=config.privacy.unit,
        clip=config.privacy.clip * step_rate(config),
        noise=noise,
        fewest=config.keys.min_clients,
        colluders=_colluders(config),
        records=_records(config, weight_unit),
    )


def step_rate(config: Config) -> float:
    """What a client that sends one clipped gradient multiplies it by: the rate of its one local
    step, or 1 where the server alone has a rate; 1 where it sends anything else."""
    federation = config.federation
    one_step = isinstance(config.privacy, SamplePrivacy) and isinstance(federation, LocalTraining)
    return float(federation.learning_rate) if one_step else 1.0


def _records(config: Config, weight_unit: float) -> float:
    """Samples that a client's sum is expected to hold; 1 where clients count."""
    if not isinstance(config.privacy, SamplePrivacy):
        return 1.0
    return max(1.0, config.privacy.record_rate * weight_unit)


def _record_rate(config: Config) -> float:
    return float(getattr(config.privacy, "record_rate", 1.0))


def _cohort_rate(config: Config) -> float:
    federation = config.federation
    secret = config.privacy.sampling == "poisson"
    return federation.cohort_size / federation.clients if secret else 1.0


def _short(config: Config) -> float:
    rate = _cohort_rate(config)
    if rate == 1:
        return 0.0
    return accounting.shortfall(config.federation.clients, rate, config.keys.min_clients)


def _colluders(config: Config) -> int:
    """Contributors whose noise is known: who shares the key sees sums, and knows its own."""
    return max(config.keys.colluders, int(config.keys.custody == "clients"))


def _warn(config: Config, guarantee: Guarantee) -> None:
    """What a person would want to know before the run."""
    noisy = guarantee.noise_to_clip(config.federation.cohort_size)
    if config.privacy.unit == "client" and noisy > _NOISY:
        log.warning(
            "privacy=client: the noise in a round's mean is %.0f times the clip, of which little "
            "is learned; try: more clients a round, a smaller model, or privacy=sample",
            noisy,
        )
    least = config.keys.min_clients
    if least < config.federation.cohort_size / 2:
        log.warning(
            "keys.min_clients=%d: every client adds noise as if no more than %d took part, and %d "
            "do; try: keys.min_clients=%d",
            least,
            least,
            config.federation.cohort_size,
            round(0.9 * config.federation.cohort_size),
        )
    if config.encryption.scheme == "none" or config.keys.custody == "server":
        log.warning(
            "privacy holds for who sees sums; with encryption=%s and keys=%s the server sees each "
            "update, with a small share of the noise, and nothing is promised there",
            config.encryption.scheme,
            config.keys.custody,
        )


def refuse_longer(config: Config, rounds: int) -> None:
    """ConfigError for a run that goes on with more rounds than its noise was made for."""
    if not config.private or config.privacy.noise_multiplier is not None:
        return
    if config.federation.rounds != rounds:
        raise ConfigError(
            "federation.rounds",
            config.federation.rounds,
            f"the noise of this run was made for {rounds} rounds within privacy.epsilon",
            allowed=f"{rounds}, or a new run",
            hint=f"federation.rounds={rounds}",
        )

"""What a run's clients computed, computed again from its settings, its data and its checkpoint.

Without privacy it is what they computed, to the bit. Under privacy noise came from the operating
system, and so did the records of `privacy=sample` and the cohorts of `sampling=poisson`: an audit
draws its own, and a round is then one of those that might have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.audit.past import Past
from hyperlock.encryption.totals import Totals
from hyperlock.errors import HyperLockError
from hyperlock.experiment import simulation
from hyperlock.experiment.rounds import drop_out
from hyperlock.learning.types import LocalData
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.model import GlobalModel
from hyperlock.parties.spending import FILE, Spending
from hyperlock.privacy import noise
from hyperlock.privacy.sampling import by_chance
from hyperlock.randomness import Streams
from hyperlock.settings.schema import SamplePrivacy


@dataclass(frozen=True)
class Sent:
    """What a client encrypts in a round, computed again.

    Attributes:
        client: which one, by number.
        data: the samples that it computed with.
        bare: int[parameters], its update on the grid.
        values: int[parameters], what it encrypts: under privacy, with its share of the noise.
        saturated: coordinates that were outside the grid.
    """

    client: int
    data: LocalData
    bare: NDArray[np.integer]
    values: NDArray[np.integer]
    saturated: int


@dataclass(frozen=True)
class Round:
    """A round, computed again.

    Attributes:
        number: from 1.
        clients: who answered, by number.
        model: the global model that it began with.
        watched: of a client with the fewest samples of those who answered, which are the easiest to
            tell from an update.
        another: of one who has none of these samples; None if nobody else answered.
        bare: int64[parameters], the sum of all updates without noise.
        total: int64[parameters], the sum that was released.
        totals: what stood in front of the sum, but for the loss.
    """

    number: int
    clients: Sequence[int]
    model: GlobalModel
    watched: Sent
    another: Sent | None
    bare: NDArray[np.int64]
    total: NDArray[np.int64]
    totals: Totals


def model_before(past: Past, number: int) -> GlobalModel:
    """The global model that a round began with: of the round after the checkpoint it is the
    checkpoint's, and for any other all rounds before it are played again.

    Raises:
        HyperLockError: the run has not come to this round.
    """
    if not 1 <= number <= past.rounds + 1:
        raise HyperLockError(
            f"--round {number}: the checkpoint is of round {past.rounds}\n"
            f"  allowed: 1 to {past.rounds + 1}"
        )
    if number == past.rounds + 1:
        return past.last
    if number > 1 and past.guarantee is not None:
        raise HyperLockError(
            f"--round {number}: rounds before it had noise that nobody can draw again\n"
            f"  allowed: 1, {past.rounds + 1}"
        )
    model = past.first
    for before in range(1, number):
        played = play(past, before, model)
        model = model.step(played.totals, played.total)
    return model


def play(past: Past, number: int, model: GlobalModel) -> Round:
    """A round as it was, or as it would come: everybody's update, added in the clear."""
    clients, attempt = answered(past, number)
    fewest = sorted(clients, key=lambda client: len(past.parts[client]))[:2]
    kept: dict[int, Sent] = {}
    bare = np.zeros(past.network.parameters, np.int64)
    total = np.zeros(past.network.parameters, np.int64)
    samples = 0
    saturated = 0
    for client in clients:
        sent = encrypted(past, model, client, number, attempt)
        bare += sent.bare
        total += sent.values
        samples += len(sent.data.y)
        saturated += sent.saturated
        if client in fewest:
            kept[client] = sent
    watched, *others = (kept[client] for client in fewest)
    return Round(
        number=number,
        clients=clients,
        model=model,
        watched=watched,
        another=others[0] if others else None,
        bare=bare,
        total=total,
        totals=Totals(len(clients), samples, 0.0, saturated),
    )


def answered(past: Past, number: int) -> tuple[list[int], int]:
    """Who answered in a round, by number, and in which attempt that was.

    Raises:
        HyperLockError: in no attempt enough of them.
    """
    federation = past.config.federation
    seed = past.config.seed
    names = _names(past)
    numbers = {name: number for number, name in enumerate(names)}
    draw = simulation.build_draw(past.config, names)
    for attempt in range(1, federation.round_attempts + 1):
        cohort = draw(seed, number, attempt)
        lost = drop_out(cohort, names, federation.dropout, seed, number, attempt)
        here = [numbers[name] for name in cohort if name not in lost]
        if len(here) >= past.config.keys.min_clients:
            return here, attempt
    raise HyperLockError(
        f"round {number}: too few clients answer for a sum to be released\n  try: --round 1"
    )


def took_part(past: Past) -> list[int]:
    """Whose updates were in a sum, by number: by the key holder's ledger under privacy, and by the
    seed else."""
    names = _names(past)
    folder = past.directory / KEYHOLDER / past.checkpoint.run
    released = Spending(folder / FILE).releases if past.guarantee is not None else []
    if released:
        return sorted(names.index(name) for name in frozenset().union(*released))
    rounds = range(1, past.rounds + 1)
    return sorted({client for number in rounds for client in answered(past, number)[0]})


def encrypted(past: Past, model: GlobalModel, client: int, number: int, attempt: int = 1) -> Sent:
    """What a client encrypts behind its totals in an attempt of a round."""
    streams = Streams(past.config.seed, client)
    data = _records(past, client)
    batches = streams.at("batches", number, attempt)
    update = past.algorithm.trainer(model.weights, data, number, batches).vector
    rounding = streams.at("rounding", number, attempt)
    if past.guarantee is None:
        weight = np.float32(len(data.y) / model.weight_unit)
        values, saturated = model.grid.quantise(update * weight, rounding)
        return Sent(client, data, values, values, saturated)
    mechanism = past.guarantee.mechanism
    bare = mechanism.round(update, rounding)
    noisy = bare.copy()
    noise.add_share(noisy, mechanism.spread)
    return Sent(client, data, bare, noisy, 0)


def _records(past: Past, client: int) -> LocalData:
    """What a client computes with: all of its samples, or those that are drawn for it here."""
    data = past.part(client)
    privacy = past.config.privacy
    if not isinstance(privacy, SamplePrivacy):
        return data
    drawn = by_chance(len(data.y), privacy.record_rate)
    return LocalData(data.x[drawn], data.y[drawn])


def _names(past: Past) -> list[str]:
    return [f"client-{number}" for number in range(past.config.federation.clients)]

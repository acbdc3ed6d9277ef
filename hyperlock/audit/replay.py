"""What a run's clients computed, computed again from its settings, its data and its checkpoint.

Without privacy it is what they computed, to the bit. Under privacy noise came from the operating
system, and so did the records of `privacy=sample` and the cohorts of `sampling=poisson`: an audit
draws its own, and a round is then one of those that might have been.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.data.datasets import Dataset, Pair
from hyperlock.data.split import Parts
from hyperlock.encryption.totals import Totals
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import Checkpoint, load
from hyperlock.experiment.private import Guarantee
from hyperlock.experiment.resume import as_it_was, directory_named
from hyperlock.experiment.rounds import drop_out
from hyperlock.learning.types import Algorithm, LocalData
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.model import GlobalModel
from hyperlock.parties.spending import Spending
from hyperlock.privacy import noise
from hyperlock.privacy.sampling import by_chance
from hyperlock.randomness import Streams
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import parse
from hyperlock.settings.passwords import refuse_passwords
from hyperlock.settings.schema import Config, SamplePrivacy

if TYPE_CHECKING:  # TensorFlow is imported where a network is built
    from hyperlock.learning.network import Network

# By how much another machine's floats may move a test accuracy.
_SAME_ACCURACY = 0.005


@dataclass(frozen=True)
class Past:
    """A run that is over, or that stopped, with all that its parties had but keys.

    Attributes:
        config: its settings.
        directory: its own.
        checkpoint: where it stopped.
        dataset: as its settings cut it.
        cut_off: training samples that they cut off, and their labels.
        tests: the whole test set.
        parts: which training samples each client has.
        network: the architecture.
        algorithm: what clients do; under `privacy=sample`, with all records that they are given.
        guarantee: what is promised; None without privacy.
        first: the global model before the first round.
    """

    config: Config
    directory: Path
    checkpoint: Checkpoint
    dataset: Dataset
    cut_off: Pair
    tests: Pair
    parts: Parts
    network: Network
    algorithm: Algorithm
    guarantee: Guarantee | None
    first: GlobalModel

    @property
    def rounds(self) -> int:
        """How many were played."""
        return self.checkpoint.round

    @property
    def last(self) -> GlobalModel:
        """The global model of the checkpoint; ConfigError if it is of another architecture."""
        return self.checkpoint.restore(self.first)

    def part(self, client: int) -> LocalData:
        """A client's training samples."""
        chosen = self.parts[client]
        return LocalData(self.dataset.x_train[chosen], self.dataset.y_train[chosen])


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


def find(
    named: str,
    overrides: Sequence[str] = (),
    config_dir: str | os.PathLike[str] | None = None,
) -> Past:
    """A run with its data.

    Args:
        named: its directory, or its id in MLflow.
        overrides: what a checkpoint does not decide by itself, given again as for `resume`.
        config_dir: a folder with options of one's own.

    Raises:
        ConfigError: there is no such run or no checkpoint of it, others than the user can have
            written it, its settings name what must be given again, its data are not here or not
            those that it had, or its model cannot be built.
    """
    # Its settings.
    refuse_passwords(overrides)
    composed, _ = compose(overrides, config_dir)
    composed.resume = named
    directory = directory_named(composed)
    checkpoint = load(directory)
    _refuse_sites(named, checkpoint)
    found = as_it_was(composed, directory, overrides, lambda texts: compose(texts, config_dir)[0])
    config = parse(found.composed)

    # Its data, those that it did not use among them.
    _refuse_absent(config)
    whole = simulation.load_dataset(replace(config, dataset=_uncut(config.dataset)))
    train, test = (getattr(config.dataset, name, None) for name in _CUTS)
    dataset = whole.take(train, test, config.seed)

    # What learned from them.
    simulation.import_tensorflow()
    network = simulation.build_network(config, simulation.samples(dataset))
    algorithm = simulation.build_algorithm(_with_all_records(config), network)
    guarantee = simulation.promised(config, network, dataset)
    past = Past(
        config=config,
        directory=directory,
        checkpoint=checkpoint,
        dataset=dataset,
        cut_off=whole.left_out(train, config.seed),
        tests=(whole.x_test, whole.y_test),
        parts=simulation.build_split(config, dataset),
        network=network,
        algorithm=algorithm,
        guarantee=guarantee,
        first=_first(config, dataset, network, algorithm, guarantee),
    )
    _refuse_other_data(past)
    return past


_CUTS = ("train_samples", "test_samples")


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
    ledger = past.directory / KEYHOLDER / past.checkpoint.run / "spent"
    released = Spending(ledger).releases if past.guarantee is not None else []
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


def _with_all_records(config: Config) -> Config:
    """Settings whose clients draw all that they are given."""
    if not isinstance(config.privacy, SamplePrivacy):
        return config
    return replace(config, privacy=replace(config.privacy, record_rate=1.0))


def _names(past: Past) -> list[str]:
    return [f"client-{number}" for number in range(past.config.federation.clients)]


def _first(
    config: Config,
    dataset: Dataset,
    network: Network,
    algorithm: Algorithm,
    guarantee: Guarantee | None,
) -> GlobalModel:
    weights = network.initial_weights()
    unit = len(dataset.y_train) / config.federation.clients
    digest = simulation.weights_digest(weights)
    terms = simulation.build_terms(config, unit, digest, guarantee)
    return simulation.build_keeper(
        config=config,
        weights=weights,
        sizes=network.sizes,
        algorithm=algorithm,
        terms=terms,
        guarantee=guarantee,
    ).model


def _uncut(dataset: Any) -> Any:
    """A dataset's settings without what cuts it."""
    cuts = [name for name in _CUTS if hasattr(dataset, name)]
    return replace(dataset, **dict.fromkeys(cuts)) if cuts else dataset


def _refuse_sites(named: str, checkpoint: Checkpoint) -> None:
    if checkpoint.settings.get("runtime.engine"):
        raise ConfigError(
            "resume",
            named,
            "a run across sites, whose data are with them and not here: there is nothing to audit",
            allowed="a run of runtime=local",
            hint="the same settings with runtime=local, on data that stand for theirs",
        )


def _refuse_absent(config: Config) -> None:
    path = getattr(config.dataset, "path", None)
    if path is not None and not Path(path).is_file():
        raise ConfigError(
            "dataset.path",
            path,
            "the run's data are not here, and an audit computes its updates from them",
            hint="the same file in the same place",
        )


def _refuse_other_data(past: Past) -> None:
    """The checkpoint's model must do on the test set as the run says it did."""
    told = past.checkpoint.report.get("accuracies", {}).get(str(past.rounds))
    dataset = past.dataset
    if told is None or not len(dataset.y_test):
        return
    now = past.network.evaluate(past.last.weights, dataset.x_test, dataset.y_test).accuracy
    if abs(now - told) > _SAME_ACCURACY:
        raise ConfigError(
            "dataset",
            past.config.dataset,
            f"not the data of this run: its model answered {told:.4f} of the test set rightly, and "
            f"answers {now:.4f} of this one",
            hint="the files as they were when it ran",
        )

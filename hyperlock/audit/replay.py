"""What a run's clients computed, computed again from its settings, its data and its checkpoint."""

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
from hyperlock.experiment.resume import as_it_was, directory_named
from hyperlock.experiment.rounds import drop_out, sample_cohort
from hyperlock.learning.types import Algorithm, LocalData, LocalUpdate
from hyperlock.parties.model import GlobalModel
from hyperlock.randomness import Streams
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import parse
from hyperlock.settings.passwords import refuse_passwords
from hyperlock.settings.schema import Config

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
        algorithm: what clients do.
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
class Round:
    """A round, computed again.

    Attributes:
        number: from 1.
        clients: who answered, by number.
        model: the global model that it began with.
        watched: whose samples are looked for: of those who answered, a client with the fewest,
            which are the easiest to tell from an update.
        update: int[parameters], what that client encrypted behind its totals.
        another: the same of one who has none of these samples; None if nobody else answered.
        total: int64[parameters], the sum that was released.
        totals: what stood in front of the sum, but for the loss.
    """

    number: int
    clients: Sequence[int]
    model: GlobalModel
    watched: int
    update: NDArray[np.integer]
    another: NDArray[np.integer] | None
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
    algorithm = simulation.build_algorithm(config, network)
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
        first=_first(config, dataset, network, algorithm),
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
    model = past.first
    for before in range(1, number):
        played = play(past, before, model)
        model = model.step(played.totals, played.total)
    return model


def play(past: Past, number: int, model: GlobalModel) -> Round:
    """A round as it was, or as it would come: everybody's update, added in the clear."""
    clients, attempt = answered(past, number)
    watched, *others = sorted(clients, key=lambda client: len(past.parts[client]))
    kept: dict[int, NDArray[np.integer]] = {}
    total = np.zeros(past.network.parameters, np.int64)
    samples = 0
    saturated = 0
    for client in clients:
        update, outside = on_the_grid(past, model, client, number, attempt)
        total += update
        samples += len(past.parts[client])
        saturated += outside
        if client in (watched, *others[:1]):
            kept[client] = update
    return Round(
        number=number,
        clients=clients,
        model=model,
        watched=watched,
        update=kept[watched],
        another=kept[others[0]] if others else None,
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
    numbers = {str(client): client for client in range(federation.clients)}
    names = list(numbers)
    for attempt in range(1, federation.round_attempts + 1):
        cohort = sample_cohort(names, federation.cohort_size, seed, number, attempt)
        lost = drop_out(cohort, names, federation.dropout, seed, number, attempt)
        here = [numbers[name] for name in cohort if name not in lost]
        if len(here) >= past.config.keys.min_clients:
            return here, attempt
    raise HyperLockError(
        f"round {number}: too few clients answer for a sum to be released\n  try: --round 1"
    )


def on_the_grid(
    past: Past, model: GlobalModel, client: int, number: int, attempt: int = 1
) -> tuple[NDArray[np.integer], int]:
    """What a client encrypts in an attempt of a round: int[parameters] on the model's grid, and how
    many coordinates were outside it."""
    update = trained(past, model, client, number, attempt)
    weight = np.float32(len(past.parts[client]) / model.weight_unit)
    rounding = Streams(past.config.seed, client).at("rounding", number, attempt)
    return model.grid.quantise(update.vector * weight, rounding)


def trained(
    past: Past, model: GlobalModel, client: int, number: int, attempt: int = 1
) -> LocalUpdate:
    """What a client's training comes to, with the batches that it drew."""
    batches = Streams(past.config.seed, client).at("batches", number, attempt)
    return past.algorithm.trainer(model.weights, past.part(client), number, batches)


def _first(config: Config, dataset: Dataset, network: Network, algorithm: Algorithm) -> GlobalModel:
    weights = network.initial_weights()
    unit = len(dataset.y_train) / config.federation.clients
    terms = simulation.build_terms(config, unit, simulation.weights_digest(weights))
    return simulation.build_keeper(
        config=config,
        weights=weights,
        sizes=network.sizes,
        algorithm=algorithm,
        terms=terms,
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

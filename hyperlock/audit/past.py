"""A run that is over, or stopped, with its data: found by its directory or id, or refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperlock.data.datasets import Dataset, Pair
from hyperlock.data.split import Parts
from hyperlock.errors import ConfigError
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import Checkpoint, load
from hyperlock.experiment.private import Guarantee
from hyperlock.experiment.resume import as_it_was, directory_named
from hyperlock.learning.types import Algorithm, LocalData
from hyperlock.parties.model import GlobalModel
from hyperlock.settings.compose import compose
from hyperlock.settings.construct import target
from hyperlock.settings.parse import parse
from hyperlock.settings.passwords import refuse_passwords
from hyperlock.settings.schema import Config, SamplePrivacy

if TYPE_CHECKING:  # TensorFlow is imported where a network is built
    from hyperlock.learning.network import Network

# By how much another machine's floats may move a test accuracy.
_SAME_ACCURACY = 0.005
_CUTS = ("train_samples", "test_samples")


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
    _refuse_sites(named, load(directory))
    found = as_it_was(composed, directory, overrides, lambda texts: compose(texts, config_dir)[0])
    assert found.start is not None, "a run that was begun before"
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
        checkpoint=found.start,
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


def _first(
    config: Config,
    dataset: Dataset,
    network: Network,
    algorithm: Algorithm,
    guarantee: Guarantee | None,
) -> GlobalModel:
    weights = network.initial_weights()
    unit = simulation.weight_unit(config, dataset)
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
            target(past.config.dataset).rpartition(".")[2],
            f"not the data of this run: its model answered {told:.4f} of the test set rightly, and "
            f"answers {now:.4f} of this one",
            hint="the files as they were when it ran",
        )


def _with_all_records(config: Config) -> Config:
    """Settings whose clients draw all that they are given."""
    if not isinstance(config.privacy, SamplePrivacy):
        return config
    return replace(config, privacy=replace(config.privacy, record_rate=1.0))

"""From settings to a finished run: the only place that knows everything.

The experimenter stands outside the roles: it builds the parties, drives the rounds and sees the
global model in order to evaluate it, but never a key or a single client's update.
"""

from __future__ import annotations

import logging
import math
import subprocess
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from hyperlock.data.datasets import Dataset
from hyperlock.data.split import Parts, label_counts
from hyperlock.encryption.noise import run_bits
from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ConfigError, HyperLockError, RoundFailed
from hyperlock.experiment import checkpoint
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.report import Report, class_accuracies
from hyperlock.experiment.rounds import (
    RoundReport,
    distribute_key,
    drop_out,
    run_round,
    sample_cohort,
)
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.model import GlobalModel
from hyperlock.settings.checks import check_objectives, objective_names
from hyperlock.settings.parse import Config, construct, flatten, parse, target
from hyperlock.tracking.mlflow import DIRECTORY, MlflowTracker, Store, directory_of, preload
from hyperlock.tracking.origin import announced, process_tag
from hyperlock.tracking.tracker import Tracker

if TYPE_CHECKING:
    from hyperlock.experiment.simulation import Parties

log = logging.getLogger(__name__)

_loaded: dict[str, Dataset] = {}
_CLASSES_SHOWN = 100  # beyond, neither metrics nor a picture of each class help
KEY_CUSTODY = {
    "authority": "a key holder apart from the server",
    "clients": "the clients, who share it",
    "server": "the server itself, which can read every update",
}


def run(
    composed: DictConfig,
    directory: Path | None = None,
    overrides: Sequence[str] = (),
    start: Checkpoint | None = None,
) -> Report:
    """Run one experiment, from what Hydra composed to the printed summary.

    Args:
        composed: the settings.
        directory: where checkpoints go; None for no checkpoints.
        overrides: what the settings were composed with, for whoever resumes the run.
        start: where it stopped, if it is resumed.

    Raises:
        HyperLockError: a setting, the data, a client or a round failed; the text says which and
            what to try.
    """
    began, monitor = time.perf_counter(), Monitor()
    config = parse(composed)
    check_objectives(objective_names(composed))
    from hyperlock.experiment import simulation as parties

    scheme = parties.build_scheme(config)
    _warn(config, scheme)
    with monitor.measure(Stage.DATA):
        dataset = load_dataset(config)
        split = construct(
            "split",
            config.split,
            labels=dataset.y_train,
            clients=config.federation.clients,
            seed=config.seed,
        )
    with monitor.measure(Stage.IMPORT):
        import hyperlock.learning.tensorflow  # noqa: F401  (here, so that its seconds are not taken for another stage's)

        if config.tracking.sink == "mlflow":
            preload()
    custody, aim = KEY_CUSTODY[config.keys.custody], config.federation.target_accuracy
    report = Report(run_name(config), scheme.name, scheme.security_bits, custody, aim)
    with monitor.measure(Stage.TRACK):
        tracker = open_tracker(config, composed, scheme, directory, start.run_id if start else "")
    if start is not None:
        report.restore(start.report)
        _forget_extra_evaluation(report, config)
        began -= report.wall
        _say_resumed(start, config, scheme)
    status = "FAILED"
    try:
        with monitor.measure(Stage.SETUP):
            federation = parties.assemble(
                config, uuid.uuid4().hex, dataset, split, scheme, monitor, start
            )
            distribute_key(
                federation.public_key, federation.server, federation.clients, federation.runtime
            )
        report.parameters, report.weights = (
            federation.network.parameters,
            federation.keeper.model.weights,
        )
        report.add_seconds(monitor.drain())
        recorded = tracker.last_step("time/round_s") if start is not None else 0
        if recorded < report.rounds:  # killed between its checkpoint and its record
            tracker.log(report.metrics, report.rounds)
        rounds, every = config.federation.rounds, config.checkpoint_every
        with monitor.rounds(rounds, report.rounds) as advance:
            while report.rounds < rounds and report.rounds_to_target is None:
                metrics = _round(report.rounds + 1, config, federation, dataset, monitor, report)
                ends = report.rounds == rounds or report.rounds_to_target is not None
                with monitor.measure(Stage.TRACK):
                    report.wall = time.perf_counter() - began
                    if directory is not None and every and (ends or report.rounds % every == 0):
                        _keep(
                            directory, composed, overrides, federation.keeper.model, tracker, report
                        )
                    # A round after the last checkpoint was recorded before the kill.
                    if report.rounds > recorded:
                        tracker.log(metrics, report.rounds)
                advance(report.accuracy)
        with monitor.measure(Stage.TRACK):
            _record(composed, scheme, federation, dataset, split, tracker, report)
        report.add_seconds(monitor.drain())
        report.wall = time.perf_counter() - began
        tracker.log(report.totals(), report.rounds)
        tracker.note(report.markdown())
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        log.warning("interrupted after %d of %d rounds", report.rounds, config.federation.rounds)
        raise
    except Exception as error:
        tracker.note(f"Failed after {report.rounds} of {config.federation.rounds} rounds: {error}")
        raise
    finally:
        tracker.finish(status)
    report.show(tracker.where())
    return report


def objective(composed: DictConfig, report: Report) -> float | tuple[float, ...]:
    """The value of `objective`, or one value for each of a list.

    Raises:
        ConfigError: a name is not one of the run's metrics.
        HyperLockError: a value is not a finite number, which no search can use.
    """
    metrics = report.final()
    names = objective_names(composed)
    if "rounds_to_target" in names and report.rounds_to_target is None:
        target = composed.federation.target_accuracy
        raise HyperLockError(
            f"objective rounds_to_target: {target} was not reached in {report.rounds} rounds"
        )
    check_objectives(names, metrics)
    for name in names:
        if not math.isfinite(metrics[name]):
            raise HyperLockError(
                f"objective {name} is {metrics[name]}: a smaller federation.learning_rate may help"
            )
    values = tuple(metrics[name] for name in names)
    return values if isinstance(composed.objective, ListConfig) else values[0]


def load_dataset(config: Config) -> Dataset:
    """The configured dataset, cut to `dataset.train_samples` and `dataset.test_samples` where these
    are set.

    The last one is kept, since a sweep's trials mostly share it.
    """
    path = Path(getattr(config.dataset, "path", ""))
    key = f"{config.dataset} {config.seed} {path.stat().st_mtime_ns if path.is_file() else ''}"
    if key not in _loaded:
        dataset: Dataset = construct(
            "dataset", config.dataset, skip=("train_samples", "test_samples")
        )
        _loaded.clear()
        _loaded[key] = dataset.take(
            config.dataset.train_samples, config.dataset.test_samples, config.seed
        )
    return _loaded[key]


def run_name(config: Config) -> str:
    """A name that tells runs apart in a list, such as `mlp-ckks-10c`."""
    model = target(config.model).rpartition(".")[2]
    return f"{model}-{config.encryption.scheme}-{config.federation.clients}c"


def open_tracker(
    config: Config,
    composed: DictConfig,
    scheme: Scheme,
    directory: Path | None = None,
    reopen: str = "",
) -> Tracker:
    """Begin the run's record, with its settings and tags, or go on with that of the run
    `reopen`."""
    if config.tracking.sink == "none":
        return Tracker()
    root = config.paths.root
    tags = {
        "scheme": scheme.name,
        "security_bits": str(scheme.security_bits),
        "key_custody": config.keys.custody,
        "seed": str(config.seed),
        "task": config.task_name,
        "mlflow.source.name": "run.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git_commit(root),
        **{
            f"version.{name}": version(name)
            for name in ("hyperlock", "tensorflow", "tenseal", "numpy", "mlflow")
        },
        **{f"tag.{tag}": "true" for tag in config.tags},
        **({} if directory is None else {DIRECTORY: str(directory.resolve())}),
    }
    name = config.tracking.run_name or run_name(config)
    trial = announced()
    if trial is not None:
        name = config.tracking.run_name or trial.name
        tags |= trial.tags | process_tag()
    tracking = config.tracking
    if reopen and directory_of(reopen, root, tracking.uri) is None:
        raise ConfigError(
            "resume",
            reopen,
            "its record is not in this store",
            hint="tracking.uri=..., as the run had it",
        )
    store = Store.open(root, config.paths.outputs, tracking.uri)
    if reopen:
        query = f"attributes.run_id = '{reopen}'"
        found = MlflowTracker.reopen(store, tracking.experiment, query, tags)
        if found is not None:
            return found
    params = flatten(_public(composed))
    return MlflowTracker.begin(store, tracking.experiment, name, params, tags)


def _round(
    number: int,
    config: Config,
    federation: Parties,
    dataset: Dataset,
    monitor: Monitor,
    report: Report,
) -> dict[str, float]:
    """Run one round, evaluate the model if it is time to, and return the metrics of both."""
    start = time.perf_counter()
    moved = _attempt(number, config, federation, monitor)
    model, totals = federation.keeper.model, federation.keeper.totals
    assert totals is not None
    accuracy = loss = None
    if number % config.federation.evaluate_every == 0 or number == config.federation.rounds:
        with monitor.measure(Stage.EVALUATE):
            result = federation.network.evaluate(model.weights, dataset.x_test, dataset.y_test)
            accuracy, loss = result.accuracy, result.loss
    report.weights = model.weights
    return report.add_round(
        moved, totals, accuracy, loss, monitor.drain(), time.perf_counter() - start
    )


def _keep(
    directory: Path,
    composed: DictConfig,
    overrides: Sequence[str],
    model: GlobalModel,
    tracker: Tracker,
    report: Report,
) -> None:
    """Write what the next round needs."""
    checkpoint.save(
        directory,
        Checkpoint(
            round=report.rounds,
            weights=model.weights,
            ranges=model.grid.ranges,
            slots=checkpoint.slots_of(model.optimizer),
            overrides=[
                text for text in overrides if text.lstrip("+").partition("=")[0] != "tracking.uri"
            ],
            settings=flatten(_public(composed)),
            run_id=tracker.run_id,
            report=report.state(),
        ),
    )


def _forget_extra_evaluation(report: Report, config: Config) -> None:
    """Of a last round that is the last no more: a run of the new length would not have made it."""
    every, last = config.federation.evaluate_every, config.federation.rounds
    report.accuracies = {
        n: value for n, value in report.accuracies.items() if n % every == 0 or n == last
    }


def _say_resumed(start: Checkpoint, config: Config, scheme: Scheme) -> None:
    log.info("going on after round %d", start.round)
    if scheme.security_bits and config.keys.path is None:
        log.info(
            "the keys of the rounds before were kept nowhere (keys.path=null): this run makes "
            "new ones"
        )


def _attempt(number: int, config: Config, federation: Parties, monitor: Monitor) -> RoundReport:
    """A round, tried again with another cohort, and other clients lost, as often as the settings
    say."""
    settings, clients = config.federation, federation.clients
    for attempt in range(1, settings.round_attempts + 1):
        cohort = sample_cohort(clients, settings.cohort_size, config.seed, number, attempt)
        absent = drop_out(cohort, clients, settings.dropout, config.seed, number, attempt)
        try:
            server, runtime = federation.server, federation.runtime
            return run_round(number, cohort, clients, server, runtime, monitor, absent)
        except RoundFailed as error:
            if attempt == settings.round_attempts:
                hint = (
                    f"federation.round_attempts={attempt + 4}, each of which draws its cohort anew"
                )
                raise RoundFailed(f"{error}\n  try: {hint}") from None
            log.warning(
                "%s; trying again (%d of %d attempts)", error, attempt + 1, settings.round_attempts
            )
    raise AssertionError("at least one attempt is made")


def _record(
    composed: DictConfig,
    scheme: Scheme,
    federation: Parties,
    dataset: Dataset,
    split: Parts,
    tracker: Tracker,
    report: Report,
) -> None:
    """What a person reviews: the settings, the public parameters, the figures, the model."""
    if not tracker.records:
        return
    from hyperlock.tracking import plots

    tracker.document("config.yaml", OmegaConf.to_yaml(_public(composed), resolve=True))
    public = scheme.describe()
    if "exact_to_bits" in public:
        public["run_exact_to_bits"] = round(
            run_bits(cast(float, public["exact_to_bits"]), report.parameters, report.rounds), 1
        )
    tracker.document("public_parameters.json", public)
    title = f"{report.name}: test accuracy"
    tracker.figure("accuracy", plots.accuracy_figure(report.accuracies, title, report.target))
    stages = report.stage_seconds()
    tracker.figure(
        "time_by_stage", plots.stages_figure(stages, f"{report.name}: where the time goes")
    )
    uplink = report.metrics["bytes/uplink_per_client"]
    tracker.figure(
        "bytes",
        plots.bytes_figure(uplink, report.parameters, report.scheme, f"{report.name}: bytes"),
    )
    counts = label_counts(dataset.y_train, split, dataset.classes)
    tracker.figure(
        "split", plots.split_figure(counts, f"{report.name}: training samples by client and class")
    )
    if dataset.classes <= _CLASSES_SHOWN:
        confusion = federation.network.confusion(
            report.weights, dataset.x_test, dataset.y_test, dataset.classes
        )
        tracker.figure(
            "confusion",
            plots.confusion_figure(confusion, f"{report.name}: answers on the test set"),
        )
        tracker.log(class_accuracies(confusion), report.rounds)
    if composed.tracking.log_model:
        example = dataset.x_test[:2].astype(np.float32) / (
            255 if dataset.x_test.dtype == np.uint8 else 1
        )
        tracker.model(federation.network.load(report.weights), example)


def _warn(config: Config, scheme: Scheme) -> None:
    if not scheme.security_bits:
        log.warning("encryption=none: the server reads every update; for comparison only")
    elif config.keys.custody == "server":
        log.warning(
            "keys=server: the server holds the secret key and can read every update; for "
            "comparison only"
        )


def _public(composed: DictConfig) -> DictConfig:
    """The settings without what may hold a password."""
    public = composed.copy()
    if public.tracking.get("uri"):
        public.tracking.uri = "(not recorded)"
    return public


def _git_commit(root: str) -> str:
    try:
        command = ["git", "-C", root, "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"

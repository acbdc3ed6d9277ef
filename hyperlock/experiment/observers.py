"""Who watches a run: its record, its checkpoints, the progress bar.

The round loop calls observers and knows none of them. They are called in order after a round, and
in reverse at the end, as they would be if each had been begun within the one before.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np

from hyperlock.addresses import withheld
from hyperlock.background import Background
from hyperlock.data.datasets import Dataset
from hyperlock.data.split import Parts, label_counts
from hyperlock.encryption.noise import run_bits
from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ConfigError
from hyperlock.experiment import checkpoint, summary
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.report import Report, class_accuracies
from hyperlock.experiment.rounds import Parties, exhausted
from hyperlock.parties.model import optimizer_state
from hyperlock.parties.server import Server
from hyperlock.privacy.account import TAG
from hyperlock.settings.parse import Settings
from hyperlock.settings.schema import Config, MlflowTracking
from hyperlock.tracking import plots
from hyperlock.tracking.later import LaterTracker
from hyperlock.tracking.mlflow import DIRECTORY, MlflowTracker, Store, directory_of
from hyperlock.tracking.origin import announced, process_tag
from hyperlock.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_CLASSES_SHOWN = 100  # beyond, neither metrics nor a picture of each class help
_RECORDED_VERSIONS = ("hyperlock", "tensorflow", "tenseal", "numpy", "mlflow")


@dataclass(frozen=True)
class Run:
    """A run under way, for observers to look at.

    Attributes:
        settings: what was asked for.
        scheme: the encryption.
        dataset: what is learned from, and tested on.
        split: which training samples each client has; empty where only the sites know.
        parties: built and keyed.
        report: what it came to so far.
    """

    settings: Settings
    scheme: Scheme
    dataset: Dataset
    split: Parts
    parties: Parties
    report: Report


class Observer:
    """Every method does nothing unless an observer does something there."""

    def begin(self, run: Run) -> None:
        """Parties and keys are there; no round of this process was played."""

    def after_round(self, run: Run, metrics: Mapping[str, float]) -> None:
        """A round is in the report, and these are its metrics."""

    def after_evaluation(self, run: Run, number: int, metrics: Mapping[str, float]) -> None:
        """The sites have evaluated the model after this round, and these are its metrics."""

    def end(self, run: Run) -> None:
        """All rounds are played."""

    def summed_up(self, run: Run) -> None:
        """The report has its totals, the seconds of `end` among them."""

    def close(self) -> None:
        """The run is over, however it ended; `begin` may not have been called."""


class Checkpoints(Observer):
    """Writes what the next round needs, every so many rounds and after the last.

    In the background, each before the same round's record, which is open by then. A run that dies
    in its first seconds, before that, leaves neither.
    """

    def __init__(self, directory: Path | None, tracker: Tracker, background: Background) -> None:
        self._directory = directory
        self._tracker = tracker
        self._background = background

    def after_round(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Save, if it is time to."""
        config = run.settings.config
        every = config.checkpoint_every
        report = run.report
        if self._directory is None or not every:
            # There is no restart, which would ask for an earlier round's release again.
            run.parties.server.kept = report.rounds
            return
        reached = report.rounds_to_target is not None or exhausted(run.parties, config)
        if reached or report.rounds == config.federation.rounds or report.rounds % every == 0:
            keeper = run.parties.keeper  # None where the clients alone have the model
            state = Checkpoint(
                round=report.rounds,
                weights=run.parties.weights,
                ranges=() if keeper is None else keeper.model.grid.ranges,
                slots={} if keeper is None else optimizer_state(keeper.model.optimizer),
                overrides=run.settings.overrides,
                settings=run.settings.flat,
                run=run.parties.run,
                run_id="",
                report=report.state(),
            )
            held = sum(array.nbytes for array in (state.weights, *state.slots.values()))
            save = partial(self._save, self._directory, state, run.parties.server)
            self._background.give(save, held)

    def _save(self, directory: Path, state: Checkpoint, server: Server) -> None:
        checkpoint.save(directory, replace(state, run_id=self._tracker.run_id))
        server.kept = state.round


class Record(Observer):
    """Logs every round, and at the end what a person reviews: figures, pictures, the model."""

    def __init__(self, tracker: Tracker, resumed: bool) -> None:
        self._tracker = tracker
        self._recorded = tracker.last_step("time/round_s") if resumed else 0
        self._run: Run | None = None

    def begin(self, run: Run) -> None:
        """Log the last round of before, if it was killed between its checkpoint and its record;
        draw what is known already, and have loaded what the end will take."""
        if self._recorded < run.report.rounds:
            self._tracker.log(run.report.metrics, run.report.rounds)
        if not self._tracker.records:
            return
        self._run = run
        if run.report.guarantee is not None:
            self._tracker.tag({TAG: run.report.guarantee.account.text()})
        # Across sites nobody knows; and what is private is not drawn.
        if run.split and run.report.guarantee is None:
            title = f"{run.report.name}: training samples by client and class"
            counts = label_counts(run.dataset.y_train, run.split, run.dataset.classes)
            self._tracker.figure("split", partial(plots.split_figure, counts, title))
        if _keeps_model(run.settings.config) and run.parties.keeper is not None:
            self._tracker.expect_model()

    def after_round(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Log a round that is not in the record: one after the last checkpoint may be."""
        if run.report.rounds > self._recorded:
            self._tracker.log(metrics, run.report.rounds)

    def after_evaluation(self, run: Run, number: int, metrics: Mapping[str, float]) -> None:
        """Log it, with the round that it is of; what is there already is the same."""
        self._tracker.log(metrics, number)

    def end(self, run: Run) -> None:
        """What a person reviews; nothing is drawn where nothing is kept."""
        if not self._tracker.records:
            return
        self._documents(run)
        self._figures(run)
        self._model(run)

    def summed_up(self, run: Run) -> None:
        """The run's totals, and its summary as the page's text."""
        self._tracker.log(run.report.totals(), run.report.rounds)
        self._tracker.note(summary.markdown(run.report))

    def close(self) -> None:
        """What was released was spent, also by a round that did not come to its end."""
        run = self._run
        if run is None or run.report.guarantee is None or run.parties.spending is None:
            return
        most = run.parties.spending.most
        if most > run.report.metrics.get("privacy/participations", 0):
            try:
                self._tracker.log({"privacy/participations": most}, run.report.rounds + 1)
            except Exception as error:
                # What ends the run is what went wrong first.
                log.warning("not all was written: %s", withheld(str(error)))

    def _documents(self, run: Run) -> None:
        public = run.scheme.describe()
        if run.report.guarantee is not None:
            public["privacy"] = run.report.guarantee.describe()
        if "exact_to_bits" in public:
            report = run.report
            exact = cast(float, public["exact_to_bits"])
            whole_run = run_bits(exact, report.parameters, report.rounds)
            public["run_exact_to_bits"] = round(whole_run, 1)
        self._tracker.document("config.yaml", run.settings.yaml)
        self._tracker.document("public_parameters.json", public)

    def _figures(self, run: Run) -> None:
        report = run.report
        dataset = run.dataset
        name = report.name
        uplink = report.metrics["bytes/uplink_per_client"]
        if report.accuracies:
            self._tracker.figure(
                "accuracy",
                partial(
                    plots.accuracy_figure,
                    dict(report.accuracies),
                    f"{name}: test accuracy",
                    report.target,
                ),
            )
        points = report.accuracy_by_cost()
        if len(points) > 1 and report.guarantee is not None:
            account = report.guarantee.account
            title = f"{name}: what accuracy costs, round by round"
            draw = partial(plots.privacy_figure, points, account.unit, account.delta, title)
            self._tracker.figure("privacy", draw)
        self._tracker.figure(
            "time_by_stage",
            partial(plots.stages_figure, report.stage_seconds(), f"{name}: where the time goes"),
        )
        self._tracker.figure(
            "bytes",
            partial(plots.bytes_figure, uplink, report.parameters, report.scheme, f"{name}: bytes"),
        )
        seen = len(dataset.y_test) and report.weights.size
        if seen and dataset.classes <= _CLASSES_SHOWN:
            confusion = run.parties.network.confusion(
                report.weights, dataset.x_test, dataset.y_test, dataset.classes
            )
            title = f"{name}: answers on the test set"
            self._tracker.figure("confusion", partial(plots.confusion_figure, confusion, title))
            self._tracker.log(class_accuracies(confusion), report.rounds)

    def _model(self, run: Run) -> None:
        if _keeps_model(run.settings.config) and run.report.weights.size:
            example = run.dataset.x_test[:2]
            if not len(example):
                example = np.zeros((1, *run.dataset.shape), run.dataset.x_test.dtype)
            scale = 255 if example.dtype == np.uint8 else 1
            model = run.parties.network.load(run.report.weights)
            self._tracker.model(model, example.astype(np.float32) / scale)


class Bar(Observer):
    """A bar over the rounds, on a terminal."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def begin(self, run: Run) -> None:
        """Show it, with the rounds that a resumed run has behind it."""
        rounds = run.settings.config.federation.rounds
        bar = run.parties.monitor.rounds(rounds, run.report.rounds)
        self._advance = self._open.enter_context(bar)

    def after_round(self, run: Run, metrics: Mapping[str, float]) -> None:
        """One further, with the last accuracy beside it."""
        self._advance(run.report.accuracy)

    def end(self, run: Run) -> None:
        """Take it away before what follows prints."""
        self._open.close()

    def close(self) -> None:
        """Take it away, if a round failed."""
        self._open.close()


def open_tracker(
    settings: Settings,
    scheme: Scheme,
    name: str,
    background: Background,
    directory: Path | None = None,
    start: Checkpoint | None = None,
) -> Tracker:
    """Begin the run's record in the background, with its settings and tags, or go on with that of
    the run resumed.

    Args:
        settings: they say where it goes.
        scheme: for the tags.
        name: the run's, unless the settings or its sweep have another.
        background: it raises ConfigError if there is no such store, or no such run in it.
        directory: where the run writes what it can be resumed from.
        start: where the run stopped, if it is resumed.
    """
    config = settings.config
    tracking = config.tracking
    if not isinstance(tracking, MlflowTracking):
        return Tracker()

    # Whose run it is.
    tags = {}
    if directory is not None:
        tags[DIRECTORY] = str(directory.resolve())
    trial = announced()
    if trial is not None:
        name = trial.name
        tags |= trial.tags | process_tag()
    name = tracking.run_name or name
    reopen = start.run_id if start is not None else ""

    def begin() -> Tracker:
        store = _store(config, tracking, reopen)
        every_tag = _tags(config, scheme) | tags
        if reopen:
            query = f"attributes.run_id = '{reopen}'"
            found = MlflowTracker.reopen(store, tracking.experiment, query, every_tag)
            if found is not None:
                return found
        return MlflowTracker.begin(store, tracking.experiment, name, settings.flat, every_tag)

    return LaterTracker(begin, background)


@contextmanager
def recorded(tracker: Tracker, report: Report, rounds: int) -> Iterator[None]:
    """Whatever ends the block, the record says how it ended."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        log.warning("interrupted after %d of %d rounds", report.rounds, rounds)
        raise
    except Exception as error:
        try:
            tracker.note(f"Failed after {report.rounds} of {rounds} rounds: {error}")
        except Exception as another:
            # The record failed too; what ends the run is what went wrong first.
            log.warning("not all was written: %s", withheld(str(another)))
        raise
    finally:
        tracker.finish(status)


def _keeps_model(config: Config) -> bool:
    return isinstance(config.tracking, MlflowTracking) and config.tracking.log_model


def _store(config: Config, tracking: MlflowTracking, run_id: str) -> Store:
    """Where records go; ConfigError if there is no such store, or the run is not there."""
    root = config.paths.root
    if run_id and directory_of(run_id, root, tracking.uri) is None:
        problem = "its record is not in this store"
        raise ConfigError("resume", run_id, problem, hint="tracking.uri=..., as the run had it")
    return Store.open(root, config.paths.outputs, tracking.uri)


def _tags(config: Config, scheme: Scheme) -> dict[str, str]:
    """What a person would filter by."""
    return {
        "scheme": scheme.name,
        "security_bits": str(scheme.security_bits),
        "key_custody": config.keys.custody,
        "trust": config.trust.level,
        "privacy": config.privacy.unit,
        "seed": str(config.seed),
        "task": config.task_name,
        "mlflow.source.name": "run.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git_commit(config.paths.root),
        **{f"version.{name}": version(name) for name in _RECORDED_VERSIONS},
        **{f"tag.{tag}": "true" for tag in config.tags},
    }


def _git_commit(root: str) -> str:
    command = ["git", "-C", root, "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()

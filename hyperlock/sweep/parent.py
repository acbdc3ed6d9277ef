"""The parent: a sweep's own MLflow run, with its trials under it, whatever launches them and
however the sweep ends.

A process has one sweep at most. Hydra makes the callback and the sweeper apart from each other, and
a signal reaches neither, so that what they share is this module's: `begin` opens the parent, and
whoever calls `close` first ends it for all.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import time
from types import FrameType

from omegaconf import DictConfig

from hyperlock.settings.checks import objective_names
from hyperlock.settings.overrides import Overrides
from hyperlock.sweep.storage import load_study, study_name
from hyperlock.sweep.summary import Ending, how_to_continue, summarise
from hyperlock.sweep.trials import REASON, reason
from hyperlock.tracking.mlflow import MlflowTracker, Store
from hyperlock.tracking.origin import TrialRun, on_this_host, process_ended, process_tag
from hyperlock.tracking.tracker import Tracker

log = logging.getLogger(__name__)


class Parent:
    """The record of the sweep that this process runs, open until `close`.

    Attributes:
        name: of the run, and of the study where there is one.
        tracker: the run.
        status: how the sweep ends if its process does so now.
    """

    def __init__(self, config: DictConfig, name: str, tracker: Tracker) -> None:
        self.name = name
        self.tracker = tracker
        self.status = "FAILED"
        self._config = config
        self._start = time.time()

    @classmethod
    def open(cls, config: DictConfig) -> Parent:
        """Begin the parent of a sweep, or go on with that of the study that the sweep continues.

        Raises:
            ConfigError: the store cannot be used.
        """
        study = study_name(config)
        name = study or f"{_kind(config)} {time.strftime('%m-%d %H:%M')}"
        tags = _tags(config, name)
        query = f"tags.study = '{name}'" if study else None
        tracker = _tracker(config, name, _searched(config), tags, query)
        _bury(tracker)
        if tracker.records:
            log.info("record: %s", tracker.where())
        again = how_to_continue(name) if study else "begin it again"
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        tracker.note(f"Running since {since}. If its process has ended, {again}.")
        return cls(config, name, tracker)

    def close(self, status: str, why: str) -> None:
        """Write the summary and end the run, and those trials' runs that were cut off."""
        if status != "FINISHED":
            for run in self.tracker.children():
                if run.info.status == "RUNNING" and on_this_host(run.data.tags):
                    self.tracker.end_run(run.info.run_id, "KILLED")
        ending = Ending(self.name, status, time.time() - self._start, why)
        try:
            summarise(self._config, self.tracker, load_study(self._config), ending)
        finally:
            self.tracker.finish(status)


_parent: Parent | None = None  # of this process' sweep, while it is open


def begin(config: DictConfig) -> Parent:
    """Open the parent of this process' sweep; however the process ends, it is closed.

    Raises:
        ConfigError: the store cannot be used.
    """
    global _parent
    _parent = Parent.open(config)
    atexit.register(close)
    for number in (signal.SIGINT, signal.SIGTERM):
        _mark_killed_by(number)
    return _parent


def run_id() -> str:
    """The id of this process' parent; "" if it has none."""
    return "" if _parent is None else _parent.tracker.run_id


def close(status: str | None = None, why: str = "") -> None:
    """Close this process' parent; nothing if that has been done, or there is no sweep.

    Args:
        status: FINISHED, FAILED or KILLED; None for what the parent says of itself.
        why: what ended it, for the summary.
    """
    global _parent
    parent = _parent
    _parent = None
    if parent is not None:
        parent.close(status or parent.status, why)


def record_failure(config: DictConfig, trial: TrialRun, error: BaseException) -> None:
    """Mark a trial's run as failed, with the reason; make the run where the trial never came to
    have one."""
    if not trial.parent:
        return
    settings = Overrides(trial.overrides).values
    tracker = _tracker(config, trial.name, settings, trial.tags, trial.query)
    text = reason(error)
    tracker.tag({REASON: text})
    tracker.note(f"This trial failed:\n\n```\n{text}\n```")
    tracker.finish("FAILED")


def _tracker(
    config: DictConfig, name: str, params: dict[str, str], tags: dict[str, str], query: str | None
) -> Tracker:
    """The run that the query finds, going on, or a new one; in `tracking=none` neither."""
    settings = config.tracking
    if settings.sink == "none":
        return Tracker()
    store = Store.open(config.paths.root, config.paths.outputs, settings.uri)
    if query is not None:
        found = MlflowTracker.reopen(store, settings.experiment, query, tags)
        if found is not None:
            return found
    return MlflowTracker.begin(store, settings.experiment, name, params, tags)


def _kind(config: DictConfig) -> str:
    """The search that was chosen, or `grid`."""
    search = config.hydra.runtime.choices.get("hparams_search") or "none"
    return "grid" if search == "none" else str(search)


def _tags(config: DictConfig, name: str) -> dict[str, str]:
    choices = config.hydra.runtime.choices
    return {
        "sweep": choices.get("hparams_search") or "none",
        "study": name,
        "objective": ", ".join(objective_names(config)),
        "sweeper": str(choices.get("hydra/sweeper")),
        "launcher": str(choices.get("hydra/launcher")),
        "mlflow.source.name": "run.py -m",
        "mlflow.source.type": "LOCAL",
        **process_tag(),
    }


def _searched(config: DictConfig) -> dict[str, str]:
    """What is searched, as `search.KEY`; what was typed takes the place of the search's own."""
    own = config.hydra.sweeper.get("params") or {}
    typed = Overrides(config.hydra.overrides.task).values
    space = {str(key): str(value) for key, value in own.items()} | typed
    return {f"search.{key}": value for key, value in space.items()}


def _bury(tracker: Tracker) -> None:
    """End the runs, of whichever sweep, whose processes were killed outright."""
    for run in tracker.search("attributes.status = 'RUNNING'"):
        if process_ended(run.data.tags) and run.info.run_id != tracker.run_id:
            tracker.end_run(run.info.run_id, "KILLED")


def _mark_killed_by(number: signal.Signals) -> None:
    """Have the parent say KILLED if this signal is what ends the process; who handled it before
    still does."""
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        if _parent is not None:
            _parent.status = "KILLED"
        if callable(before):
            before(received, frame)
        else:
            sys.exit(128 + received)

    signal.signal(number, handle)

"""From settings to a finished run: the only place that knows everything.

The experimenter stands outside the parties: it builds them, drives the rounds and sees the global
model in order to evaluate it, but never a key or a single client's update.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hyperlock.background import Background
from hyperlock.encryption.totals import Totals
from hyperlock.experiment import simulation, summary
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.observers import (
    Bar,
    Checkpoints,
    Observer,
    Record,
    Run,
    open_tracker,
    recorded,
)
from hyperlock.experiment.private import refuse_longer
from hyperlock.experiment.report import Report, begin_report
from hyperlock.experiment.resume import go_on
from hyperlock.experiment.rounds import (
    Parties,
    close_run,
    evaluate_at_sites,
    evaluated_round,
    exhausted,
)
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.process import end_if_asked
from hyperlock.settings.parse import read
from hyperlock.tracking.tracker import Tracker

log = logging.getLogger(__name__)

Across = Callable[..., Parties]


def run(
    composed: DictConfig,
    directory: Path | None = None,
    overrides: Sequence[str] = (),
    start: Checkpoint | None = None,
    across: Across | None = None,
) -> Report:
    """Run one experiment, from what Hydra composed to the printed summary.

    Args:
        composed: the settings.
        directory: where checkpoints go; None for no checkpoints.
        overrides: what the settings were composed with, for whoever resumes the run.
        start: where it stopped, if it is resumed.
        across: builds the parties where others than this process have theirs; None where all of
            them live here.

    Raises:
        HyperLockError: a setting, the data, a client or a round failed; the text says which and
            what to try.
    """
    monitor = Monitor()

    # What is asked, and whether it can be done.
    settings = read(composed, overrides)
    config = settings.config
    if not config.private:  # else it depends on the model, and on the noise
        simulation.build_scheme(config)

    # What is learned from, and the library that learns.
    with monitor.measure(Stage.DATA):
        dataset = simulation.load_dataset(config)
        split = [] if across else simulation.build_split(config, dataset)
    with monitor.measure(Stage.IMPORT):
        simulation.import_tensorflow()

    # What learns, and the encryption that suits its size.
    with monitor.measure(Stage.SETUP):
        network = simulation.build_network(config, simulation.samples(dataset))
        guarantee = simulation.promised(config, network, dataset)
    scheme = simulation.build_scheme(config, network.sizes, guarantee)
    report = begin_report(config, scheme, guarantee)

    # The record is opened beside what follows, and written beside the rounds.
    with Background() as background:
        tracker = open_tracker(settings, scheme, report.name, background, directory, start)
        with recorded(tracker, report, config.federation.rounds):
            if start is not None:
                refuse_longer(config, int(start.settings.get("federation.rounds", 0)))
                go_on(report, start, config)
                monitor.earlier = report.wall
            with monitor.measure(Stage.SETUP):
                given: dict[str, Any] = {
                    "run": uuid.uuid4().hex if start is None else start.run,
                    "monitor": monitor,
                    "guarantee": guarantee,
                    "directory": directory,
                    "start": start,
                }
                if across:
                    samples = simulation.samples(dataset)
                    parties = across(config, samples, scheme, network, **given)
                else:
                    parties = simulation.assemble(config, dataset, split, scheme, network, **given)
                parties = replace(parties, between=background.check)
            under_way = Run(settings, scheme, dataset, split, parties, report)
            with closing(parties.runtime):
                _play(under_way, tracker, background, directory)
    summary.show(report, tracker.where())
    return report


def _play(run: Run, tracker: Tracker, background: Background, directory: Path | None) -> None:
    """All rounds that are left, watched, and the end of the record."""
    report = run.report
    parties = run.parties
    report.parameters = parties.network.parameters
    report.weights = parties.weights
    with parties.monitor.measure(Stage.TRACK):
        record = Record(tracker, resumed=report.rounds > 0)
    report.add_seconds(parties.monitor.drain())
    _watched(run, [Checkpoints(directory, tracker, background), record, Bar()], background)


def _watched(run: Run, observers: Sequence[Observer], background: Background) -> None:
    """All rounds that are left, or as many as the target takes."""
    report = run.report
    config = run.settings.config
    monitor = run.parties.monitor
    try:
        for observer in observers:
            observer.begin(run)
        while report.rounds < config.federation.rounds and report.rounds_to_target is None:
            end_if_asked()
            if exhausted(run.parties, config):
                log.warning("the budget is spent after round %d: the run ends", report.rounds)
                break
            result = evaluated_round(report.rounds + 1, run.parties, run.dataset, config)
            _sites_say(run, observers, result.totals)
            metrics = report.add_round(result)
            report.wall = monitor.elapsed()
            with monitor.measure(Stage.TRACK):
                for observer in observers:
                    observer.after_round(run, metrics)
        if config.clients_evaluate:
            _sites_say(run, observers, evaluate_at_sites(report.rounds + 1, run.parties, config))
        close_run(run.parties)
        with monitor.measure(Stage.TRACK):
            for observer in reversed(observers):
                observer.end(run)
            background.wait()
        report.add_seconds(monitor.drain())
        report.beside = background.seconds
        report.wall = monitor.elapsed()
        for observer in observers:
            observer.summed_up(run)
        background.wait()
    finally:
        for observer in reversed(observers):
            observer.close()


def _sites_say(run: Run, observers: Sequence[Observer], totals: Totals) -> None:
    """What the sites' totals say of the model that their round began with, if they do."""
    if totals.tested:
        metrics = run.report.add_evaluation(run.report.rounds, totals)
        for observer in observers:
            observer.after_evaluation(run, run.report.rounds, metrics)

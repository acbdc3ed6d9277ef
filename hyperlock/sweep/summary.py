"""What a sweep came to: the best trials, a table of all, and pictures, on the parent's page and on
the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from hyperlock.settings.checks import objective_names
from hyperlock.sweep import plots
from hyperlock.sweep.spent import Spent, composed
from hyperlock.sweep.tradeoff import tradeoff, tradeoff_figure
from hyperlock.sweep.trials import (
    FAILED,
    FINISHED,
    Trial,
    describe,
    from_runs,
    from_study,
    front,
    markdown,
    shares,
    show_short,
    table_csv,
)
from hyperlock.tracking.tracker import Tracker

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)
Importances = dict[str, dict[str, float]]  # objective, parameter, share
_BEST_SHOWN = 10
_LONGEST_TAG = 500  # characters
_COST = (
    "- {trials/seconds:.1f} s a trial (median): training and encryption {trials/work_share:.0%}, "
    "evaluation {trials/evaluation_share:.0%}, all else {trials/other_share:.0%}"
)


@dataclass(frozen=True)
class Ending:
    """How a sweep ended.

    Attributes:
        name: the sweep's, and its study's where it has one.
        status: FINISHED, FAILED or KILLED.
        seconds: since it began in this process.
        why: what ended it; "" if nothing has to be said.
    """

    name: str
    status: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Result:
    """What the trials came to.

    Attributes:
        names: of the objectives.
        maximise: for each objective, whether more is better.
        rows: the trials.
        best: those of the rows that no other beats.
        cost: what a trial took, as metrics; empty if none finished.
        spent: what privacy has cost over all trials; None without it.
    """

    names: Sequence[str]
    maximise: Sequence[bool]
    rows: Sequence[Trial]
    best: Sequence[Trial]
    cost: Mapping[str, float]
    spent: Spent | None = None


def summarise(config: DictConfig, tracker: Tracker, study: Study | None, ending: Ending) -> None:
    """Write the summary of a sweep that has ended, with whatever it finished.

    Args:
        config: the sweep's.
        tracker: the parent.
        study: where the trials are kept; None for a plain grid, whose trials are the parent's runs.
        ending: how it ended.
    """
    names = objective_names(config)
    maximise = directions(config, names)
    runs = tracker.children()
    rows = from_runs(runs, names) if study is None else from_study(study)
    best = front(rows, maximise)
    spent = composed(runs, [trial.number for trial in best])
    result = Result(names, maximise, rows, best, _cost(runs), spent)

    # For whoever reads the page or the terminal.
    lines = _lines(result, ending, continuable=study is not None)
    tracker.note("\n".join([*lines, "", markdown(rows, names, maximise)]))
    print("\n".join([f"\n{ending.name}", *(f"  {line}" for line in lines)]))

    # For whoever compares trials and sweeps.
    if rows and tracker.records:
        _record(tracker, result, ending)
        if result.best:
            _draw(tracker, result, study, ending.name)
        if (found := tradeoff(rows, runs)) is not None:
            tracker.figure("privacy", partial(tradeoff_figure, found, ending.name))


def directions(config: DictConfig, names: Sequence[str]) -> list[bool]:
    """For each objective, whether more is better: as the sweeper has it; in a plain grid, for
    accuracy alone."""
    direction = config.hydra.sweeper.get("direction")
    if direction is None:
        return [name == "accuracy" for name in names]
    each = direction if isinstance(direction, ListConfig) else [direction]
    return [getattr(one, "name", one) == "maximize" for one in each]


def how_to_continue(name: str) -> str:
    """What to type to go on with a study."""
    return f"continue it with the same command and `hydra.sweeper.study_name={name}`"


def headline(rows: Sequence[Trial], status: str, seconds: float) -> str:
    """How it ended, and how many trials there are."""
    finished = _count(rows, FINISHED)
    failed = _count(rows, FAILED)
    unfinished = len(rows) - finished - failed
    parts = [f"{finished} finished", f"{failed} failed"]
    if unfinished:
        parts.append(f"{unfinished} unfinished")
    how = {"FINISHED": "Finished", "KILLED": "**Killed**"}.get(status, "**Failed**")
    return f"{how} after {seconds:.0f} s: {len(rows)} trials, {', '.join(parts)}."


def best_lines(best: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """The best trial, or each of the Pareto front."""
    title = "best" if len(names) == 1 else "Pareto front"
    lines = []
    for trial in sorted(best, key=lambda trial: trial.values)[:_BEST_SHOWN]:
        pairs = zip(names, trial.values, strict=True)
        values = ", ".join(f"{name} {value:.6g}" for name, value in pairs)
        lines.append(f"{title}: {trial.name}, {values}: `{describe(trial.params)}`")
    return lines


def importances(study: Study, names: Sequence[str]) -> Importances:
    """For each objective, each parameter's share in explaining it (mean decrease in impurity of a
    random forest)."""
    import optuna

    found: Importances = {}
    for i, name in enumerate(names):
        evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
        try:
            explained = optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial, i=i: trial.values[i]
            )
        except (ValueError, RuntimeError) as error:  # too few trials, or all alike
            log.info("no parameter importance for %s: %s", name, error)
            continue
        if any(share > 0 for share in explained.values()):
            found[name] = dict(explained)
    return found


def _count(rows: Sequence[Trial], state: str) -> int:
    return sum(row.state == state for row in rows)


def _lines(result: Result, ending: Ending, continuable: bool) -> list[str]:
    """How the sweep ended, what came out, and how to go on, a line each."""
    lines = [headline(result.rows, ending.status, ending.seconds)]
    if ending.why:
        lines.append(f"- {' '.join(ending.why.split())}")
    for line in best_lines(result.best, result.names):
        lines.append(f"- {line}")
    if result.spent is not None:
        lines.append(f"- {result.spent.line}")
    if result.cost:
        lines.append(_COST.format_map(result.cost))
    if ending.status != "FINISHED" and continuable:
        lines.append(f"- {how_to_continue(ending.name)}")
    return lines


def _record(tracker: Tracker, result: Result, ending: Ending) -> None:
    """The table, the sweep's own metrics, and the best trial as tags."""
    tracker.document("trials.csv", table_csv(result.rows, result.names))
    counts = {f"trials/{state}": _count(result.rows, state) for state in (FINISHED, FAILED)}
    metrics = {**counts, **result.cost, "trials/wall_s": ending.seconds, **_extremes(result)}
    if result.spent is not None and result.spent.epsilon is not None:
        metrics["privacy/epsilon_composed"] = result.spent.epsilon
    tracker.log(metrics, len(result.rows))
    if result.best:
        names = ", ".join(trial.name for trial in result.best)
        tracker.tag({"best": names[:_LONGEST_TAG]})
        if len(result.names) == 1:
            params = result.best[0].params
            tracker.tag({f"best.{key}": show_short(value, 6) for key, value in params.items()})


def _draw(tracker: Tracker, result: Result, study: Study | None, title: str) -> None:
    """Each objective over the trials, what explains it, and the front of several."""
    names = result.names
    maximise = result.maximise
    for i, name in enumerate(names):
        file = "history" if len(names) == 1 else f"history_{_flat(name)}"
        draw = partial(plots.history_figure, result.rows, i, name, maximise[i], title)
        tracker.figure(file, draw)
    explained = importances(_as_study(result) if study is None else study, names)
    if explained:
        tracker.figure("importance", partial(plots.importance_figure, explained, title))
    if len(names) > 1:
        draw = partial(plots.front_figure, result.rows, names, maximise, title)
        tracker.figure("pareto_front", draw)


def _as_study(result: Result) -> Study:
    """A grid's finished trials as an Optuna study in memory, whose importances can be told."""
    import optuna

    finished = [row for row in result.rows if row.state == FINISHED]
    choices = _choices(finished)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wanted = ["maximize" if up else "minimize" for up in result.maximise]
    study = optuna.create_study(directions=wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for row in finished:
            trial = optuna.trial.create_trial(
                params=dict(row.params),
                distributions={key: choices[key] for key in row.params},
                values=list(row.values),
            )
            study.add_trial(trial)
    return study


def _choices(rows: Sequence[Trial]) -> dict[str, BaseDistribution]:
    """For each parameter the values that trials have of it, in the order of the trials."""
    from optuna.distributions import CategoricalDistribution

    values: dict[str, dict[Any, None]] = {}  # a dict for a set that keeps its order
    for row in rows:
        for key, value in row.params.items():
            values.setdefault(key, {})[value] = None
    return {key: CategoricalDistribution(list(seen)) for key, seen in values.items()}


def _cost(runs: Sequence[Any]) -> dict[str, float]:
    """Medians over the finished trials, so that what only the first one pays does not count."""
    finished = [run for run in runs if run.info.status == "FINISHED"]
    parts = [part for run in finished if (part := shares(run.data.metrics)) is not None]
    if not parts:
        return {}
    work, evaluation, other = (median(each) for each in zip(*parts, strict=True))
    milliseconds = median(run.info.end_time - run.info.start_time for run in finished)
    return {
        "trials/seconds": milliseconds / 1000,
        "trials/work_share": work,
        "trials/evaluation_share": evaluation,
        "trials/other_share": other,
    }


def _extremes(result: Result) -> dict[str, float]:
    """The best value of each objective, whichever trial has it."""
    found: dict[str, float] = {}
    if result.best:
        for i, name in enumerate(result.names):
            better = max if result.maximise[i] else min
            found[f"best/{_flat(name)}"] = better(trial.values[i] for trial in result.best)
    return found


def _flat(name: str) -> str:
    """A metric's name without slashes, which part folders and groups."""
    return name.replace("/", "_")

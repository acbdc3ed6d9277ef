"""What a sweep came to: the best trials, a table of all, and pictures, on the parent's page and on
the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from hyperlock.settings.checks import objective_names
from hyperlock.sweep import plots as sweep_plots
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
    table_csv,
)
from hyperlock.tracking.mlflow import MlflowTracker

log = logging.getLogger(__name__)
Importances = dict[str, dict[str, float]]


def summarise(
    config: DictConfig, tracker: Any, name: str, status: str, seconds: float, why: str
) -> None:
    """Write the summary of a sweep that has ended, with whatever it finished."""
    names = objective_names(config)
    maximise = directions(config, names)
    runs = (
        tracker.search(f"tags.mlflow.parentRunId = '{tracker.run_id}'")
        if isinstance(tracker, MlflowTracker)
        else []
    )
    study = _study(config, name)
    rows = from_study(study) if study is not None else from_runs(runs, names)
    best = front(rows, maximise)
    lines = [headline(rows, status, seconds), *(f"- {line}" for line in best_lines(best, names))]
    if why:
        lines.insert(1, f"- {' '.join(why.split())}")
    cost = _cost(runs)
    if cost:
        shares = (
            "- {trials/seconds:.1f} s a trial (median): training and encryption "
            "{trials/work_share:.0%}, evaluation {trials/evaluation_share:.0%}, "
            "all else {trials/other_share:.0%}"
        )
        lines.append(shares.format_map(cost))
    if status != "FINISHED" and study is not None:
        lines.append(f"- continue it with the same command and `hydra.sweeper.study_name={name}`")
    tracker.note("\n".join([*lines, "", markdown(rows, names, maximise)]))
    print("\n".join([f"\n{name}", *(f"  {line}" for line in lines)]))
    if not rows or not isinstance(tracker, MlflowTracker):
        return
    tracker.document("trials.csv", table_csv(rows, names))
    counts = {
        f"trials/{state}": sum(row.state == state for row in rows) for state in (FINISHED, FAILED)
    }
    tracker.log(
        {**counts, **cost, "trials/wall_s": seconds, **_extremes(best, names, maximise)}, len(rows)
    )
    if best:
        tracker.tag({"best": ", ".join(trial.name for trial in best)[:500]})
        if len(names) == 1:
            tracker.tag(
                {
                    f"best.{key}": f"{value:.6g}" if isinstance(value, float) else str(value)
                    for key, value in best[0].params.items()
                }
            )
        _draw(tracker, rows, names, maximise, study, name)


def directions(config: DictConfig, names: Sequence[str]) -> list[bool]:
    """For each objective, whether more is better: as the sweeper has it; in a plain grid, for
    accuracy alone."""
    direction = config.hydra.sweeper.get("direction")
    if direction is None:
        return [name == "accuracy" for name in names]
    each = direction if isinstance(direction, ListConfig) else [direction]
    return [getattr(one, "name", one) == "maximize" for one in each]


def headline(rows: Sequence[Trial], status: str, seconds: float) -> str:
    """How it ended, and how many trials there are."""
    finished, failed = (sum(row.state == state for row in rows) for state in (FINISHED, FAILED))
    rest = len(rows) - finished - failed
    parts = [f"{finished} finished", f"{failed} failed", *([f"{rest} unfinished"] if rest else [])]
    how = {"FINISHED": "Finished", "KILLED": "**Killed**"}.get(status, "**Failed**")
    return f"{how} after {seconds:.0f} s: {len(rows)} trials, {', '.join(parts)}."


def best_lines(best: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """The best trial, or each of the Pareto front."""
    return [
        f"{'best' if len(names) == 1 else 'Pareto front'}: {trial.name}, "
        + ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))
        + f": `{describe(trial.params)}`"
        for trial in sorted(best, key=lambda trial: trial.values)[:10]
    ]


def importances(study: Any, names: Sequence[str]) -> Importances:
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
        found[name] = dict(explained)
    return {name: each for name, each in found.items() if any(share > 0 for share in each.values())}


def _draw(
    tracker: MlflowTracker,
    rows: Sequence[Trial],
    names: Sequence[str],
    maximise: Sequence[bool],
    study: Any,
    title: str,
) -> None:
    for i, name in enumerate(names):
        file = "history" if len(names) == 1 else f"history_{name.replace('/', '_')}"
        tracker.figure(file, sweep_plots.history_figure(rows, i, name, maximise[i], title))
    explained = importances(study if study is not None else _as_study(rows, maximise), names)
    if explained:
        tracker.figure("importance", sweep_plots.importance_figure(explained, title))
    if len(names) > 1:
        tracker.figure("pareto_front", sweep_plots.front_figure(rows, names, maximise, title))


def _study(config: DictConfig, name: str) -> Any:
    """The kept study, or None: a plain grid has none, and neither has a sweep that ended before it
    began."""
    from hyperlock.sweep.callback import kept_study, storage

    if kept_study(config) is None:
        return None
    import optuna

    node = config.hydra.sweeper.storage
    try:
        return optuna.load_study(
            study_name=name, storage=storage(node) if isinstance(node, str) else instantiate(node)
        )
    except KeyError:
        return None


def _as_study(rows: Sequence[Trial], maximise: Sequence[bool]) -> Any:
    """A grid's finished trials as an Optuna study in memory."""
    import optuna

    finished = [row for row in rows if row.state == FINISHED]
    choices: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in finished for key in row.params):
        choices[key] = optuna.distributions.CategoricalDistribution(
            list({row.params[key]: 0 for row in finished if key in row.params})
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize" if up else "minimize" for up in maximise])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for row in finished:
            distributions = {key: choices[key] for key in row.params}
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(row.params), distributions=distributions, values=list(row.values)
                )
            )
    return study


def _cost(runs: Sequence[Any]) -> dict[str, float]:
    """Medians over the finished trials, so that what only the first one pays does not count."""
    finished = [run for run in runs if run.info.status == "FINISHED"]
    parts = [part for run in finished if (part := shares(run.data.metrics)) is not None]
    if not parts:
        return {}
    seconds = median((run.info.end_time - run.info.start_time) / 1000 for run in finished)
    work, evaluation, other = (median(each) for each in zip(*parts, strict=True))
    return {
        "trials/seconds": seconds,
        "trials/work_share": work,
        "trials/evaluation_share": evaluation,
        "trials/other_share": other,
    }


def _extremes(
    best: Sequence[Trial], names: Sequence[str], maximise: Sequence[bool]
) -> Mapping[str, float]:
    """The best value of each objective, whichever trial has it."""
    if not best:
        return {}
    columns = zip(*(trial.values for trial in best), strict=True)
    return {
        f"best/{name.replace('/', '_')}": (max if up else min)(column)
        for name, up, column in zip(names, maximise, columns, strict=True)
    }

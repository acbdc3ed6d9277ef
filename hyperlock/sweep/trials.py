"""A sweep's trials as plain rows, wherever they are kept, and the table that a person reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperlock.errors import show

FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
REASON = "reason"  # the tag of a failed run, and the attribute of a failed trial
_WORK = ("train", "quantise", "encrypt", "aggregate", "decrypt")
_ROWS_IN_NOTE = 40


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: counts from 0 over the whole study, also when it is continued.
        state: FINISHED, FAILED or UNFINISHED (its process ended, or still runs it).
        params: what the sweep chose for it.
        values: of the objectives, in order; empty unless finished.
        seconds: from its being chosen to its result.
        reason: why it failed.
    """

    number: int
    state: str
    params: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    seconds: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """As its run is named."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """`trial-007`."""
    return f"trial-{number:03d}"


def from_study(study: Any) -> list[Trial]:
    """The trials of an Optuna study."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        state = {"COMPLETE": FINISHED, "FAIL": FAILED}.get(trial.state.name, UNFINISHED)
        values = tuple(trial.values) if state == FINISHED else ()
        seconds = trial.duration.total_seconds() if trial.duration else None
        rows.append(
            Trial(
                trial.number, state, trial.params, values, seconds, trial.user_attrs.get(REASON, "")
            )
        )
    return rows


def from_runs(runs: Sequence[Any], objectives: Sequence[str]) -> list[Trial]:
    """The trials of a plain grid, out of their MLflow runs; the parameters are those that differ
    among them."""
    overrides = [json.loads(run.data.tags.get("overrides", "[]")) for run in runs]
    settings = [dict(override.partition("=")[::2] for override in each) for each in overrides]
    keys = {key for each in settings for key in each}
    swept = [key for key in sorted(keys) if len({each.get(key) for each in settings}) > 1]
    rows = []
    for run, each in zip(runs, settings, strict=True):
        values = tuple(run.data.metrics[name] for name in objectives if name in run.data.metrics)
        state = {"FINISHED": FINISHED, "FAILED": FAILED}.get(run.info.status, UNFINISHED)
        ended = run.info.end_time
        rows.append(
            Trial(
                int(run.data.tags["trial"]),
                state,
                {key: each[key] for key in swept if key in each},
                values if state == FINISHED else (),
                (ended - run.info.start_time) / 1000 if ended else None,
                run.data.tags.get(REASON, ""),
            )
        )
    return sorted(rows, key=lambda row: row.number)


def front(trials: Sequence[Trial], maximise: Sequence[bool]) -> list[Trial]:
    """The finished trials that no other beats: the best ones of a single objective, else the Pareto
    front."""
    finished = [trial for trial in trials if trial.state == FINISHED]
    costs = {
        trial.number: [
            -value if up else value for value, up in zip(trial.values, maximise, strict=True)
        ]
        for trial in finished
    }

    def beaten(trial: Trial) -> bool:
        mine = costs[trial.number]
        return any(
            theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))
            for theirs in costs.values()
        )

    return [trial for trial in finished if not beaten(trial)]


def ranked(trials: Sequence[Trial], maximise: Sequence[bool]) -> list[Trial]:
    """The front first, then the other finished ones, best first objective first; then failed and
    unfinished ones."""
    leading = {trial.number for trial in front(trials, maximise)}

    def key(trial: Trial) -> tuple[Any, ...]:
        if trial.state != FINISHED:
            return (2 if trial.state == FAILED else 3, 0.0, trial.number)
        first = -trial.values[0] if maximise[0] else trial.values[0]
        return (0 if trial.number in leading else 1, first, trial.number)

    return sorted(trials, key=key)


def markdown(trials: Sequence[Trial], objectives: Sequence[str], maximise: Sequence[bool]) -> str:
    """The table for the parent's page, best first."""
    keys = _keys(trials)
    leading = {trial.number for trial in front(trials, maximise)}
    lines = [
        "| " + " | ".join(["trial", *objectives, *keys, "seconds", "state"]) + " |",
        "| --- " * (len(objectives) + len(keys) + 3) + "|",
    ]
    for trial in ranked(trials, maximise)[:_ROWS_IN_NOTE]:
        name = f"**{trial.name}**" if trial.number in leading else trial.name
        reason = " ".join(trial.reason.split()).replace("|", "/")
        state = f"{trial.state}: {reason[:160]}" if reason else trial.state
        lines.append("| " + " | ".join([name, *_cells(trial, objectives, keys), state]) + " |")
    if len(trials) > _ROWS_IN_NOTE:
        lines.append(f"\n{_ROWS_IN_NOTE} of {len(trials)} trials; all of them are in trials.csv.")
    return "\n".join(lines)


def table_csv(trials: Sequence[Trial], objectives: Sequence[str]) -> str:
    """All trials in their order, with full precision."""
    keys, text = _keys(trials), io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trial", "state", *objectives, *keys, "seconds", REASON])
    for trial in trials:
        values = trial.values or [""] * len(objectives)
        params = [show(trial.params[key]) if key in trial.params else "" for key in keys]
        writer.writerow(
            [trial.number, trial.state, *values, *params, trial.seconds or "", trial.reason]
        )
    return text.getvalue()


def describe(params: Mapping[str, Any]) -> str:
    """Parameters as they are typed: `model.units=128 federation.learning_rate=0.1`."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    )


def shares(metrics: Mapping[str, float]) -> tuple[float, float, float] | None:
    """Of a run's wall time without imports: training and encryption, evaluation, and everything
    else."""
    wall = metrics.get("total/wall_s", 0.0) - metrics.get("total/import_s", 0.0)
    if wall <= 0:
        return None
    work = sum(metrics.get(f"total/{stage}_s", 0.0) for stage in _WORK) / wall
    evaluation = metrics.get("total/evaluate_s", 0.0) / wall
    return work, evaluation, 1 - work - evaluation


def _keys(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def _cells(trial: Trial, objectives: Sequence[str], keys: Sequence[str]) -> list[str]:
    values = [f"{value:.6g}" for value in trial.values] or [""] * len(objectives)
    params = [trial.params.get(key, "") for key in keys]
    shown = [f"{value:.4g}" if isinstance(value, float) else show(value) for value in params]
    return [*values, *shown, f"{trial.seconds:.1f}" if trial.seconds is not None else ""]

"""A sweep's trials as plain rows, wherever they are kept, and the table that a person reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hyperlock.addresses import withheld
from hyperlock.errors import HyperLockError, show
from hyperlock.metrics import WORK, Stage, total_seconds
from hyperlock.settings.overrides import Overrides
from hyperlock.tracking.origin import trial_name

if TYPE_CHECKING:
    from optuna import Study

FINISHED = "finished"
FAILED = "failed"
UNFINISHED = "unfinished"
REASON = "reason"  # the tag of a failed run, and the attribute of a failed trial
NUMBER = "HYPERLOCK_TRIAL_NUMBER"  # the study's number of a trial, in the job's environment
_LONGEST_REASON = 2000  # characters
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


def number_of(config: DictConfig) -> int:
    """The number of the trial that a job is: the study's, or else Hydra's own count."""
    return int(OmegaConf.select(config, f"hydra.job.env_set.{NUMBER}") or config.hydra.job.num)


def reason(error: BaseException) -> str:
    """Why a trial failed, as it is recorded: without passwords."""
    text = str(error) if isinstance(error, HyperLockError) else f"{type(error).__name__}: {error}"
    return withheld(text)[:_LONGEST_REASON]


def from_study(study: Study) -> list[Trial]:
    """The trials of an Optuna study."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        state = {"COMPLETE": FINISHED, "FAIL": FAILED}.get(trial.state.name, UNFINISHED)
        row = Trial(
            number=trial.number,
            state=state,
            params=trial.params,
            values=tuple(trial.values) if state == FINISHED else (),
            seconds=trial.duration.total_seconds() if trial.duration else None,
            reason=trial.user_attrs.get(REASON, ""),
        )
        rows.append(row)
    return rows


def from_runs(runs: Sequence[Any], objectives: Sequence[str]) -> list[Trial]:
    """The trials of a plain grid, out of their MLflow runs; the parameters are those that differ
    among them."""
    typed = [Overrides(json.loads(run.data.tags.get("overrides", "[]"))).values for run in runs]
    swept = _differing(typed)
    rows = []
    for run, settings in zip(runs, typed, strict=True):
        params = {key: settings[key] for key in swept if key in settings}
        rows.append(_from_run(run, params, objectives))
    return sorted(rows, key=lambda row: row.number)


def front(trials: Sequence[Trial], maximise: Sequence[bool]) -> list[Trial]:
    """The finished trials that no other beats: the best ones of a single objective, else the Pareto
    front."""
    finished = [trial for trial in trials if trial.state == FINISHED]
    costs = {trial.number: _costs(trial, maximise) for trial in finished}

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

    def place(trial: Trial) -> tuple[int, float, int]:
        if trial.state == UNFINISHED:
            return 3, 0.0, trial.number
        if trial.state == FAILED:
            return 2, 0.0, trial.number
        first = _costs(trial, maximise)[0]
        return (0 if trial.number in leading else 1), first, trial.number

    return sorted(trials, key=place)


def markdown(trials: Sequence[Trial], objectives: Sequence[str], maximise: Sequence[bool]) -> str:
    """The table for the parent's page, best first."""
    keys = _keys(trials)
    leading = {trial.number for trial in front(trials, maximise)}
    headings = ["trial", *objectives, *keys, "seconds", "state"]
    lines = [f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
    for trial in ranked(trials, maximise)[:_ROWS_IN_NOTE]:
        name = f"**{trial.name}**" if trial.number in leading else trial.name
        cells = [name, *_cells(trial, objectives, keys), _state(trial)]
        lines.append(f"| {' | '.join(cells)} |")
    if len(trials) > _ROWS_IN_NOTE:
        lines.append(f"\n{_ROWS_IN_NOTE} of {len(trials)} trials; all of them are in trials.csv.")
    return "\n".join(lines)


def table_csv(trials: Sequence[Trial], objectives: Sequence[str]) -> str:
    """All trials in their order, with full precision."""
    keys = _keys(trials)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trial", "state", *objectives, *keys, "seconds", REASON])
    for trial in trials:
        values = trial.values or [""] * len(objectives)
        params = [show(trial.params[key]) if key in trial.params else "" for key in keys]
        seconds = trial.seconds or ""
        writer.writerow([trial.number, trial.state, *values, *params, seconds, trial.reason])
    return text.getvalue()


def describe(params: Mapping[str, Any]) -> str:
    """Parameters as they are typed: `model.units=128 federation.learning_rate=0.1`."""
    return " ".join(f"{key}={show_short(value)}" for key, value in params.items())


def show_short(value: Any, digits: int = 4) -> str:
    """A parameter's value; numbers that are not whole with so many significant digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def shares(metrics: Mapping[str, float]) -> tuple[float, float, float] | None:
    """Of a run's wall time without imports: training and encryption, evaluation, and everything
    else."""

    def seconds(stage: Stage) -> float:
        return metrics.get(total_seconds(stage), 0.0)

    wall = metrics.get("total/wall_s", 0.0) - seconds(Stage.IMPORT)
    if wall <= 0:
        return None
    work = sum(map(seconds, WORK)) / wall
    evaluation = seconds(Stage.EVALUATE) / wall
    return work, evaluation, 1 - work - evaluation


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that have more than one value, being absent counted as one."""
    keys = sorted({key for each in settings for key in each})
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def _from_run(run: Any, params: Mapping[str, str], objectives: Sequence[str]) -> Trial:
    state = {"FINISHED": FINISHED, "FAILED": FAILED}.get(run.info.status, UNFINISHED)
    values: tuple[float, ...] = ()
    if state == FINISHED:
        metrics = run.data.metrics
        values = tuple(metrics[name] for name in objectives if name in metrics)
    seconds = None
    if run.info.end_time:
        seconds = (run.info.end_time - run.info.start_time) / 1000
    return Trial(
        number=int(run.data.tags["trial"]),
        state=state,
        params=params,
        values=values,
        seconds=seconds,
        reason=run.data.tags.get(REASON, ""),
    )


def _costs(trial: Trial, maximise: Sequence[bool]) -> list[float]:
    """A finished trial's values, turned so that less is better of each."""
    pairs = zip(trial.values, maximise, strict=True)
    return [-value if up else value for value, up in pairs]


def _keys(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def _cells(trial: Trial, objectives: Sequence[str], keys: Sequence[str]) -> list[str]:
    values = [f"{value:.6g}" for value in trial.values] or [""] * len(objectives)
    params = [trial.params.get(key, "") for key in keys]
    shown = [show_short(value) if isinstance(value, float) else show(value) for value in params]
    seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
    return [*values, *shown, seconds]


def _state(trial: Trial) -> str:
    """The state, and the beginning of the reason, in one cell of a Markdown table."""
    text = " ".join(trial.reason.split()).replace("|", "/")
    return f"{trial.state}: {text[:160]}" if text else trial.state

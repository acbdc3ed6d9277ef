"""The sweeper behind `hydra/sweeper=study`: Optuna's search over Hydra's overrides, in a study that
outlives it.

It reads the settings of the Optuna sweeper plugin and parses search spaces with it. What it adds:

- a study is continued up to `n_trials` finished trials in all; what was running when a process died
  does not count;
- a parameter that a trial's groups do not have (`encryption.poly_modulus` under `encryption=none`)
  is left out;
- a trial that cannot work is a failed trial, with its reason, as long as `max_failure_rate` allows;
- Optuna's samplers learn nothing from a failed trial and may propose its like again and again, so
  that random draws take their place for a while, for longer the more often they failed;
- a setting on the command line takes the place of the search's own.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import DictConfig, OmegaConf
from optuna.trial import Trial, TrialState

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.checks import objective_names
from hyperlock.sweep import parent
from hyperlock.sweep.space import ANOTHER_STUDY, Composer, Space, read_space
from hyperlock.sweep.storage import storage
from hyperlock.sweep.trials import NUMBER, REASON, reason
from hyperlock.tracking.origin import TrialRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """A trial that was chosen.

    Attributes:
        trial: Optuna's.
        overrides: what it is run with.
        refusal: why these do not compose; None if they do.
    """

    trial: Trial
    overrides: list[str]
    refusal: Exception | None


class StudySweeperImpl(OptunaSweeperImpl):
    """See the module."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take in what Hydra composed."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._composer = Composer(hydra_context.config_loader, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has `n_trials` finished ones.

        Raises:
            HyperLockError: the search or the study cannot work, or every trial failed.
        """
        self._process_searchspace_config()
        space = read_space(self._parse_sweeper_params_config(), arguments, self._composer)
        study = self._open(space)
        done = _done(study)
        if study.trials:
            # The sampler would otherwise draw again what it drew at the study's beginning.
            self.sampler.reseed_rng()
            to_go = max(0, self.n_trials - done)
            log.info("study %s: %d trials done, %d to go", self.study_name, done, to_go)

        # One that stands in for the sampler after failures, and how that goes (see `_relieve`).
        seed = None if study.trials else self.config.seed + 1
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._sampler_failures = 0
        self._random_draws = 0

        # Batch after batch, until enough are done or too many have failed.
        while done < self.n_trials:
            batch = self._batch(study, min(self.n_jobs, self.n_trials - done), space)
            done = _done(study)  # counted anew, since others may work on the same study
            failures = [error for error in batch if error is not None]
            self._relieve(study, bool(failures))
            if len(failures) / len(batch) > self.max_failure_rate:
                log.error(
                    "%d of %d trials failed, more than hydra.sweeper.max_failure_rate=%g",
                    len(failures),
                    len(batch),
                    self.max_failure_rate,
                )
                raise failures[0]
        self._save(study)

    # --- trials -----------------------------------------------------------------------------------

    def _batch(self, study: optuna.Study, size: int, space: Space) -> list[Exception | None]:
        """Run trials at once; each one's error, or None."""
        # All are asked for before one is run, so that the sampler knows of each other's.
        trials = [study.ask() for _ in range(size)]
        attempts = [self._choose(trial, space) for trial in trials]
        errors = {attempt.trial.number: attempt.refusal for attempt in attempts}

        # What composes is run, wherever the launcher runs it, and the study is told.
        runnable = [attempt for attempt in attempts if attempt.refusal is None]
        for attempt, job in zip(runnable, self._launch(runnable), strict=True):
            errors[attempt.trial.number] = _tell(study, attempt.trial, job)

        # What does not has no run yet; what failed has noted so in its own (see `SweepRecord`).
        for attempt in attempts:
            number = attempt.trial.number
            if attempt.refusal is not None:
                run = TrialRun(parent.run_id(), number, tuple(attempt.overrides))
                parent.record_failure(self.config, run, attempt.refusal)
            error = errors[number]
            if error is not None:
                _tell_failure(study, attempt.trial, error)
        return list(errors.values())

    def _choose(self, trial: Trial, space: Space) -> _Attempt:
        """Let the sampler choose, of the keys that the groups chosen so far have."""
        chosen = self._composer.groups_in(space.fixed)
        for key, distribution in space.searched.items():
            if self._composer.applies(key, chosen):
                value = trial._suggest(key, distribution)
                if self._composer.is_group(key):
                    chosen[key] = value
        if self.custom_search_space_extender:
            self.custom_search_space_extender(self.config, trial)
        values = dict(trial.params)
        for key, value in space.fixed.items():
            if self._composer.applies(key, chosen):
                values[key] = value
        overrides = [f"{key}={value}" for key, value in values.items()]
        return _Attempt(trial, overrides, self._composer.refusal(overrides))

    def _launch(self, attempts: Sequence[_Attempt]) -> Sequence[JobReturn]:
        if not attempts:
            return []
        jobs = []
        for attempt in attempts:
            number = f"hydra.job.env_set.{NUMBER}='{attempt.trial.number}'"
            jobs.append((*attempt.overrides, number))
        returns: Sequence[JobReturn] = self.launcher.launch(
            jobs, initial_job_idx=attempts[0].trial.number
        )
        return returns

    def _relieve(self, study: optuna.Study, failed: bool) -> None:
        """Choose who draws next: after the sampler's k-th failure, random draws k times."""
        if isinstance(self.sampler, optuna.samplers.GridSampler):
            return
        if study.sampler is not self.sampler:
            self._random_draws -= 1
        elif failed:
            self._sampler_failures += 1
            self._random_draws = self._sampler_failures
        study.sampler = self._random if self._random_draws else self.sampler

    # --- the study --------------------------------------------------------------------------------

    def _open(self, space: Space) -> optuna.Study:
        """The study, new or continued, refused if it was begun with another question."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._prepare_sampler(space)
        directions = [getattr(direction, "name", direction) for direction in self._get_directions()]
        objectives = objective_names(self.config)
        study = self._load_or_create(directions)
        _refuse_other_objectives(study, directions, objectives)
        for trial in study.get_trials(deepcopy=False):
            space.refuse_other(trial.distributions)
        study.set_user_attr("objectives", objectives)
        return study

    def _prepare_sampler(self, space: Space) -> None:
        """Give the sampler what it cannot know: a grid its choices, others the run's seed."""
        settings = self.config.hydra.sweeper.sampler
        if isinstance(self.sampler, functools.partial):  # the grid sampler
            grid = space.choices()
            self.sampler = self.sampler(grid)
            self.n_trials = min(self.n_trials, math.prod(map(len, grid.values())))
        elif "seed" in settings and settings.seed is None:
            # So that the same command asks the same questions.
            self.sampler = instantiate(settings, seed=self.config.seed)

    def _load_or_create(self, directions: list[str]) -> optuna.Study:
        if isinstance(self.storage, str):
            self.storage = storage(self.storage)
        try:
            return optuna.load_study(
                study_name=self.study_name, storage=self.storage, sampler=self.sampler
            )
        except (KeyError, ValueError):  # there is none, or none is kept
            return optuna.create_study(
                study_name=self.study_name,
                storage=self.storage,
                sampler=self.sampler,
                directions=directions,
            )

    def _save(self, study: optuna.Study) -> None:
        """Write the best trials where Hydra's Optuna sweeper would."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            first = failed[0].user_attrs.get(REASON, "") if failed else "none was run"
            raise HyperLockError(f"none of {len(failed)} trials finished; the first: {first}")
        best = [
            {"trial": trial.number, "params": trial.params, "values": list(trial.values)}
            for trial in study.best_trials
        ]
        results = OmegaConf.create({"name": "optuna", "study": study.study_name, "best": best})
        Path(self.sweep_dir).mkdir(parents=True, exist_ok=True)
        OmegaConf.save(results, f"{self.sweep_dir}/optimization_results.yaml")


def run(sweeper: StudySweeperImpl, arguments: list[str]) -> None:
    """Sweep, and end the process with one message where one says all."""
    try:
        sweeper.sweep(arguments)
    except HyperLockError as error:
        log.error("%s", error)
        parent.close("FAILED", reason(error))
        sys.exit(1)
    except Exception as error:
        parent.close("FAILED", reason(error))
        raise


def _tell(study: optuna.Study, trial: Trial, job: JobReturn) -> Exception | None:
    """Hand the study a trial's values; or return the trial's error."""
    if job.status == JobStatus.FAILED:
        error: Exception = job._return_value
        return error
    value = job.return_value
    values = [float(v) for v in (value if isinstance(value, list | tuple) else [value])]
    with _grid_sampler_stops():
        study.tell(trial, values)
    log.info("trial %d: %s", trial.number, ", ".join(f"{v:.6g}" for v in values))
    return None


def _tell_failure(study: optuna.Study, trial: Trial, error: Exception) -> None:
    trial.set_user_attr(REASON, reason(error))
    with _grid_sampler_stops():
        study.tell(trial, state=TrialState.FAIL)
    log.warning("trial %d failed: %s", trial.number, reason(error))


@contextmanager
def _grid_sampler_stops() -> Iterator[None]:
    """Let pass what the grid sampler raises once the grid is done: it stops a loop that is not
    Optuna's here."""
    try:
        yield
    except RuntimeError as error:
        if "Study.stop" not in str(error):
            raise


def _done(study: optuna.Study) -> int:
    """Trials that count; those that run, or whose process died, do not."""
    ended = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
    return len(study.get_trials(deepcopy=False, states=ended))


def _refuse_other_objectives(
    study: optuna.Study, directions: list[str], objectives: list[str]
) -> None:
    begun_directions = [direction.name.lower() for direction in study.directions]
    begun_objectives = study.user_attrs.get("objectives", objectives)
    if begun_directions != directions or begun_objectives != objectives:
        raise ConfigError(
            "hydra.sweeper.study_name",
            study.study_name,
            f"the study was begun to {_question(begun_directions, begun_objectives)}, not to "
            f"{_question(directions, objectives)}",
            hint=ANOTHER_STUDY,
        )


def _question(directions: Sequence[str], objectives: Sequence[str]) -> str:
    pairs = zip(directions, objectives, strict=False)
    return ", ".join(f"{direction} {name}" for direction, name in pairs)

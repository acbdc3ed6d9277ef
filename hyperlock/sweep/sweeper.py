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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    DiscreteUniformDistribution,
)
from optuna.trial import Trial, TrialState

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.checks import objective_names
from hyperlock.sweep import callback as sweep
from hyperlock.sweep.trials import REASON

log = logging.getLogger(__name__)


class StudySweeperImpl(OptunaSweeperImpl):
    """See the module."""

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has `n_trials` finished ones.

        Raises:
            HyperLockError: the search or the study cannot work, or every trial failed.
        """
        space, fixed = self._space(arguments)
        study = self._open(space)
        self._sampler_failures = self._random_draws = 0
        self._random = optuna.samplers.RandomSampler(
            seed=None if study.trials else self.config.seed + 1
        )
        done = _done(study)
        if study.trials:
            # The sampler would otherwise draw again what it drew at the study's beginning.
            self.sampler.reseed_rng()
            log.info(
                "study %s: %d trials done, %d to go",
                self.study_name,
                done,
                max(0, self.n_trials - done),
            )
        while done < self.n_trials:
            batch = self._batch(study, min(self.n_jobs, self.n_trials - done), space, fixed)
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

    def _batch(
        self,
        study: optuna.Study,
        size: int,
        space: Mapping[str, BaseDistribution],
        fixed: Mapping[str, Any],
    ) -> list[Exception | None]:
        """Run trials at once; each one's error, or None."""
        trials = [study.ask() for _ in range(size)]
        overrides = {trial.number: self._choose(trial, space, fixed) for trial in trials}
        errors = {trial.number: self._composes(overrides[trial.number]) for trial in trials}
        runnable = [trial for trial in trials if errors[trial.number] is None]
        jobs = [
            (*overrides[t.number], f"hydra.job.env_set.{sweep.NUMBER}='{t.number}'")
            for t in runnable
        ]
        returns = self.launcher.launch(jobs, initial_job_idx=runnable[0].number) if runnable else []
        for trial, job in zip(runnable, returns, strict=True):
            errors[trial.number] = self._tell(study, trial, job)
        for trial in trials:
            error = errors[trial.number]
            if error is not None:
                if trial not in runnable:
                    sweep.record_failure(self.config, trial.number, overrides[trial.number], error)
                trial.set_user_attr(REASON, sweep.reason(error))
                with _grid_sampler_stops():
                    study.tell(trial, state=TrialState.FAIL)
                log.warning("trial %d failed: %s", trial.number, error)
        return [errors[trial.number] for trial in trials]

    def _tell(self, study: optuna.Study, trial: Trial, job: JobReturn) -> Exception | None:
        if job.status == JobStatus.FAILED:
            error: Exception = job._return_value
            return error
        value = job.return_value
        values = [float(v) for v in (value if isinstance(value, list | tuple) else [value])]
        with _grid_sampler_stops():
            study.tell(trial, values)
        log.info("trial %d: %s", trial.number, ", ".join(f"{v:.6g}" for v in values))
        return None

    def _space(
        self, arguments: Sequence[str]
    ) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
        """What is searched and what is fixed; the command line replaces what the search says of the
        same key."""
        self._process_searchspace_config()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides(list(arguments))
        keys = {override.get_key_element() for override in typed}
        own = parser.parse_overrides(
            [
                setting
                for setting in self._parse_sweeper_params_config()
                if setting.partition("=")[0] not in keys
            ]
        )
        space, fixed = create_params_from_overrides(
            [_without_glob(override) for override in (*own, *typed)]
        )
        # Groups first: which other keys there are depends on them.
        space = dict(sorted(space.items(), key=lambda item: not self._is_group(item[0])))
        if not space:
            raise ConfigError(
                "hydra.sweeper.params",
                {},
                "there is nothing to search",
                hint="hparams_search=original, or a choice such as encryption.value_bits=8,16",
            )
        for key in space:
            self._check_key(key, space, fixed)
        return space, fixed

    def _check_key(
        self, key: str, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
    ) -> None:
        group = key.partition(".")[0]
        options: Sequence[Any] = (
            space[group].choices
            if isinstance(space.get(group), CategoricalDistribution)
            else [None]
        )
        chosen = {name: value for name, value in fixed.items() if self._is_group(name)}
        if not any(
            self._applies(key, {**chosen, group: option} if option else chosen)
            for option in options
        ):
            raise ConfigError(
                key,
                "...",
                "the search names a setting that there is not",
                hint="python run.py --cfg job",
            )

    def _choose(
        self, trial: Trial, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
    ) -> list[str]:
        """Let the sampler choose, and return the trial's overrides."""
        chosen = {key: value for key, value in fixed.items() if self._is_group(key)}
        for key, distribution in space.items():
            if self._applies(key, chosen):
                value = trial._suggest(key, distribution)
                if self._is_group(key):
                    chosen[key] = value
        if self.custom_search_space_extender:
            self.custom_search_space_extender(self.config, trial)
        rest = {key: value for key, value in fixed.items() if self._applies(key, chosen)}
        return [f"{key}={value}" for key, value in {**trial.params, **rest}.items()]

    def _is_group(self, key: str) -> bool:
        return bool(
            self.hydra_context.config_loader.get_group_options(key.lstrip("+").partition("@")[0])
        )

    def _applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether the chosen groups have this key."""
        if key[0] in "+~" or self._is_group(key):
            return True
        parent, _, leaf = key.rpartition(".")
        composed = self._compose(tuple(f"{group}={option}" for group, option in chosen.items()))
        node = OmegaConf.select(composed, parent, throw_on_missing=False) if parent else composed
        return not isinstance(node, DictConfig) or leaf in node.keys()  # noqa: SIM118  (`in` alone misses `???`)

    @functools.cache  # noqa: B019  (one sweeper a process)
    def _compose(self, overrides: tuple[str, ...]) -> DictConfig:
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def _composes(self, overrides: Sequence[str]) -> Exception | None:
        try:
            self._compose.__wrapped__(self, tuple(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            return ConfigError("trial", " ".join(overrides), str(error).splitlines()[0])
        return None

    def _open(self, space: Mapping[str, BaseDistribution]) -> optuna.Study:
        """The study, new or continued, refused if it was begun with another question."""
        if isinstance(self.sampler, functools.partial):  # the grid sampler wants to know the grid
            grid = {key: _choices(key, distribution) for key, distribution in space.items()}
            self.sampler = self.sampler(grid)
            self.n_trials = min(self.n_trials, math.prod(map(len, grid.values())))
        elif (
            "seed" in self.config.hydra.sweeper.sampler
            and self.config.hydra.sweeper.sampler.seed is None
        ):
            # So that the same command asks the same questions.
            self.sampler = instantiate(self.config.hydra.sweeper.sampler, seed=self.config.seed)
        directions = [getattr(direction, "name", direction) for direction in self._get_directions()]
        objectives = objective_names(self.config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if isinstance(self.storage, str):
            self.storage = sweep.storage(self.storage)
        try:
            study = optuna.load_study(
                study_name=self.study_name, storage=self.storage, sampler=self.sampler
            )
        except (KeyError, ValueError):  # there is none, or none is kept
            study = optuna.create_study(
                study_name=self.study_name,
                storage=self.storage,
                sampler=self.sampler,
                directions=directions,
            )
        begun = (
            [direction.name.lower() for direction in study.directions],
            study.user_attrs.get("objectives", objectives),
        )
        hint = "hydra.sweeper.study_name=ANOTHER"
        if begun != (directions, objectives):
            raise ConfigError(
                "hydra.sweeper.study_name",
                self.study_name,
                f"the study was begun to {_question(*begun)}, not to "
                f"{_question(directions, objectives)}",
                hint=hint,
            )
        for trial in study.get_trials(deepcopy=False):
            for key, before in trial.distributions.items():
                now = space.get(key, before)
                if type(now) is not type(before) or (
                    isinstance(now, CategoricalDistribution) and now != before
                ):
                    asked, begun_with = (getattr(each, "choices", each) for each in (now, before))
                    raise ConfigError(
                        key, asked, f"the study was begun with {begun_with}", hint=hint
                    )
        study.set_user_attr("objectives", objectives)
        return study

    def _save(self, study: optuna.Study) -> None:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            first = failed[0].user_attrs.get(REASON, "") if failed else "none was run"
            raise HyperLockError(f"none of {len(failed)} trials finished; the first: {first}")
        best = [
            {"trial": t.number, "params": t.params, "values": list(t.values)}
            for t in study.best_trials
        ]
        results = OmegaConf.create({"name": "optuna", "study": study.study_name, "best": best})
        Path(self.sweep_dir).mkdir(parents=True, exist_ok=True)
        OmegaConf.save(results, f"{self.sweep_dir}/optimization_results.yaml")


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
    return len(
        study.get_trials(
            deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
        )
    )


def _without_glob(override: Override) -> str:
    """`group=glob(*)` as the choice that it stands for; anything else as it is."""
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return f"{override.get_key_element()}=choice({','.join(override.sweep_string_iterator())})"
    return str(override.input_line)


def _choices(key: str, distribution: BaseDistribution) -> list[Any]:
    match distribution:
        case CategoricalDistribution():
            return list(distribution.choices)
        case optuna.distributions.IntUniformDistribution():
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        case DiscreteUniformDistribution():
            count = round((distribution.high - distribution.low) / distribution.q) + 1
            return [distribution.low + i * distribution.q for i in range(count)]
    raise ConfigError(
        "hydra/sweeper/sampler",
        "grid",
        f"{key} is searched over an interval, not over choices",
        hint="hydra/sweeper/sampler=tpe",
    )


def _question(directions: Sequence[str], objectives: Sequence[str]) -> str:
    return ", ".join(
        f"{direction} {name}" for direction, name in zip(directions, objectives, strict=False)
    )


def run(sweeper: StudySweeperImpl, arguments: list[str]) -> None:
    """Sweep, and end the process with one message where one says all."""
    try:
        sweeper.sweep(arguments)
    except HyperLockError as error:
        log.error("%s", error)
        sweep.close("FAILED", sweep.reason(error))
        sys.exit(1)
    except Exception as error:
        sweep.close("FAILED", sweep.reason(error))
        raise

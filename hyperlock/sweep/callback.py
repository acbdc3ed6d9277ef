"""Hydra's callback around a sweep and around each of its trials.

In the sweeping process it opens the parent before the first trial and closes it after the last one.
In the trials' processes it says by the environment what their runs belong to, and notes why a trial
failed.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.checks import check_objectives, objective_names
from hyperlock.settings.passwords import refuse_passwords
from hyperlock.sweep import parent
from hyperlock.sweep.storage import study_name, study_storage
from hyperlock.sweep.trials import number_of, reason
from hyperlock.tracking.origin import TrialRun, withdraw

log = logging.getLogger(__name__)


class SweepRecord(Callback):
    """`hydra.callbacks`; pickled to wherever trials run, so that it holds no more than the parent's
    id."""

    def __init__(self) -> None:
        self._parent = ""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check what can be checked, and open the parent. Hydra drops a callback's errors, so they
        end the process."""
        self._parent = ""
        try:
            _check(config)
            opened = parent.begin(config)
        except HyperLockError as error:
            log.error("%s", error)
            sys.exit(1)
        except Exception:
            log.exception("the sweep's record cannot be opened")
            sys.exit(1)
        self._parent = opened.tracker.run_id
        _show_workers_this_code()
        if study_name(config):
            hint = f"continue it with hydra.sweeper.study_name={opened.name}"
            log.info("study %s; %s", opened.name, hint)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the trial's tracker what it belongs to."""
        if config.hydra.mode == RunMode.MULTIRUN and self._parent:
            overrides = tuple(config.hydra.overrides.task)
            TrialRun(self._parent, number_of(config), overrides).announce()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a failure; under a plain grid it is then no error of the sweep, as under a
        study."""
        trial = withdraw()
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if not _crosses(error):
            error = HyperLockError(reason(error))
            job_return.return_value = error
        if trial is not None:
            parent.record_failure(config, trial, error)
        # Hydra's own sweeper would stop at the first failure; a study's is told of it.
        if isinstance(error, HyperLockError) and "direction" not in config.hydra.sweeper:
            log.warning("trial %d failed: %s", number_of(config), error)
            job_return.status = JobStatus.COMPLETED
            job_return.return_value = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the summary of a sweep that came to its end."""
        parent.close("FINISHED")


def _check(config: DictConfig) -> None:
    """Raise ConfigError for what would fail in every trial, or at the sweep's end."""
    # Trials are composed with these as they are here, the environment's passwords put in.
    params = config.hydra.sweeper.get("params") or {}
    refuse_passwords(f"{key}={value}" for key, value in params.items())
    names = objective_names(config)
    check_objectives(names)
    if study_name(config):
        study_storage(config)
    if "direction" in config.hydra.sweeper:
        direction = config.hydra.sweeper.direction
        count = len(direction) if isinstance(direction, ListConfig) else 1
        if count != len(names):
            raise ConfigError(
                "hydra.sweeper.direction",
                direction,
                f"{count} for objective={','.join(names)}",
                allowed="one of maximize and minimize for each objective",
            )


def _show_workers_this_code() -> None:
    """Workers, wherever they start, find the code that this process runs."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, known]) if known else root


def _crosses(error: BaseException) -> bool:
    """Whether an error can be handed from a worker to the sweeping process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True

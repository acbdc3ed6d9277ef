"""A sweep's own record: one parent run with its trials under it, whatever launches them and however
it ends.

`SweepRecord` is a Hydra callback. In the sweeping process it opens the parent before the first
trial and writes the summary after the last one, or when the process is told to end. In the trials'
processes it names the parent to `hyperlock.tracking` by the environment, and notes why a trial
failed.
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.parse import PASSWORD, refuse_passwords
from hyperlock.sweep import trials
from hyperlock.tracking.mlflow import (
    TRIAL,
    MlflowTracker,
    NoTracker,
    on_this_host,
    process_ended,
    process_tag,
)

log = logging.getLogger(__name__)
NUMBER = "HYPERLOCK_TRIAL_NUMBER"  # the study's number of a trial, where it has one


@functools.cache
def storage(url: str) -> Any:
    """Optuna's database storage, one for each address and process:
    `hydra.sweeper.storage._target_`.

    Optuna 2.10 does not commit its schema's revision under SQLAlchemy 2, so that no study could
    ever be reopened; here the revision is stamped in a transaction. A SQLite file's folder is made.

    Raises:
        ConfigError: the address cannot be read, or the database cannot be reached.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.migration import MigrationContext
    from optuna.storages import RDBStorage
    from optuna.storages._rdb.storage import _VersionManager
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    def stamp(manager: Any, revision: str) -> None:
        with manager.engine.begin() as connection:
            MigrationContext.configure(connection).stamp(manager._create_alembic_script(), revision)

    setting = "hydra.sweeper.storage.url"
    try:
        address = make_url(url)
    except ArgumentError:
        raise ConfigError(
            setting,
            "(not shown)",
            "is no database address",
            allowed="sqlite:////PATH/FILE.db, or postgresql://USER@HOST/DATABASE",
        ) from None
    if address.get_backend_name() == "sqlite" and address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    _VersionManager._set_alembic_revision = stamp
    try:
        # SQLite answers "database is locked" after 5 s by default, which parallel trials can take.
        arguments = (
            {"connect_args": {"timeout": 60}}
            if address.get_backend_name() == "sqlite"
            else {"pool_pre_ping": True}
        )
        return RDBStorage(url, engine_kwargs=arguments)
    except (SQLAlchemyError, ImportError) as error:
        shown = address.render_as_string(hide_password=True)
        raise ConfigError(
            setting, shown, f"cannot be opened ({str(error).splitlines()[0]})"
        ) from None


def reason(error: BaseException) -> str:
    """Why a trial failed, as it is recorded."""
    text = str(error) if isinstance(error, HyperLockError) else f"{type(error).__name__}: {error}"
    return PASSWORD.sub("://(not shown)@", text)[:2000]


@dataclass
class _Sweep:
    """The sweep of this process."""

    config: DictConfig
    tracker: Any
    name: str
    start: float
    status: str = "FAILED"


_current: _Sweep | None = None


class SweepRecord(Callback):
    """`hydra.callbacks`; pickled to wherever trials run, so that it holds no more than the parent's
    id."""

    def __init__(self) -> None:
        self._parent: str | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check what can be checked, and open the parent. Hydra drops a callback's errors, so they
        end the process."""
        global _current
        try:
            _check(config)
            self._parent, _current = None, _open(config)
            if isinstance(_current.tracker, MlflowTracker):
                self._parent = _current.tracker.run_id
        except HyperLockError as error:
            log.error("%s", error)
            sys.exit(1)
        except Exception:
            log.exception("the sweep's record cannot be opened")
            sys.exit(1)
        # Workers, wherever they start, find the code that this process runs.
        root = str(Path(__file__).resolve().parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [root, os.environ.get("PYTHONPATH")])
        )
        atexit.register(close)
        for number in (signal.SIGINT, signal.SIGTERM):
            _mark_killed_by(number)
        if kept_study(config):
            log.info(
                "study %s; continue it with hydra.sweeper.study_name=%s",
                _current.name,
                _current.name,
            )

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the trial's tracker what it belongs to."""
        if config.hydra.mode == RunMode.MULTIRUN and self._parent:
            overrides = list(config.hydra.overrides.task)
            os.environ[TRIAL] = json.dumps(
                {"parent": self._parent, "number": _number(config), "overrides": overrides}
            )

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a failure; under a plain grid it is then no error of the sweep, as under a
        study."""
        trial = os.environ.pop(TRIAL, None)
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if not _crosses(error):
            error = job_return.return_value = HyperLockError(reason(error))
        if trial:
            record_failure(
                config, _number(config), list(config.hydra.overrides.task), error, self._parent
            )
        if isinstance(error, HyperLockError) and "direction" not in config.hydra.sweeper:
            log.warning("trial %d failed: %s", _number(config), error)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the summary."""
        if _current is not None:
            _current.status = "FINISHED"
        close()


def record_failure(
    config: DictConfig,
    number: int,
    overrides: Sequence[str],
    error: BaseException,
    parent: str | None = None,
) -> None:
    """Mark a trial's run as failed, with the reason; make the run where the trial never came to
    have one."""
    parent = parent or (
        _current.tracker.run_id
        if _current and isinstance(_current.tracker, MlflowTracker)
        else None
    )
    if parent is None:
        return
    settings = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    tags = {
        "mlflow.parentRunId": parent,
        "trial": str(number),
        "overrides": json.dumps(list(overrides)),
    }
    tracker = _tracker(
        config,
        trials.trial_name(number),
        settings,
        tags,
        f"tags.mlflow.parentRunId = '{parent}' and tags.trial = '{number}'",
    )
    text = reason(error)
    tracker.tag({trials.REASON: text})
    tracker.note(f"This trial failed:\n\n```\n{text}\n```")
    tracker.finish("FAILED")


def close(status: str | None = None, why: str = "") -> None:
    """Write the sweep's summary and end the parent; nothing if that has been done, or there is no
    sweep."""
    global _current
    sweep, _current = _current, None
    if sweep is None:
        return
    status = status or sweep.status
    from hyperlock.sweep.summary import summarise

    if isinstance(sweep.tracker, MlflowTracker) and status != "FINISHED":
        for run in sweep.tracker.search(f"tags.mlflow.parentRunId = '{sweep.tracker.run_id}'"):
            if run.info.status == "RUNNING" and on_this_host(run.data.tags):
                sweep.tracker.client.set_terminated(run.info.run_id, "KILLED")
    try:
        summarise(sweep.config, sweep.tracker, sweep.name, status, time.time() - sweep.start, why)
    finally:
        sweep.tracker.finish(status)


def kept_study(config: DictConfig) -> str | None:
    """The name of the study, where the sweep has one that outlives it."""
    sweeper = config.hydra.sweeper
    return sweeper.study_name if sweeper.get("storage") and sweeper.get("study_name") else None


def _check(config: DictConfig) -> None:
    from hyperlock.settings.checks import check_objectives, objective_names

    refuse_passwords([*config.hydra.overrides.hydra, *config.hydra.overrides.task])
    names = objective_names(config)
    check_objectives(names)
    if kept_study(config):
        kept = config.hydra.sweeper.storage
        storage(kept if isinstance(kept, str) else kept.url)
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


def _open(config: DictConfig) -> _Sweep:
    from hyperlock.settings.checks import objective_names

    choices = config.hydra.runtime.choices
    search = choices.get("hparams_search") or "none"
    name = (
        kept_study(config)
        or f"{'grid' if search == 'none' else search} {time.strftime('%m-%d %H:%M')}"
    )
    tags = {
        "sweep": search,
        "study": name,
        "objective": ", ".join(objective_names(config)),
        "sweeper": str(choices.get("hydra/sweeper")),
        "launcher": str(choices.get("hydra/launcher")),
        "mlflow.source.name": "run.py -m",
        "mlflow.source.type": "LOCAL",
        **process_tag(),
    }
    space = {
        f"search.{key}": str(value)
        for key, value in (config.hydra.sweeper.get("params") or {}).items()
    }
    typed = [override.partition("=") for override in config.hydra.overrides.task]
    space |= {f"search.{key}": value for key, _, value in typed}
    study = kept_study(config)
    tracker = _tracker(config, name, space, tags, f"tags.study = '{name}'" if study else None)
    if isinstance(tracker, MlflowTracker):
        for run in tracker.search("attributes.status = 'RUNNING'"):
            if process_ended(run.data.tags) and run.info.run_id != tracker.run_id:
                tracker.client.set_terminated(run.info.run_id, "KILLED")
        log.info("record: %s", tracker.where())
    onward = (
        f"continue it with the same command and `hydra.sweeper.study_name={name}`"
        if study
        else "begin it again"
    )
    tracker.note(
        f"Running since {time.strftime('%Y-%m-%d %H:%M:%S')}. If its process has ended, {onward}."
    )
    return _Sweep(config, tracker, name, time.time())


def _tracker(
    config: DictConfig, name: str, params: dict[str, str], tags: dict[str, str], reopen: str | None
) -> Any:
    tracking, paths = config.tracking, config.paths
    if tracking.sink == "none":
        return NoTracker()
    return MlflowTracker(
        paths.root, paths.outputs, tracking.uri, tracking.experiment, name, params, tags, reopen
    )


def _number(config: DictConfig) -> int:
    return int(OmegaConf.select(config, f"hydra.job.env_set.{NUMBER}") or config.hydra.job.num)


def _crosses(error: BaseException) -> bool:
    """Whether an error can be handed from a worker to the sweeping process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def _mark_killed_by(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        if _current is not None:
            _current.status = "KILLED"
        if callable(before):
            before(received, frame)
        else:
            sys.exit(128 + received)

    signal.signal(number, handle)

"""Hydra's callback before a run or a sweep: what it writes holds no password, and is its owner's
alone."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperlock.errors import HyperLockError
from hyperlock.experiment.directory import make
from hyperlock.settings.passwords import refuse_composed_passwords

log = logging.getLogger(__name__)


class Private(Callback):
    """`hydra.callbacks`; Hydra drops a callback's errors, so they end the process."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the run's directory is made, which is made here."""
        _prepare(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """The same for a sweep's directory."""
        _prepare(config, "hydra.sweep.dir")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A trial's directory is made by Hydra, within its sweep's."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        directory = Path(config.hydra.runtime.output_dir)
        if Path(config.hydra.sweep.dir).absolute() in directory.parents:
            directory.chmod(0o700)


def _prepare(config: DictConfig, setting: str) -> None:
    try:
        refuse_composed_passwords(config)
        # As Hydra itself does next: a directory's name may be asked of it.
        HydraConfig.instance().set_config(config)
        make(Path(OmegaConf.select(config, setting)), setting)
    except HyperLockError as error:
        log.error("%s", error)
        sys.exit(1)
    except OmegaConfBaseException:
        return  # a name that cannot be had: Hydra says so when it makes the directory

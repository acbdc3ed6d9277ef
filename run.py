"""HyperLock's command: `python run.py` runs one experiment, `python run.py --help` lists the
settings."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hyperlock import process, runner
from hyperlock.errors import HyperLockError
from hyperlock.settings.compose import set_root
from hyperlock.settings.overrides import Overrides
from hyperlock.settings.parse import refuse_gone
from hyperlock.settings.passwords import refuse_passwords
from hyperlock.settings.schema import register

process.leave_early()
set_root()
register()
log = logging.getLogger("hyperlock")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Run the composed experiment and return its objective."""
    from hyperlock.experiment.report import objective
    from hyperlock.experiment.resume import begin, finish

    command = HydraConfig.get()
    directory = Path(command.runtime.output_dir)
    typed = [*command.overrides.hydra, *command.overrides.task]
    try:
        with begin(config, directory, typed, lambda texts: hydra.compose("config", texts)) as it:
            report = runner(it.composed)(it.composed, it.directory, it.overrides, it.start)
            finish(it.directory, report)
            return objective(it.composed, report)
    except HyperLockError as error:
        if command.mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        log.error("%s", error)
        sys.exit(1)


def plain_grid(arguments: list[str]) -> list[str]:
    """What is to be typed beside another sweeper than the default one, which takes no part of the
    default search."""
    keys = Overrides(arguments).keys
    wanted = "hydra/sweeper" in keys and "hparams_search" not in keys
    return ["hparams_search=none"] if wanted else []


if __name__ == "__main__":
    process.end_on_signals()
    try:
        refuse_passwords(sys.argv[1:])  # before Hydra writes the command line to its files
        refuse_gone(sys.argv[1:])
    except HyperLockError as refusal:
        print(f"ERROR {refusal}", file=sys.stderr)
        sys.exit(1)
    sys.argv += plain_grid(sys.argv[1:])
    try:
        main()
        process.finished()
    except (KeyboardInterrupt, process.Terminated) as interruption:
        # The run is closed by now; a sweep is not.
        from hyperlock.sweep import parent

        parent.close("KILLED")
        process.end_interrupted(interruption)

"""HyperLock's command: `python run.py` runs one experiment, `python run.py --help` lists the settings."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hyperlock.config import register
from hyperlock.errors import HyperLockError

os.environ.setdefault("HYPERLOCK_ROOT", str(Path(__file__).resolve().parent))
register()
log = logging.getLogger("hyperlock")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Run the composed experiment and return its objective."""
    from hyperlock.experiment import objective, run

    try:
        return objective(config, run(config))
    except HyperLockError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        log.error("%s", error)
        sys.exit(1)


def _plain_grid(arguments: list[str]) -> list[str]:
    """Another sweeper than the default one takes no part of the default search."""
    named = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    return ["hparams_search=none"] if "hydra/sweeper" in named and "hparams_search" not in named else []


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.argv += _plain_grid(sys.argv[1:])
    try:
        main()
    except KeyboardInterrupt:
        from hyperlock.sweep import close

        close("KILLED")
        # Threads of a running round are not waited for: the run is closed, and nothing else is owed.
        print("interrupted", file=sys.stderr)
        sys.stdout.flush()
        os._exit(130)

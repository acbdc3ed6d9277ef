"""HyperLock's command: `python run.py` runs one experiment, `python run.py --help` lists the
settings."""

from __future__ import annotations

import atexit
import json
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

from hyperlock.errors import HyperLockError
from hyperlock.settings.parse import refuse_passwords, register

_finished = False


@atexit.register  # before any other handler is, so that it runs after all of them
def _leave() -> None:
    """Skip the interpreter's teardown, over a second of freeing TensorFlow's modules, once all else
    is done."""
    if _finished:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


os.environ.setdefault("HYPERLOCK_ROOT", str(Path(__file__).resolve().parent))
register()
log = logging.getLogger("hyperlock")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Run the composed experiment and return its objective."""
    from hyperlock.experiment.resume import FINISHED, resumed
    from hyperlock.experiment.run import objective, run

    directory, start = Path(HydraConfig.get().runtime.output_dir), None
    overrides = list(HydraConfig.get().overrides.task)
    try:
        if config.resume is not None:
            config, directory, start = resumed(config, overrides)
            overrides = start.overrides
        report = run(config, directory, overrides, start)
        Path(directory, FINISHED).write_text(json.dumps(report.final(), indent=2))
        return objective(config, report)
    except HyperLockError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        log.error("%s", error)
        sys.exit(1)


def _plain_grid(arguments: list[str]) -> list[str]:
    """Another sweeper than the default one takes no part of the default search."""
    named = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    return (
        ["hparams_search=none"]
        if "hydra/sweeper" in named and "hparams_search" not in named
        else []
    )


class _Terminated(SystemExit):
    """SIGTERM arrived."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    try:
        refuse_passwords(sys.argv[1:])  # before Hydra writes the command line to its files
    except HyperLockError as error:
        print(f"ERROR {error}", file=sys.stderr)
        sys.exit(1)
    sys.argv += _plain_grid(sys.argv[1:])
    try:
        main()
        _finished = True
    except (KeyboardInterrupt, _Terminated) as interruption:
        # The run is closed by now. Threads that still train, and TensorFlow's own teardown, are not
        # waited for.
        from hyperlock.sweep.parent import close

        close("KILLED")
        print("interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130 if isinstance(interruption, KeyboardInterrupt) else 143)

"""HyperLock: federated learning with homomorphically encrypted updates.

`python run.py` is the command; `run` is the same from a notebook or a script:

    import hyperlock

    report = hyperlock.run("encryption=bfv", "federation.rounds=3")
    report.accuracy
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hyperlock.experiment.report import Report

__all__ = ["run"]


def run(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Report:
    """Run one experiment, with the composition, checks, record and errors of the command.

    The process goes on afterwards, whatever happened: no exit, and no handler of signals or of the
    log is left behind. It may be called again, from any thread and any folder.
    Python's, NumPy's and TensorFlow's own random generators are seeded by it.

    Args:
        overrides: as after `python run.py`: "encryption=bfv", "federation.rounds=3",
            "resume=DIRECTORY".
        config_dir: a folder with options of one's own, as `--config-dir` takes it.

    Returns:
        What the run came to: `accuracy`, `accuracies` by round, `weights` float32[parameters],
        `final()` for all metrics.

    Raises:
        HyperLockError: a setting, the data, a client or a round failed; the text says which and
            what to try.
    """
    # Imported here, so that `import hyperlock` costs nothing and no module of the package is
    # imported while its own package is.
    from hyperlock.experiment.resume import begin, finish
    from hyperlock.settings.compose import compose
    from hyperlock.settings.passwords import refuse_passwords

    refuse_passwords(overrides)
    composed, directory = compose(overrides, config_dir)
    with begin(composed, directory, overrides, lambda texts: compose(texts, config_dir)[0]) as it:
        report = runner(it.composed)(it.composed, it.directory, it.overrides, it.start)
        finish(it.directory, report)
    return report


def __getattr__(name: str) -> str:
    if name == "__version__":
        from hyperlock.version import VERSION

        return VERSION
    raise AttributeError(name)


def runner(composed: DictConfig) -> Callable[..., Report]:
    """What runs an experiment of these settings: with all parties in this process, or across
    organisations."""
    if composed.runtime.get("engine"):
        from hyperlock.sites.coordinator import run as across

        return across
    from hyperlock.experiment.run import run as alone

    return alone

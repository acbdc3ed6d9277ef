"""Composing settings without the command: what Hydra would make of the same overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from hyperlock.errors import HyperLockError
from hyperlock.settings.schema import register

PROJECT = Path(__file__).resolve().parents[2]
_ROOT = "HYPERLOCK_ROOT"  # of the environment: the folder that conf/paths starts from
_composing = Lock()  # Hydra keeps what it is initialised with in one place for all threads


def set_root() -> None:
    """Name the project's folder to conf/paths, unless the environment names another."""
    os.environ.setdefault(_ROOT, str(PROJECT))


def compose(
    overrides: Iterable[str], config_dir: str | os.PathLike[str] | None = None
) -> tuple[DictConfig, Path]:
    """The settings that `python run.py OVERRIDES` would have, and the directory it would write to.

    Args:
        overrides: as on the command line.
        config_dir: a folder with options of one's own, as `--config-dir` takes it.

    Raises:
        HyperLockError: Hydra refuses the overrides, or there is no conf/.
    """
    conf = PROJECT / "conf"
    if not conf.is_dir():
        raise HyperLockError(
            f"there is no {conf}: HyperLock runs from its project's folder\n"
            "  try: pip install --editable FOLDER, with the folder that holds conf/"
        )
    texts = list(overrides)
    if config_dir is not None:
        texts.append(f"hydra.searchpath=[file://{Path(config_dir).resolve()}]")
    set_root()
    register()
    with _composing:
        # Whoever initialised Hydra for something else finds it as it was.
        hydra = GlobalHydra.instance()
        before = hydra.hydra
        hydra.clear()
        try:
            with initialize_config_dir(str(conf), job_name="hyperlock", version_base="1.3"):
                composed = hydra_compose("config", texts, return_hydra_config=True)
        except HydraException as error:
            raise HyperLockError(str(error)) from None
        finally:
            GlobalHydra.instance().hydra = before
    directory = Path(composed.hydra.run.dir)
    with open_dict(composed):
        del composed["hydra"]
    OmegaConf.resolve(composed)
    return composed, directory

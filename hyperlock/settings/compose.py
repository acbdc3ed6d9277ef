"""Composing settings without the command: what Hydra would make of the same overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from hydra import compose as hydra_compose
from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.parse import refuse_gone
from hyperlock.settings.passwords import refuse_composed_passwords
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
        HyperLockError: Hydra refuses the overrides, a folder is not there, or an address has a
            password.
    """
    conf = PROJECT / "conf"
    if not conf.is_dir():
        raise HyperLockError(
            f"there is no {conf}: HyperLock runs from its project's folder\n"
            "  try: pip install --editable FOLDER, with the folder that holds conf/"
        )
    texts = list(overrides)
    refuse_gone(texts)
    if config_dir is not None:
        texts.append(_search_path(config_dir))
    set_root()
    register()
    try:
        with _composing, _hydra_for_us(conf):
            composed = hydra_compose("config", texts, return_hydra_config=True)
        refuse_composed_passwords(composed)
        directory = Path(composed.hydra.run.dir)
        with open_dict(composed):
            del composed["hydra"]
        OmegaConf.resolve(composed)
    except (HydraException, OmegaConfBaseException, OSError) as error:
        raise HyperLockError(f"the settings cannot be composed: {error}") from None
    return composed, directory


def _search_path(config_dir: str | os.PathLike[str]) -> str:
    """The override that has Hydra look for options in a folder too."""
    folder = Path(config_dir)
    if not folder.is_dir():
        raise ConfigError("config_dir", folder, "there is no such folder")
    quoted = str(folder.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.searchpath=['file://{quoted}']"


@contextmanager
def _hydra_for_us(conf: Path) -> Iterator[None]:
    """Hydra initialised with our folder; whoever initialised it for something else finds it as it
    was."""
    base = version.getbase()
    hydra = GlobalHydra.instance()
    before = hydra.hydra
    hydra.clear()
    try:
        with initialize_config_dir(str(conf), job_name="hyperlock", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before
        version.VersionBase.instance().version_base = base

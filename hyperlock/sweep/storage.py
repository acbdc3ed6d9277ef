"""Where studies are kept: Optuna's database storage, with its schema's revision stamped."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from hyperlock.addresses import NOT_SHOWN, carries_secret
from hyperlock.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

_SETTING = "hydra.sweeper.storage.url"
_LOCK_SECONDS = 60  # SQLite answers "database is locked" after 5, which parallel trials can take


@functools.cache
def storage(url: str) -> RDBStorage:
    """Optuna's database storage, one for each address and process:
    `hydra.sweeper.storage._target_`.

    Optuna 2.10 does not commit its schema's revision under SQLAlchemy 2, so that no study could
    ever be reopened; here the revision is stamped in a transaction. A SQLite file's folder is made.

    Raises:
        ConfigError: the address cannot be read, or the database cannot be reached.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from optuna.storages import RDBStorage
    from optuna.storages._rdb.storage import _VersionManager
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    # What cannot be read is not shown: nobody knows where in it a password stands.
    try:
        address = make_url(url)
    except ArgumentError:
        raise ConfigError(
            _SETTING,
            NOT_SHOWN,
            "is no database address",
            allowed="sqlite:////PATH/FILE.db, or postgresql://HOST/DATABASE",
        ) from None

    # A server may have dropped the connection since the last trial; a file may be locked.
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if address.get_backend_name() == "sqlite":
        engine = {"connect_args": {"timeout": _LOCK_SECONDS}}
        if address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)

    _VersionManager._set_alembic_revision = _stamp
    try:
        return RDBStorage(url, engine_kwargs=engine)
    except (SQLAlchemyError, ImportError) as error:
        # A driver's text may have the user in it, or the query.
        secret = carries_secret(url, _SETTING)
        why = type(error).__name__ if secret else str(error).splitlines()[0]
        raise ConfigError(_SETTING, url, f"cannot be opened ({why})") from None


def study_name(config: DictConfig) -> str | None:
    """The name of the study, where the sweep has one that outlives it."""
    sweeper = config.hydra.sweeper
    return sweeper.study_name if sweeper.get("storage") and sweeper.get("study_name") else None


def study_storage(config: DictConfig) -> RDBStorage:
    """The storage of a sweep that has a `study_name`."""
    node = config.hydra.sweeper.storage
    return storage(node if isinstance(node, str) else node.url)


def load_study(config: DictConfig) -> Study | None:
    """The sweep's study as it stands; None for a plain grid, and for a sweep that ended before its
    study began."""
    name = study_name(config)
    if name is None:
        return None
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=study_storage(config))
    except KeyError:
        return None


def _stamp(manager: Any, revision: str) -> None:
    """Takes the place of `_VersionManager._set_alembic_revision`."""
    from alembic.migration import MigrationContext

    with manager.engine.begin() as connection:
        MigrationContext.configure(connection).stamp(manager._create_alembic_script(), revision)

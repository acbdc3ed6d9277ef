"""Passwords: refused in what is typed and in what was composed, before Hydra writes either to its
files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hyperlock.addresses import NOT_SHOWN, carries_secret
from hyperlock.errors import ConfigError
from hyperlock.settings.overrides import Override

_ALLOWED = "an address without user, password and query; %40 for an @ in its path"
_ENVIRONMENT = "MLFLOW_TRACKING_URI and HYPERLOCK_STUDIES in the environment, or ~/.pgpass"


def refuse_passwords(overrides: Iterable[str]) -> None:
    """Refuse addresses with passwords in what was typed.

    Raises:
        ConfigError: an override has an address with a user, a password or a query.
    """
    for override in map(Override.read, overrides):
        if carries_secret(override.text) or carries_secret(override.value, override.key):
            named = re.fullmatch(r"[\w./-]+", override.key)  # else it may be the address itself
            raise ConfigError(
                override.key if named else "an override",
                NOT_SHOWN,
                "a password on the command line ends up in logs and files; a user or a query of an "
                "address may be one",
                allowed=_ALLOWED,
                hint=_ENVIRONMENT,
            )


def refuse_composed_passwords(config: DictConfig) -> None:
    """Refuse addresses with passwords in what Hydra composed, wherever it has them from.

    An address, or a part of one, that a file takes from the environment, `${oc.env:NAME}`, is
    accepted: what is written then is that name.

    Raises:
        ConfigError: a setting has an address with a user, a password or a query.
    """
    for key, value in _texts(OmegaConf.to_container(config, resolve=False), ""):
        if carries_secret(value, key):
            raise ConfigError(
                key,
                NOT_SHOWN,
                "a password in a setting ends up in logs and files; a user or a query of an "
                "address may be one",
                allowed=_ALLOWED,
                hint=f"{_ENVIRONMENT}; in a file of yours, ${{oc.env:NAME}} for the whole address",
            )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text in a tree, with the name of its setting; that of a list's item is the list's."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value

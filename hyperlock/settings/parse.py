"""From what Hydra composed to settings that a run can use: typed, checked, and as text.

Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hyperlock.addresses import carries_secret
from hyperlock.errors import ConfigError, show
from hyperlock.settings.checks import check
from hyperlock.settings.construct import OURS, TARGET
from hyperlock.settings.overrides import Overrides
from hyperlock.settings.schema import Config

STORE = "tracking.uri"  # may hold a password, so that neither record nor checkpoint has it
NOT_RECORDED = "(not recorded)"  # in its place, and in that of any other address with a password


@dataclass(frozen=True)
class Settings:
    """What a run was asked for.

    Attributes:
        config: typed and checked.
        flat: by name as text, for MLflow's parameters and checkpoints; without passwords.
        yaml: the same as YAML.
        overrides: what was typed, for whoever resumes the run; without passwords.
    """

    config: Config
    flat: dict[str, str]
    yaml: str
    overrides: list[str]


# Settings that were, and why they are not any more.
_GONE = {
    "keys.path": (
        "a key lives for one attempt of one round and is never on a disk, so that no two sums are "
        "decrypted under one key"
    )
}


def read(composed: DictConfig, overrides: Iterable[str] = ()) -> Settings:
    """Settings out of what Hydra composed and what was typed.

    Raises:
        ConfigError: a setting is unknown, missing, or cannot work.
    """
    config = parse(composed)
    public = composed.copy()
    if public.tracking.get("uri"):
        public.tracking.uri = NOT_RECORDED
    yaml = OmegaConf.to_yaml(OmegaConf.create(_public(public)))
    return Settings(config, flatten(public), yaml, Overrides(overrides).without(STORE).texts)


def parse(composed: DictConfig) -> Config:
    """Typed and checked settings out of what Hydra composed.

    Raises:
        ConfigError: a setting is unknown, missing, or cannot work.
    """
    _refuse_unknown_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "config")
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(key, "???", "a value must be given", hint=f"{key}=...") from None
        raise ConfigError(key, "?", str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    check(config)
    return config


def _refuse_unknown_keys(node: DictConfig, path: str = "") -> None:
    """Hydra lets `+group.key=value` add keys to a schema; they would be ignored, so no."""
    known = _known_keys(node)
    for key in map(str, node):
        name = f"{path}{key}"
        if known is not None and key not in known:
            _refuse_gone(name, OmegaConf.select(node, key, throw_on_missing=False))
            raise ConfigError(
                name,
                OmegaConf.select(node, key, throw_on_missing=False),
                "there is no such setting",
                allowed=", ".join(f"{path}{k}" for k in known if not k.startswith("_")),
            )
        child = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _refuse_unknown_keys(child, f"{name}.")


def _known_keys(node: DictConfig) -> list[str] | None:
    """The fields of a node's schema; None where it has none and any key is welcome."""
    schema = OmegaConf.get_type(node)
    return [f.name for f in fields(schema)] if is_dataclass(schema) else None


def refuse_gone(overrides: Iterable[str]) -> None:
    """ConfigError for an override of a setting that was, which Hydra would only call unknown."""
    for override in Overrides(overrides):
        _refuse_gone(override.key, override.value)


def _refuse_gone(name: str, value: object) -> None:
    if name in _GONE:
        problem = f"there is no such setting any more: {_GONE[name]}"
        raise ConfigError(name, value, problem, hint=f"the same without {name}")


def flatten(composed: DictConfig) -> dict[str, str]:
    """Settings as `group.key` to text, for MLflow's parameters; lists as 60-40-40-60.

    A `_target_` is named where it is a user's own: else the option's name says it. An address with
    a password, which a setting may have from the environment, is left out.
    """
    flat: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                own = key == TARGET and not str(item).startswith(OURS)
                if own or not str(key).startswith("_"):
                    walk(item, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list):
            flat[name] = "-".join(map(str, value))
        else:
            flat[name] = show(value)

    walk(_public(composed), "")
    return flat


def _public(composed: DictConfig) -> dict[str, Any]:
    """Resolved settings, without addresses that have a password from the environment."""

    def public(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: public(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [public(item, key) for item in value]
        secret = isinstance(value, str) and carries_secret(value, key)
        return NOT_RECORDED if secret else value

    settings: dict[str, Any] = public(OmegaConf.to_container(composed, resolve=True), "")
    return settings

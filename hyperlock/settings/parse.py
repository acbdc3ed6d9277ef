"""The schema of every setting, and the checks that cross groups.

Hydra composes YAML on top of these dataclasses, so that a wrong type or an unknown key is refused
while composing. `parse` turns the result into typed objects and checks what types cannot say; it
imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hyperlock.errors import ConfigError, show
from hyperlock.settings.schema import (
    CnnModel,
    DigitsDataset,
    DirichletSplit,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedSgd,
    FedYogi,
    IidSplit,
    LogisticModel,
    MlpModel,
    MnistDataset,
    NpzDataset,
    QuantitySplit,
    ShardsSplit,
    TwoNnModel,
)

PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")  # in the address of a store


@dataclass
class Encryption:
    """What all schemes share."""

    scheme: str = MISSING
    value_bits: int = 8
    max_clients: int | None = None
    initial_range: float = 0.5
    range_factor: float = 4.0


@dataclass
class CkksEncryption(Encryption):
    """encryption=ckks."""

    scheme: str = "ckks"
    poly_modulus: int = 8192
    coeff_mod_bits: Any = "auto"
    scale_bits: Any = "auto"
    security: int = 128


@dataclass
class BfvEncryption(Encryption):
    """encryption=bfv."""

    scheme: str = "bfv"
    poly_modulus: Any = "auto"
    coeff_mod_bits: Any = "auto"
    fields: Any = "auto"
    security: int = 128


@dataclass
class NoEncryption(Encryption):
    """encryption=none."""

    scheme: str = "none"


@dataclass
class Keys:
    """keys=authority and keys=server."""

    custody: str = MISSING
    min_clients: int = 3
    path: str | None = None


@dataclass
class ClientKeys(Keys):
    """keys=clients."""

    custody: str = "clients"
    seeded: bool = True


@dataclass
class Runtime:
    """runtime=local."""

    workers: int = 1


@dataclass
class MlflowTracking:
    """tracking=mlflow."""

    sink: str = "mlflow"
    uri: str | None = None
    experiment: str = "hyperlock"
    run_name: str | None = None
    log_model: bool = True


@dataclass
class NoTracking:
    """tracking=none."""

    sink: str = "none"


@dataclass
class Paths:
    """paths."""

    root: str = MISSING
    data: str = MISSING
    outputs: str = MISSING


@dataclass
class Config:
    """A whole run."""

    task_name: str = "train"
    tags: list[str] = field(default_factory=list)
    seed: int = 0
    objective: Any = "accuracy"
    checkpoint_every: int = 1
    resume: str | None = None
    dataset: Any = MISSING
    split: Any = MISSING
    model: Any = MISSING
    federation: Any = MISSING
    encryption: Any = MISSING
    keys: Any = MISSING
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Any = MISSING
    paths: Paths = field(default_factory=Paths)


SCHEMAS: dict[str, dict[str, Any]] = {
    "dataset": {"mnist": MnistDataset, "digits": DigitsDataset, "npz": NpzDataset},
    "split": {
        "iid": IidSplit,
        "dirichlet": DirichletSplit,
        "shards": ShardsSplit,
        "quantity": QuantitySplit,
    },
    "model": {"mlp": MlpModel, "logistic": LogisticModel, "2nn": TwoNnModel, "cnn": CnnModel},
    "federation": {
        "fedavg": FedAvg,
        "fedsgd": FedSgd,
        "fedprox": FedProx,
        "fedavgm": FedAvgM,
        "fedadagrad": FedAdagrad,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
    },
    "encryption": {"ckks": CkksEncryption, "bfv": BfvEncryption, "none": NoEncryption},
    "keys": {"authority": Keys, "clients": ClientKeys, "server": Keys},
    "tracking": {"mlflow": MlflowTracking, "none": NoTracking},
}


def register() -> None:
    """Make the schemas known to Hydra: `schema` for the top level, `schema/GROUP: OPTION` for the
    groups."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in SCHEMAS.items():
        for option, node in options.items():
            store.store(group=f"schema/{group}", name=option, node=node)


def parse(composed: DictConfig) -> Config:
    """Typed and checked settings out of what Hydra composed.

    Raises:
        ConfigError: a setting is unknown, missing, or cannot work.
    """
    from hyperlock.settings.checks import check

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


def _refuse_unknown_keys(node: Any, path: str = "") -> None:
    """Hydra lets `+group.key=value` add keys to a schema; such a key would be ignored, so it is
    refused."""
    if (
        isinstance(node, ListConfig)
        or not isinstance(node, DictConfig)
        or node._is_missing()
        or node._is_none()
    ):
        return
    schema = OmegaConf.get_type(node)
    known = [f.name for f in fields(schema)] if schema is not None and schema is not dict else None
    for key in map(str, node):
        name = f"{path}{key}"
        if known is not None and key not in known:
            value = OmegaConf.select(node, key, throw_on_missing=False)
            raise ConfigError(
                name,
                value,
                "there is no such setting",
                allowed=", ".join(f"{path}{k}" for k in known if not k.startswith("_")),
            )
        if not OmegaConf.is_missing(node, key):
            _refuse_unknown_keys(node._get_node(key), f"{name}.")


def target(node: Any) -> str:
    """What `_target_` of a group names, be it one of the schemas or a user's own keys."""
    return str(_keys(node)["_target_"])


def construct(group: str, node: Any, skip: tuple[str, ...] = (), **given: Any) -> Any:
    """Call what `_target_` of a group names, with the group's other keys but those in `skip`, and
    what is given.

    Like `hydra.utils.instantiate`, but an error of ours comes out as it is instead of wrapped.
    """
    options = {
        key: value for key, value in _keys(node).items() if key not in skip and key != "_target_"
    }
    module, _, name = target(node).rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except Exception as error:  # whatever importing a user's module raises
        raise ConfigError(
            f"{group}._target_",
            target(node),
            f"cannot be imported ({type(error).__name__}: {error})",
            allowed="package.module.function",
            hint="PYTHONPATH=/folder/of/the/package python run.py ..."
            if isinstance(error, ImportError)
            else "",
        ) from None
    return function(**options, **given)


def _keys(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else vars(node)


def max_clients(config: Config) -> int:
    """Updates that a sum must hold: as set, or the next power of two above the cohort."""
    if config.encryption.max_clients is not None:
        return config.encryption.max_clients
    return 1 << (config.federation.cohort_size - 1).bit_length()


def refuse_passwords(overrides: Iterable[str]) -> None:
    """ConfigError for an override with a password in it, which Hydra writes to its files."""
    for override in overrides:
        if PASSWORD.search(override):
            raise ConfigError(
                override.partition("=")[0],
                "(not shown)",
                "a password on the command line ends up in logs and files",
                hint="MLFLOW_TRACKING_URI and HYPERLOCK_STUDIES in the environment, or ~/.pgpass",
            )


def flatten(composed: DictConfig) -> dict[str, str]:
    """Settings as `group.key` to text, for MLflow's parameters; lists as 60-40-40-60."""
    flat: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if not str(key).startswith("_"):
                    walk(item, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list):
            flat[name] = "-".join(map(str, value))
        else:
            flat[name] = show(value)

    walk(OmegaConf.to_container(composed, resolve=True), "")
    return flat

"""The schema of every setting, and the checks that cross groups.

Hydra composes YAML on top of these dataclasses, so that a wrong type or an unknown key is refused while composing.
`parse` turns the result into typed objects and checks what types cannot say; it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperlock.encryption.grid import MAX_VALUE_BITS, MIN_VALUE_BITS
from hyperlock.errors import ConfigError, show


@dataclass
class MnistDataset:
    """dataset=mnist."""

    _target_: str = "hyperlock.data.datasets.mnist"
    path: str = MISSING
    train_samples: int | None = None
    test_samples: int | None = None


@dataclass
class DigitsDataset:
    """dataset=digits."""

    _target_: str = "hyperlock.data.datasets.digits"
    test_fraction: float = 0.2
    seed: int = MISSING
    train_samples: int | None = None
    test_samples: int | None = None


@dataclass
class NpzDataset:
    """dataset=npz."""

    _target_: str = "hyperlock.data.datasets.npz"
    path: str = MISSING
    test_fraction: float = 0.2
    seed: int = MISSING
    train_samples: int | None = None
    test_samples: int | None = None


@dataclass
class IidSplit:
    """split=iid."""

    _target_: str = "hyperlock.data.split.iid"


@dataclass
class DirichletSplit:
    """split=dirichlet."""

    _target_: str = "hyperlock.data.split.dirichlet"
    alpha: float = 0.5


@dataclass
class MlpModel:
    """model=mlp."""

    _target_: str = "hyperlock.learning.models.mlp"
    units: int = 128
    layers: int = 1


@dataclass
class LogisticModel:
    """model=logistic."""

    _target_: str = "hyperlock.learning.models.logistic"


@dataclass
class Federation:
    """What all algorithms share."""

    algorithm: str = MISSING
    rounds: int = 10
    clients: int = 10
    cohort: int | None = None
    fraction: float | None = None
    learning_rate: float = MISSING
    round_attempts: int = 1

    @property
    def cohort_size(self) -> int:
        """Clients that take part in a round."""
        if self.cohort is not None:
            return self.cohort
        return self.clients if self.fraction is None else max(1, round(self.fraction * self.clients))


@dataclass
class FedAvg(Federation):
    """federation=fedavg."""

    algorithm: str = "fedavg"
    local_epochs: int = 1
    batch_size: int = 16
    server_learning_rate: float = 1.0


@dataclass
class FedSgd(Federation):
    """federation=fedsgd."""

    algorithm: str = "fedsgd"


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
class NoEncryption(Encryption):
    """encryption=none."""

    scheme: str = "none"


@dataclass
class Keys:
    """keys=authority, clients or server."""

    custody: str = MISSING
    min_clients: int = 3


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
    dataset: Any = MISSING
    split: Any = MISSING
    model: Any = MISSING
    federation: Any = MISSING
    encryption: Any = MISSING
    keys: Keys = field(default_factory=Keys)
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Any = MISSING
    paths: Paths = field(default_factory=Paths)


SCHEMAS: dict[str, dict[str, Any]] = {
    "dataset": {"mnist": MnistDataset, "digits": DigitsDataset, "npz": NpzDataset},
    "split": {"iid": IidSplit, "dirichlet": DirichletSplit},
    "model": {"mlp": MlpModel, "logistic": LogisticModel},
    "federation": {"fedavg": FedAvg, "fedsgd": FedSgd},
    "encryption": {"ckks": CkksEncryption, "none": NoEncryption},
    "tracking": {"mlflow": MlflowTracking, "none": NoTracking},
}


def register() -> None:
    """Make the schemas known to Hydra: `schema` for the top level, `schema/GROUP: OPTION` for the groups."""
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
    _refuse_unknown_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(str(key), "???", str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    _check_learning(config)
    _check_federation(config)
    _check_encryption(config)
    return config


def _refuse_unknown_keys(node: Any, path: str = "") -> None:
    """Hydra lets `+group.key=value` add keys to a schema; such a key would be ignored, so it is refused."""
    if isinstance(node, ListConfig) or not isinstance(node, DictConfig) or node._is_missing() or node._is_none():
        return
    schema = OmegaConf.get_type(node)
    known = [f.name for f in fields(schema)] if schema is not None and schema is not dict else None
    for key in node:
        name = f"{path}{key}"
        if known is not None and key not in known:
            value = OmegaConf.select(node, str(key), throw_on_missing=False)
            raise ConfigError(name, value, "there is no such setting", allowed=", ".join(f"{path}{k}" for k in known if not k.startswith("_")))
        if not OmegaConf.is_missing(node, key):
            _refuse_unknown_keys(node._get_node(key), f"{name}.")


def _check(ok: bool, setting: str, value: object, problem: str, *, allowed: str = "", hint: str = "") -> None:
    if not ok:
        raise ConfigError(setting, value, problem, allowed=allowed, hint=hint)


def _at_least(minimum: float, setting: str, value: float | None, hint: str = "") -> None:
    if value is not None:
        _check(minimum <= value < float("inf"), setting, value, "is too small" if value < minimum else "is not finite",
               allowed=f"at least {minimum}", hint=hint)  # fmt: skip


def _positive(setting: str, value: float) -> None:
    _check(0 < value < float("inf"), setting, value, "must be a positive number", allowed="above 0, finite")


def _check_learning(config: Config) -> None:
    _check(0 <= config.seed < 2**32, "seed", config.seed, "is out of range", allowed="0 to 4294967295")
    for setting in ("units", "layers"):
        if hasattr(config.model, setting):
            _at_least(1, f"model.{setting}", getattr(config.model, setting), f"model.{setting}=128")
    _at_least(1, "runtime.workers", config.runtime.workers, "runtime.workers=1")


def _check_federation(config: Config) -> None:
    federation, keys = config.federation, config.keys
    _at_least(1, "federation.rounds", federation.rounds, "federation.rounds=10")
    _at_least(1, "federation.clients", federation.clients, "federation.clients=10")
    _at_least(1, "federation.round_attempts", federation.round_attempts)
    for name in ("local_epochs", "batch_size"):
        _at_least(1, f"federation.{name}", getattr(federation, name, None))
    _positive("federation.learning_rate", federation.learning_rate)
    _positive("federation.server_learning_rate", getattr(federation, "server_learning_rate", 1.0))
    if federation.cohort is not None and federation.fraction is not None:
        raise ConfigError("federation.fraction", federation.fraction, f"federation.cohort={federation.cohort} is set too", hint="one of the two")
    if federation.fraction is not None:
        _check(0 < federation.fraction <= 1, "federation.fraction", federation.fraction, "is no share of the clients",
               allowed="above 0, at most 1", hint="federation.fraction=0.1")  # fmt: skip
    if federation.cohort is not None:
        _check(1 <= federation.cohort <= federation.clients, "federation.cohort", federation.cohort,
               f"a cohort is drawn from federation.clients={federation.clients}",
               allowed=f"1 to {federation.clients}", hint=f"federation.clients={federation.cohort}")  # fmt: skip
    cohort = federation.cohort_size
    _check(keys.min_clients >= 2, "keys.min_clients", keys.min_clients,
           "the sum of one update is that update", allowed="at least 2", hint="keys.min_clients=3")  # fmt: skip
    what = "federation.fraction" if federation.fraction else "federation.cohort" if federation.cohort else "federation.clients"
    _check(keys.min_clients <= cohort, "keys.min_clients", keys.min_clients,
           f"a round has only {cohort} clients ({what}), so that nothing would ever be released",
           allowed=f"2 to {cohort}" if cohort >= 2 else f"a cohort of at least 2, by {what}",
           hint=f"keys.min_clients={cohort}" if cohort >= 2 else f"{what}=3")  # fmt: skip


def _check_encryption(config: Config) -> None:
    encryption, cohort = config.encryption, config.federation.cohort_size
    _check(MIN_VALUE_BITS <= encryption.value_bits <= MAX_VALUE_BITS, "encryption.value_bits", encryption.value_bits,
           "is outside what the grid holds", allowed=f"{MIN_VALUE_BITS} to {MAX_VALUE_BITS}", hint="encryption.value_bits=8")  # fmt: skip
    _positive("encryption.initial_range", encryption.initial_range)
    _check(1 < encryption.range_factor < float("inf"), "encryption.range_factor", encryption.range_factor,
           "updates as large as the mean would already saturate", allowed="above 1", hint="encryption.range_factor=4")  # fmt: skip
    if encryption.max_clients is not None:
        _check(cohort <= encryption.max_clients <= 2**20, "encryption.max_clients", encryption.max_clients,
               f"a cohort of {cohort} updates must fit into a sum", allowed=f"{cohort} to {2**20}",
               hint="encryption.max_clients=null")  # fmt: skip


def max_clients(config: Config) -> int:
    """Updates that a sum must hold: as set, or the next power of two above the cohort."""
    if config.encryption.max_clients is not None:
        return config.encryption.max_clients
    return 1 << (config.federation.cohort_size - 1).bit_length()


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



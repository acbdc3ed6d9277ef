"""The schema of every setting, in the order of conf/config.yaml.

Hydra composes YAML on top of these dataclasses, so that a wrong type or an unknown key is refused
while composing. The bounds of a single number stand with its field; `checks.py` walks them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from hyperlock.errors import ConfigError, show
from hyperlock.settings.bounds import Bounds, at_least, bounded, portion, positive, share

SAMPLING = ("balanced", "poisson", "all")  # of the clients of a round, under privacy
_COHORT_TAIL = 6.0  # standard deviations above the mean of a cohort drawn by chance
MIN_VALUE_BITS = 4
MAX_VALUE_BITS = 24
# The fewest with which no job of `python -m benchmarks precision` lost more than its limit.
AUTO_VALUE_BITS = 4
EVALUATION = ("coordinator", "sites", "both")  # whose test samples, across sites
MAX_CLIENTS = 2**20  # updates in a sum: the bounds of encryption/ are checked up to here


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
class SitesDataset:
    """dataset=sites."""

    _target_: str = "hyperlock.data.datasets.sites"
    shape: list[int] = MISSING
    dtype: str = MISSING
    classes: int = bounded(MISSING, at_least(2, "10"))


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
class ShardsSplit:
    """split=shards."""

    _target_: str = "hyperlock.data.split.shards"
    shards_per_client: int = 2


@dataclass
class QuantitySplit:
    """split=quantity."""

    _target_: str = "hyperlock.data.split.quantity"
    alpha: float = 0.5


@dataclass
class SitesSplit:
    """split=sites: each site has its own samples."""


@dataclass
class MlpModel:
    """model=mlp."""

    _target_: str = "hyperlock.learning.models.mlp"
    units: int = bounded(128, at_least(1, "128"))
    layers: int = bounded(1, at_least(1, "1"))


@dataclass
class LogisticModel:
    """model=logistic."""

    _target_: str = "hyperlock.learning.models.logistic"


@dataclass
class TwoNnModel:
    """model=2nn."""

    _target_: str = "hyperlock.learning.models.two_nn"


@dataclass
class CnnModel:
    """model=cnn."""

    _target_: str = "hyperlock.learning.models.cnn"


@dataclass
class Federation:
    """What the round loop reads, whatever the algorithm."""

    algorithm: str = MISSING
    rounds: int = bounded(10, at_least(1, "10"))
    clients: int = bounded(10, at_least(1, "10"))
    cohort: int | None = None
    fraction: float | None = bounded(
        None, portion("is no share of the clients", "above 0, at most 1", "0.1")
    )
    dropout: float = bounded(0.0, share("0.1"))
    round_attempts: int = bounded(1, at_least(1, "1"))
    evaluate_every: int = bounded(1, at_least(1, "1"))
    target_accuracy: float | None = bounded(
        None, portion("is no accuracy", "above 0, at most 1; null for none")
    )

    @property
    def cohort_size(self) -> int:
        """Clients that are asked in a round."""
        if self.cohort is not None:
            return self.cohort
        if self.fraction is None:
            return self.clients
        return max(1, round(self.fraction * self.clients))

    def for_the_algorithm(self) -> dict[str, Any]:
        """What the function that `_target_` names is called with: all that the loop does not read.

        Options of a user's own algorithm go by their own names.

        Raises:
            ConfigError: an option has the name of a setting.
        """
        others = {"_target_", "options", *(field.name for field in fields(Federation))}
        keys = {key: value for key, value in vars(self).items() if key not in others}
        options = getattr(self, "options", {})
        for name in sorted(options.keys() & keys.keys()):
            raise ConfigError(
                f"federation.options.{name}",
                options[name],
                "is a setting of its own",
                hint=f"federation.{name}={show(options[name])}",
            )
        return {**keys, **options}


@dataclass
class Algorithm(Federation):
    """What every algorithm is given beside what is its own."""

    learning_rate: float = bounded(MISSING, positive())
    learning_rate_decay: float = bounded(
        1.0, portion("is no decay", "above 0, at most 1; 1 for none")
    )


@dataclass
class FedSgd(Algorithm):
    """federation=fedsgd."""

    _target_: str = "hyperlock.learning.algorithms.fedsgd"
    algorithm: str = "fedsgd"


@dataclass
class LocalTraining(Algorithm):
    """What algorithms share whose clients train for themselves."""

    local_epochs: int | None = bounded(1, at_least(1))
    local_steps: int | None = bounded(None, at_least(1))
    batch_size: int = bounded(16, at_least(1, "16"))
    server_learning_rate: float = bounded(1.0, positive())


@dataclass
class FedAvg(LocalTraining):
    """federation=fedavg."""

    _target_: str = "hyperlock.learning.algorithms.fedavg"
    algorithm: str = "fedavg"


@dataclass
class FedProx(LocalTraining):
    """federation=fedprox."""

    _target_: str = "hyperlock.learning.algorithms.fedprox"
    algorithm: str = "fedprox"
    mu: float = bounded(0.01, at_least(0, "0.01"))


@dataclass
class FedAvgM(LocalTraining):
    """federation=fedavgm."""

    _target_: str = "hyperlock.learning.algorithms.fedavgm"
    algorithm: str = "fedavgm"
    server_momentum: float = bounded(0.9, share("0.9"))


@dataclass
class AdaptiveTraining(LocalTraining):
    """What FedAdagrad, FedAdam and FedYogi share."""

    server_learning_rate: float = bounded(0.03, positive())
    beta1: float = bounded(0.9, share("0.9"))
    tau: float = bounded(0.001, positive())


@dataclass
class FedAdagrad(AdaptiveTraining):
    """federation=fedadagrad."""

    _target_: str = "hyperlock.learning.algorithms.fedadagrad"
    algorithm: str = "fedadagrad"
    beta1: float = bounded(0.0, share("0.9"))


@dataclass
class FedAdam(AdaptiveTraining):
    """federation=fedadam."""

    _target_: str = "hyperlock.learning.algorithms.fedadam"
    algorithm: str = "fedadam"
    beta2: float = bounded(0.99, share("0.99"))


@dataclass
class FedYogi(AdaptiveTraining):
    """federation=fedyogi."""

    _target_: str = "hyperlock.learning.algorithms.fedyogi"
    algorithm: str = "fedyogi"
    beta2: float = bounded(0.99, share("0.99"))


@dataclass
class OwnAlgorithm(Algorithm):
    """federation=own: a user's function, called with these and what is in `options`."""

    _target_: str = MISSING
    algorithm: str = "own"
    batch_size: int = bounded(16, at_least(1, "16"))
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Encryption:
    """What all schemes share; the ranges are the grid's, and the model's to follow."""

    scheme: str = MISSING
    value_bits: Any = bounded(  # noqa: RUF009
        "auto",
        Bounds(
            lambda value: (
                value == "auto"
                or (type(value) is int and MIN_VALUE_BITS <= value <= MAX_VALUE_BITS)
            ),
            f"auto, or {MIN_VALUE_BITS} to {MAX_VALUE_BITS}",
            "is outside what the grid holds",
            "auto",
        ),
    )
    max_clients: int | None = None
    initial_range: float = bounded(
        0.5,
        Bounds(
            lambda value: 1e-30 <= value <= 1e30,
            "1e-30 to 1e30",
            "is no range that float32 holds",
            "0.5",
        ),
    )
    range_factor: float = bounded(
        4.0,
        Bounds(
            lambda value: 1 < value < float("inf"),
            "above 1",
            "updates as large as the mean would already saturate",
            "4",
        ),
    )

    def for_the_scheme(self) -> dict[str, Any]:
        """What the function that `_target_` names is called with, beside what the run gives it."""
        others = {
            "_target_",
            "scheme",
            "value_bits",
            "max_clients",
            "initial_range",
            "range_factor",
        }
        return {key: value for key, value in vars(self).items() if key not in others}


@dataclass
class CkksEncryption(Encryption):
    """encryption=ckks."""

    _target_: str = "hyperlock.encryption.ckks.ckks"
    scheme: str = "ckks"
    poly_modulus: Any = "auto"
    coeff_mod_bits: Any = "auto"
    scale_bits: Any = "auto"
    security: int = 128


@dataclass
class BfvEncryption(Encryption):
    """encryption=bfv."""

    _target_: str = "hyperlock.encryption.bfv.bfv"
    scheme: str = "bfv"
    poly_modulus: Any = "auto"
    coeff_mod_bits: Any = "auto"
    fields: Any = "auto"
    security: int = 128


@dataclass
class NoEncryption(Encryption):
    """encryption=none."""

    _target_: str = "hyperlock.encryption.plain.plain"
    scheme: str = "none"


@dataclass
class Keys:
    """keys=authority and keys=server."""

    custody: str = MISSING
    min_clients: int = 3
    colluders: int = bounded(1, at_least(0, "1"))


@dataclass
class ClientKeys(Keys):
    """keys=clients."""

    custody: str = "clients"
    seeded: bool = True


@dataclass
class Trust:
    """trust=curious and trust=malicious."""

    level: str = MISSING

    @property
    def malicious(self) -> bool:
        """Whether the server may do anything."""
        return self.level == "malicious"


_DELTA = Bounds(lambda value: 0 < value < 1, "above 0, below 1")


@dataclass
class NoPrivacy:
    """privacy=none."""

    unit: str = "none"


@dataclass
class Privacy:
    """What both units share."""

    unit: str = MISSING
    epsilon: float | None = bounded(MISSING, positive())
    noise_multiplier: float | None = bounded(None, positive())
    delta: float = bounded(MISSING, _DELTA)
    clip: float = bounded(MISSING, positive())
    sampling: str = MISSING


@dataclass
class ClientPrivacy(Privacy):
    """privacy=client."""

    unit: str = "client"
    epsilon: float | None = bounded(8.0, positive())
    delta: float = bounded(1e-5, _DELTA)
    clip: float = bounded(1.0, positive())
    sampling: str = "balanced"


@dataclass
class SamplePrivacy(Privacy):
    """privacy=sample."""

    unit: str = "sample"
    epsilon: float | None = bounded(1.0, positive())
    delta: float = bounded(1e-6, _DELTA)
    clip: float = bounded(1.0, positive())
    sampling: str = "all"
    record_rate: float = bounded(0.05, portion("is no chance", "above 0, at most 1", "0.05"))
    micro_batch: int = bounded(64, at_least(1, "64"))


@dataclass
class LocalRuntime:
    """runtime=local."""

    _target_: str = "hyperlock.runtime.local.LocalRuntime"
    workers: int = bounded(1, at_least(1, "1"))


@dataclass
class FlowerRuntime:
    """runtime=flower."""

    engine: str = "flower"
    folder: str = MISSING
    weight_unit: float = bounded(MISSING, positive())
    evaluation: str = "coordinator"
    timeout: float = bounded(600.0, positive())
    patience: float = bounded(600.0, positive())


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
    """A whole run: what every group was chosen to be, and what belongs to none."""

    task_name: str = "train"
    tags: list[str] = field(default_factory=list)
    seed: int = bounded(0, Bounds(lambda value: 0 <= value < 2**32, "0 to 4294967295"))
    objective: Any = "accuracy"
    checkpoint_every: int = bounded(1, at_least(0, "1"))
    resume: str | None = None
    dataset: Any = MISSING
    split: Any = MISSING
    model: Any = MISSING
    federation: Any = MISSING
    encryption: Any = MISSING
    keys: Any = MISSING
    trust: Any = MISSING
    privacy: Any = MISSING
    runtime: Any = MISSING
    tracking: Any = MISSING
    paths: Paths = field(default_factory=Paths)

    @property
    def objectives(self) -> list[str]:
        """What `objective` names, one metric or several."""
        return self.objective if isinstance(self.objective, list) else [self.objective]

    @property
    def value_bits(self) -> int:
        """Bits of one value on the grid: as set, or those that evidence allows."""
        bits = self.encryption.value_bits
        return AUTO_VALUE_BITS if bits == "auto" else int(bits)

    @property
    def clients_evaluate(self) -> bool:
        """Whether the model is tested where test samples are: at the sites."""
        return isinstance(self.runtime, FlowerRuntime) and self.runtime.evaluation != "coordinator"

    @property
    def coordinator_evaluates(self) -> bool:
        """Whether it is tested on the run's own test set, by who has the model."""
        if not isinstance(self.runtime, FlowerRuntime):
            return True
        return self.runtime.evaluation != "sites" and self.keys.custody != "clients"

    @property
    def max_clients(self) -> int:
        """Updates that a sum must hold: as set, or the next power of two above the cohort."""
        if self.encryption.max_clients is not None:
            return int(self.encryption.max_clients)
        return 1 << (self.largest_cohort - 1).bit_length()

    @property
    def private(self) -> bool:
        """Whether what is released is differentially private."""
        return isinstance(self.privacy, Privacy)

    @property
    def largest_cohort(self) -> int:
        """Clients of a round, at most: one drawn by chance is larger with one in 10^9."""
        size = self.federation.cohort_size
        if not self.private or self.privacy.sampling != "poisson":
            return int(size)
        return min(self.federation.clients, math.ceil(size + _COHORT_TAIL * math.sqrt(size)))


SCHEMAS: dict[str, dict[str, Any]] = {
    "dataset": {
        "mnist": MnistDataset,
        "digits": DigitsDataset,
        "npz": NpzDataset,
        "sites": SitesDataset,
    },
    "split": {
        "iid": IidSplit,
        "dirichlet": DirichletSplit,
        "shards": ShardsSplit,
        "quantity": QuantitySplit,
        "sites": SitesSplit,
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
        "own": OwnAlgorithm,
    },
    "encryption": {"ckks": CkksEncryption, "bfv": BfvEncryption, "none": NoEncryption},
    "keys": {"authority": Keys, "clients": ClientKeys, "server": Keys},
    "trust": {"curious": Trust, "malicious": Trust},
    "privacy": {"none": NoPrivacy, "client": ClientPrivacy, "sample": SamplePrivacy},
    "runtime": {"local": LocalRuntime, "flower": FlowerRuntime},
    "tracking": {"mlflow": MlflowTracking, "none": NoTracking},
}


def register() -> None:
    """Make the schemas known to Hydra: `schema` for all, `schema/GROUP: OPTION` for a group."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in SCHEMAS.items():
        for option, node in options.items():
            store.store(group=f"schema/{group}", name=option, node=node)

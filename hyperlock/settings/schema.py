"""The settings of what is learned: dataset, split, model, federation. `config.py` has the others,
and reads all."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


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
class TwoNnModel:
    """model=2nn."""

    _target_: str = "hyperlock.learning.models.two_nn"


@dataclass
class CnnModel:
    """model=cnn."""

    _target_: str = "hyperlock.learning.models.cnn"


@dataclass
class Federation:
    """What all algorithms share."""

    algorithm: str = MISSING
    rounds: int = 10
    clients: int = 10
    cohort: int | None = None
    fraction: float | None = None
    dropout: float = 0.0
    learning_rate: float = MISSING
    learning_rate_decay: float = 1.0
    round_attempts: int = 1
    evaluate_every: int = 1
    target_accuracy: float | None = None

    @property
    def cohort_size(self) -> int:
        """Clients that are asked in a round."""
        if self.cohort is not None:
            return self.cohort
        return (
            self.clients if self.fraction is None else max(1, round(self.fraction * self.clients))
        )


@dataclass
class FedSgd(Federation):
    """federation=fedsgd."""

    algorithm: str = "fedsgd"


@dataclass
class LocalTraining(Federation):
    """What algorithms share whose clients train for themselves."""

    local_epochs: int | None = 1
    local_steps: int | None = None
    batch_size: int = 16
    server_learning_rate: float = 1.0


@dataclass
class FedAvg(LocalTraining):
    """federation=fedavg."""

    algorithm: str = "fedavg"


@dataclass
class FedProx(LocalTraining):
    """federation=fedprox."""

    algorithm: str = "fedprox"
    mu: float = 0.01


@dataclass
class FedAvgM(LocalTraining):
    """federation=fedavgm."""

    algorithm: str = "fedavgm"
    server_momentum: float = 0.9


@dataclass
class AdaptiveTraining(LocalTraining):
    """What FedAdagrad, FedAdam and FedYogi share."""

    server_learning_rate: float = 0.03
    beta1: float = 0.9
    tau: float = 0.001


@dataclass
class FedAdagrad(AdaptiveTraining):
    """federation=fedadagrad."""

    algorithm: str = "fedadagrad"
    beta1: float = 0.0


@dataclass
class FedAdam(AdaptiveTraining):
    """federation=fedadam."""

    algorithm: str = "fedadam"
    beta2: float = 0.99


@dataclass
class FedYogi(AdaptiveTraining):
    """federation=fedyogi."""

    algorithm: str = "fedyogi"
    beta2: float = 0.99

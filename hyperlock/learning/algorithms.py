"""Federated algorithms, named by `_target_` as models are.

Each is a function of a network and the training keys of its federation group, and returns what a
client does and what is done with the clients' mean update. One of a user's own needs no change
here:

    def signed(network, rate, batch_size):
        \"\"\"A local epoch; the server moves every weight by `rate` against its mean update.\"\"\"
        trainer = sgd_epochs(network.batched(batch_size), 1, LearningRate(0.1))
        return Algorithm(trainer, Signed(rate))

    @dataclass(frozen=True)
    class Signed:
        rate: float

        def step(self, weights, mean):
            return (weights - self.rate * np.sign(mean)).astype(np.float32), self

`check_algorithm.py` is what it must pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from hyperlock.errors import ConfigError
from hyperlock.learning.local import LearningRate, full_gradient, sgd_epochs, sgd_steps
from hyperlock.learning.optimizers import Adaptive, Momentum, Sgd, adagrad, adam, yogi
from hyperlock.learning.types import Algorithm, Trainer

if TYPE_CHECKING:  # TensorFlow is imported where a network is built, not where one is used
    from hyperlock.learning.network import Network


class LocalTraining(TypedDict):
    """The keys of every algorithm whose clients train for themselves.

    Attributes:
        local_epochs: passes over a client's samples in a round; or None, and then
        local_steps: batches in a round, whatever a client has.
        batch_size: samples a batch.
        learning_rate: of the clients' SGD in the first round.
        learning_rate_decay: what it is multiplied by after every round.
    """

    local_epochs: int | None
    local_steps: int | None
    batch_size: int
    learning_rate: float
    learning_rate_decay: float


def fedavg(
    network: Network, *, server_learning_rate: float, **local: Unpack[LocalTraining]
) -> Algorithm:
    """FedAvg (McMahan et al. 2017, Communication-Efficient Learning of Deep Networks from
    Decentralized Data, algorithm 1): local SGD; the server steps by the mean weight difference.

    Args:
        network: the model.
        server_learning_rate: what the mean difference is multiplied by; 1 in the paper.
        local: the clients' training, see `LocalTraining`.
    """
    return Algorithm(_local_sgd(network, local), Sgd(server_learning_rate))


def fedsgd(network: Network, *, learning_rate: float, learning_rate_decay: float) -> Algorithm:
    """FedSGD (McMahan et al. 2017, section 2): each client's full gradient; the server takes one
    step of gradient descent.

    Args:
        network: the model; its batch size decides memory, not the result.
        learning_rate: of the server's first step.
        learning_rate_decay: what it is multiplied by after every step.
    """
    return Algorithm(full_gradient(network), Sgd(learning_rate, learning_rate_decay))


def fedprox(
    network: Network, *, server_learning_rate: float, mu: float, **local: Unpack[LocalTraining]
) -> Algorithm:
    """FedProx (Li et al. 2020, Federated Optimization in Heterogeneous Networks, algorithm 2):
    FedAvg whose clients are held near the global model.

    Args:
        network: the model.
        server_learning_rate: as of `fedavg`.
        mu: weight of the proximal term; with 0 it is FedAvg.
        local: the clients' training, see `LocalTraining`.
    """
    return Algorithm(_local_sgd(network, local, mu), Sgd(server_learning_rate))


def fedavgm(
    network: Network,
    *,
    server_learning_rate: float,
    server_momentum: float,
    **local: Unpack[LocalTraining],
) -> Algorithm:
    """FedAvgM (Hsu et al. 2019, Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification, arXiv 1909.06335, section 3): FedAvg with momentum at the
    server.

    Args:
        network: the model.
        server_learning_rate: what the momentum is multiplied by.
        server_momentum: share of the last round's momentum in the next.
        local: the clients' training, see `LocalTraining`.
    """
    optimizer = Momentum(server_learning_rate, server_momentum)
    return Algorithm(_local_sgd(network, local), optimizer)


def fedadagrad(
    network: Network,
    *,
    server_learning_rate: float,
    beta1: float,
    tau: float,
    **local: Unpack[LocalTraining],
) -> Algorithm:
    """FedAdagrad (Reddi et al. 2021, Adaptive Federated Optimization, arXiv 2003.00295, algorithm
    2): AdaGrad at the server.

    Args:
        network: the model.
        server_learning_rate: of the server's step, η.
        beta1: decay of the first moment; 0 in the paper's experiments.
        tau: degree of adaptivity.
        local: the clients' training, see `LocalTraining`.
    """
    optimizer = Adaptive(adagrad, server_learning_rate, beta1, 0.0, tau)
    return Algorithm(_local_sgd(network, local), optimizer)


def fedadam(
    network: Network,
    *,
    server_learning_rate: float,
    beta1: float,
    beta2: float,
    tau: float,
    **local: Unpack[LocalTraining],
) -> Algorithm:
    """FedAdam (Reddi et al. 2021, algorithm 2): Adam at the server, without bias correction.

    Args:
        network: the model.
        server_learning_rate: of the server's step, η.
        beta1: decay of the first moment.
        beta2: decay of the second.
        tau: degree of adaptivity.
        local: the clients' training, see `LocalTraining`.
    """
    optimizer = Adaptive(adam, server_learning_rate, beta1, beta2, tau)
    return Algorithm(_local_sgd(network, local), optimizer)


def fedyogi(
    network: Network,
    *,
    server_learning_rate: float,
    beta1: float,
    beta2: float,
    tau: float,
    **local: Unpack[LocalTraining],
) -> Algorithm:
    """FedYogi (Reddi et al. 2021, algorithm 2): Yogi at the server, whose second moment follows the
    updates' size additively.

    Args:
        network: the model.
        server_learning_rate: of the server's step, η.
        beta1: decay of the first moment.
        beta2: decay of the second.
        tau: degree of adaptivity.
        local: the clients' training, see `LocalTraining`.
    """
    optimizer = Adaptive(yogi, server_learning_rate, beta1, beta2, tau)
    return Algorithm(_local_sgd(network, local), optimizer)


def _local_sgd(network: Network, local: LocalTraining, mu: float = 0.0) -> Trainer:
    """SGD for so many epochs, or so many steps if they are given."""
    batch_size = local["batch_size"]
    rate = LearningRate(local["learning_rate"], local["learning_rate_decay"])
    steps = local["local_steps"]
    epochs = local["local_epochs"]
    if steps is not None:
        return sgd_steps(network.batched(batch_size), steps, batch_size, rate, mu)
    if epochs is not None:
        return sgd_epochs(network.batched(batch_size), epochs, rate, mu)
    raise ConfigError(
        "federation.local_epochs",
        None,
        "neither epochs nor steps are set: nobody would train",
        hint="federation.local_epochs=1",
    )

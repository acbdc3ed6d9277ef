"""A round of pfl-research: its `FederatedAveraging` on its `SimulatedBackend`, with PyTorch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

from benchmarks.peers.exchange import BATCH, RATE, Exchange
from benchmarks.peers.torch_model import TwoNN, flat, state_of
from benchmarks.peers.turns import Turns

ROUNDS = 1_000_000  # at most; the callback ends it


class Model(TwoNN):
    """With what pfl asks of a model."""

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return torch.nn.functional.cross_entropy(self(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


class TakeTurns(TrainingProcessCallback):
    """Between two rounds, waits for the next turn."""

    def __init__(self, turns: Turns, out: str) -> None:
        self._turns = turns
        self._out = out

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Say what the round took; stop if it was the last."""
        self._turns.played(self._out, lambda: flat(model.pytorch_model.state_dict()))
        return not self._turns.wait(), Metrics()


def main() -> None:
    """Play rounds in turns: the Exchange to start from, and where weights go."""
    turns = Turns()
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002 - what pfl draws from
    given = Exchange.load(sys.argv[1])
    module = Model()
    module.load_state_dict(state_of(given.weights))
    model = PyTorchModel(
        module, torch.optim.SGD, central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0)
    )
    clients = len(given.y)
    users = [
        PyTorchTensorDataset((torch.from_numpy(x), torch.from_numpy(y)), user_id=str(i))
        for i, (x, y) in enumerate(zip(given.x, given.y, strict=True))
    ]
    data = FederatedDataset(
        lambda user: users[user], get_user_sampler("minimize_reuse", list(range(clients)))
    )

    if not turns.wait():
        return
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=ROUNDS,
            evaluation_frequency=ROUNDS,
            train_cohort_size=clients,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH),
        callbacks=[TakeTurns(turns, sys.argv[2])],
    )


if __name__ == "__main__":
    main()

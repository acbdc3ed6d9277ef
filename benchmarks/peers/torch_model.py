"""The 2NN in PyTorch, for the peers that train with it, and how its weights travel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.exchange import tensors


class TwoNN(torch.nn.Module):
    """Two hidden layers of 200."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(784, 200),
            torch.nn.ReLU(),
            torch.nn.Linear(200, 200),
            torch.nn.ReLU(),
            torch.nn.Linear(200, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.layers(x)


def state_of(weights: NDArray[np.float32]) -> dict[str, torch.Tensor]:
    """A flat model as PyTorch keeps it, matrices [out, in]."""
    names = TwoNN().state_dict()
    parts = zip(names, tensors(weights), strict=True)
    return {name: torch.tensor(part.T.copy()) for name, part in parts}


def flat(state: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    """And back."""
    return np.concatenate([tensor.detach().numpy().T.ravel() for tensor in state.values()])

"""Splitting training samples over clients. Every sample goes to exactly one client; every client gets one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyperlock.errors import ConfigError
from hyperlock.randomness import generator

Parts = list[NDArray[np.int64]]  # per client: indices into the training set


def iid(labels: NDArray[np.int32], clients: int, seed: int) -> Parts:
    """Shuffle and deal out equal parts (McMahan et al. 2017, section 3)."""
    _check_enough(labels, clients)
    return np.array_split(generator(seed, "split").permutation(len(labels)), clients)


def dirichlet(labels: NDArray[np.int32], clients: int, seed: int, alpha: float) -> Parts:
    """Label skew: each class is divided among the clients in proportions drawn from Dirichlet(alpha).

    Small alpha gives clients few classes and very different sizes; large alpha approaches iid (Hsu et al. 2019,
    arXiv 1909.06335; drawn per class as in Yurochkin et al. 2019, arXiv 1905.12022). A client left with nothing
    is given one sample by the client that has most.
    """
    _check_enough(labels, clients)
    if not 0 < alpha < float("inf"):
        raise ConfigError(
            "split.alpha", alpha, "is not a Dirichlet concentration", allowed="above 0", hint="split.alpha=0.5"
        )
    rng = generator(seed, "split")
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1]
        for part, block in zip(parts, np.split(members, (cuts * len(members)).astype(int)), strict=True):
            part.append(block)
    joined = [np.concatenate(part) for part in parts]
    for client in range(clients):
        if joined[client].size == 0:
            largest = max(range(clients), key=lambda i: joined[i].size)
            joined[client], joined[largest] = joined[largest][:1], joined[largest][1:]
    return joined


def _check_enough(labels: NDArray[np.int32], clients: int) -> None:
    if clients > len(labels):
        raise ConfigError(
            "federation.clients",
            clients,
            f"there are only {len(labels)} training samples to share out",
            allowed=f"at most {len(labels)}",
            hint="fewer clients, or a larger dataset.train_samples",
        )

"""Splitting training samples over clients. Every sample goes to exactly one client; every client
gets one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyperlock.errors import ConfigError
from hyperlock.randomness import generator

_LARGEST_ALPHA = 1e9  # equal parts by then, and far below where the draw overflows

Parts = list[NDArray[np.int64]]  # per client: indices into the training set


def iid(labels: NDArray[np.int32], clients: int, seed: int) -> Parts:
    """Shuffle and deal out equal parts (McMahan et al. 2017, section 3)."""
    _check_enough(labels, clients)
    return np.array_split(generator(seed, "split").permutation(len(labels)), clients)


def dirichlet(labels: NDArray[np.int32], clients: int, seed: int, alpha: float) -> Parts:
    """Label skew: each class is divided among the clients in proportions drawn from
    Dirichlet(alpha).

    Small alpha gives clients few classes and very different sizes; large alpha approaches iid (Hsu
    et al. 2019, arXiv 1909.06335; drawn per class as in Yurochkin et al. 2019, arXiv 1905.12022). A
    client left with nothing is given one sample by the client that has most.
    """
    _check_enough(labels, clients)
    _check_alpha(alpha)
    rng = generator(seed, "split")
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for part, block in zip(parts, _divide(members, clients, alpha, rng), strict=True):
            part.append(block)
    return _nobody_empty([np.concatenate(part) for part in parts])


def shards(labels: NDArray[np.int32], clients: int, seed: int, shards_per_client: int) -> Parts:
    """Label skew: sort by label, cut into equal shards, deal out `shards_per_client` at random
    (McMahan et al. 2017, section 3, "pathological non-IID", with 2). Clients have few classes and
    equal sizes.
    """
    _check_enough(labels, clients)
    if not 1 <= shards_per_client <= len(labels) // clients:
        raise ConfigError(
            "split.shards_per_client",
            shards_per_client,
            f"{len(labels)} training samples are cut into one shard or more for each of "
            f"{clients} clients",
            allowed=f"1 to {len(labels) // clients}",
            hint="split.shards_per_client=2" if len(labels) >= 2 * clients else "fewer clients",
        )
    rng = generator(seed, "split")
    # Shuffled before they are sorted, so that which samples of a class a shard has is chance.
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_label, clients * shards_per_client)
    # Hands of shards, dealt out.
    dealt = rng.permutation(len(pieces)).reshape(clients, shards_per_client)
    return [np.concatenate([pieces[i] for i in hand]) for hand in dealt]


def quantity(labels: NDArray[np.int32], clients: int, seed: int, alpha: float) -> Parts:
    """Quantity skew: labels iid, the clients' sizes in proportions drawn from Dirichlet(alpha).

    As in Li et al. 2022 (arXiv 2102.02079). Small alpha gives very different sizes, large alpha
    approaches iid. A client left with nothing is given one sample by the client that has most.
    """
    _check_enough(labels, clients)
    _check_alpha(alpha)
    rng = generator(seed, "split")
    return _nobody_empty(_divide(rng.permutation(len(labels)), clients, alpha, rng))


def label_counts(labels: NDArray[np.int32], parts: Parts, classes: int) -> NDArray[np.int64]:
    """int64[clients, classes]: how many samples of each class each client has."""
    return np.array([np.bincount(labels[part], minlength=classes) for part in parts])


def _divide(
    members: NDArray[np.int64], clients: int, alpha: float, rng: np.random.Generator
) -> Parts:
    """Consecutive blocks in proportions drawn from Dirichlet(alpha)."""
    cuts = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1]
    return np.split(members, (cuts * len(members)).astype(int))


def _nobody_empty(parts: Parts) -> Parts:
    """Whoever has nothing is given one sample by the client that has most."""
    for client, part in enumerate(parts):
        if part.size == 0:
            largest = max(range(len(parts)), key=lambda i: parts[i].size)
            parts[client] = parts[largest][:1]
            parts[largest] = parts[largest][1:]
    return parts


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= _LARGEST_ALPHA:
        raise ConfigError(
            "split.alpha",
            alpha,
            "is not a Dirichlet concentration",
            allowed=f"above 0, at most {_LARGEST_ALPHA:g}",
            hint="split.alpha=0.5",
        )


def _check_enough(labels: NDArray[np.int32], clients: int) -> None:
    if clients > len(labels):
        raise ConfigError(
            "federation.clients",
            clients,
            f"there are only {len(labels)} training samples to share out",
            allowed=f"at most {len(labels)}",
            hint="fewer clients, or a larger dataset.train_samples",
        )

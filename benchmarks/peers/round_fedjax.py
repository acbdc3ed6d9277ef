"""A round of fedjax: its `fed_avg`, its in-memory data, its 'jit' backend."""

from __future__ import annotations

import os
import sys
from functools import partial

# One thread an operator, as HyperLock has it; before jax is imported.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import stax
from numpy.typing import NDArray

from benchmarks.peers.exchange import BATCH, RATE, Exchange, tensors
from benchmarks.peers.turns import Turns


def model() -> fedjax.Model:
    """The 2NN, with fedjax's own wrapper of stax."""
    init, apply = stax.serial(
        stax.Dense(200), stax.Relu, stax.Dense(200), stax.Relu, stax.Dense(10)
    )

    def loss(batch: dict, logits: jax.Array) -> jax.Array:
        return fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits)

    return fedjax.create_model_from_stax(init, apply, (-1, 784), loss)


def flat(leaves: list[jax.Array]) -> NDArray[np.float32]:
    """The flat model."""
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def main() -> None:
    """Play rounds in turns: the Exchange to start from, and where weights go."""
    turns = Turns()
    given = Exchange.load(sys.argv[1])
    shards = {
        f"{i:04}": {"x": x, "y": y} for i, (x, y) in enumerate(zip(given.x, given.y, strict=True))
    }
    data = fedjax.InMemoryFederatedData(shards)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model()),
        fedjax.optimizers.sgd(RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, skip_shuffle=True),
    )

    # stax keeps its layers as pairs, and those without weights as empty tuples.
    first = [jnp.asarray(tensor) for tensor in tensors(given.weights)]
    state = algorithm.init([(first[0], first[1]), (), (first[2], first[3]), (), (*first[4:],)])
    sampler = fedjax.client_samplers.UniformGetClientSampler(data, len(shards), seed=0)

    while turns.wait():
        state, _ = algorithm.apply(state, sampler.sample())
        leaves = jax.block_until_ready(jax.tree_util.tree_leaves(state.params))
        turns.played(sys.argv[2], partial(flat, leaves))


if __name__ == "__main__":
    main()

"""A round of HyperLock, as `python run.py` plays it: training, grid, encryption, signed messages,
sum, step."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.peers.exchange import BATCH, RATE, Exchange
from benchmarks.peers.turns import Turns
from benchmarks.round import ready
from hyperlock.experiment import simulation
from hyperlock.experiment.rounds import run_round
from hyperlock.learning.types import LocalData
from hyperlock.randomness import generator
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import read
from hyperlock.settings.schema import Config


def configuration(clients: int, encryption: str) -> Config:
    """The settings of the round: every client of 600 samples takes part in each."""
    overrides = [
        "experiment=fedavg_paper_2nn",
        "tracking=none",
        f"encryption={encryption}",
        f"federation.clients={clients}",
        "federation.fraction=1.0",
        f"federation.batch_size={BATCH}",
        f"federation.learning_rate={RATE}",
        f"dataset.train_samples={600 * clients}",
    ]
    composed, _ = compose(overrides)
    return read(composed, overrides).config


def prepare(clients: int, path: str) -> None:
    """Write the Exchange that all ways start from."""
    config = configuration(clients, "none")
    dataset = simulation.load_dataset(config)
    network = simulation.build_network(config, simulation.samples(dataset))
    trainer = simulation.build_algorithm(config, network).trainer
    weights = network.initial_weights()
    x: list[Any] = []
    y: list[Any] = []
    total = np.zeros(weights.size, np.float64)
    for client, part in enumerate(simulation.build_split(config, dataset)):
        data = LocalData(dataset.x_train[part], dataset.y_train[part])
        # A client's first epoch draws its order first of all from this generator.
        order = generator(config.seed, "batches", 1, client).permutation(len(part))
        x.append(data.x[order].reshape(len(part), -1).astype(np.float32) / np.float32(255))
        y.append(data.y[order])
        total += trainer(weights, data, 1, generator(config.seed, "batches", 1, client)).vector
    after = (weights - total / clients).astype(np.float32)
    Exchange(weights, np.stack(x), np.stack(y).astype(np.int64), after).save(path)


def play(clients: int, encryption: str, out: str) -> None:
    """Play rounds in turns."""
    turns = Turns()
    parties = ready(configuration(clients, encryption))
    number = 0
    while turns.wait():
        number += 1
        run_round(number, parties, parties.clients)
        turns.played(out, lambda: parties.keeper.model.weights)


def main() -> None:
    """Prepare, or play with one encryption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--encryption")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    if arguments.encryption:
        play(arguments.clients, arguments.encryption, arguments.out)
    else:
        prepare(arguments.clients, arguments.out)


if __name__ == "__main__":
    main()

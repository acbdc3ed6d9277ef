"""A round of Flower's simulation: its FedAvg over its engine on Ray, with PyTorch in the clients.
It runs only where there is no network but loopback."""

from __future__ import annotations

import os
import sys
from functools import partial

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "PEERS_EXCHANGE": sys.argv[1],
}

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray

from benchmarks.peers.exchange import Exchange
from benchmarks.peers.flower_client import app as client
from benchmarks.peers.loopback import only_loopback
from benchmarks.peers.torch_model import flat, state_of
from benchmarks.peers.turns import Turns, seconds_of_all

CORES = 1  # one actor at a time: the better of what was tried, in processor seconds


def weights_of(arrays: ArrayRecord) -> NDArray[np.float32]:
    """The flat model."""
    return flat(arrays.to_torch_state_dict())


def main() -> None:
    """Play rounds in turns: the Exchange to start from, and where weights go."""
    only_loopback()
    turns = Turns(seconds_of_all)
    given = Exchange.load(sys.argv[1])
    server = ServerApp()

    @server.main()
    def play(grid: Grid, context: Context) -> None:
        """Between two rounds, wait for the next turn."""
        arrays = ArrayRecord(state_of(given.weights))
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
        while turns.wait():
            arrays = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1).arrays
            turns.played(sys.argv[2], partial(weights_of, arrays))

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=len(given.y),
        backend_config={
            "init_args": {"num_cpus": CORES, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()

"""HyperLock's encryption in turns: those ways of `python -m benchmarks aggregation` that are
named."""

from __future__ import annotations

import argparse

from benchmarks.aggregation import one_round
from benchmarks.methods import methods
from benchmarks.models import tensor_sizes
from benchmarks.others import NvFlare
from benchmarks.peers.encryption import STAND_IN
from benchmarks.peers.turns import Turns

KEPT = ("up", "down", "client", "server", "decrypt")


def main() -> None:
    """A round of each way a turn: parameters, clients, names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parameters", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    turns = Turns()
    sizes = tensor_sizes(arguments.parameters)
    ways = {**methods([8]), STAND_IN: NvFlare}
    sessions = {name: ways[name](sizes) for name in arguments.names}
    while turns.wait():
        figures = {}
        for name, session in sessions.items():
            seen = one_round(session, sum(sizes), arguments.clients)
            figures[name] = {figure: seen[figure] for figure in KEPT}
        turns.answer(figures)


if __name__ == "__main__":
    main()

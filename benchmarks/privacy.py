"""A round of `privacy=sample`, in which every sample's gradient is clipped on its own, against one
of federated SGD without privacy over the same samples."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.round import Rounds, in_turns
from benchmarks.tables import Samples, markdown, ratio, summary

WITHOUT = "privacy=none"
WITH = "privacy=sample"
# All samples are in every round, so that both compute as many gradients.
PRIVATE = (
    WITH,
    "privacy.record_rate=1.0",
    "privacy.epsilon=null",
    "privacy.noise_multiplier=1.0",
    "keys.min_clients=10",
)


def add_command(commands: Any) -> None:
    """Add `privacy` to the command line."""
    parser = commands.add_parser(
        "privacy", help="seconds of a round with privacy=sample, against one without"
    )
    parser.add_argument("--models", default="mlp,cnn")
    parser.add_argument("--encryption", default="none,bfv")
    parser.add_argument("--samples", type=int, default=2000, help="of ten clients together")
    parser.add_argument("--repeats", type=int, default=5)
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print CPU and wall seconds, medians with the smallest and largest; the ways take turns."""
    for model in arguments.models.split(","):
        ways = {}
        for scheme in arguments.encryption.split(","):
            base = [
                f"model={model}",
                f"encryption={scheme}",
                "federation=fedsgd",
                f"dataset.train_samples={arguments.samples}",
            ]
            ways[_named(WITHOUT, scheme)] = base
            ways[_named(WITH, scheme)] = [
                *base,
                *PRIVATE,
                f"privacy.delta={0.1 / arguments.samples}",
            ]
        rounds = {name: Rounds(overrides) for name, overrides in ways.items()}
        samples = in_turns(rounds, arguments.repeats)
        print(_table(model, samples, arguments.encryption.split(",")))


def _named(way: str, scheme: str) -> str:
    return f"{way}, {scheme}"


def _table(model: str, samples: Samples, schemes: list[str]) -> str:
    headings = [f"{model}, a round", "CPU s", "wall s", "CPU, times that without privacy"]
    rows = []
    for scheme in schemes:
        for way in (WITHOUT, WITH):
            name = _named(way, scheme)
            cells = [summary(samples[name][figure]) for figure in ("cpu", "wall")]
            times = summary(ratio(samples, name, _named(WITHOUT, scheme), "cpu"))
            rows.append([name, *cells, times])
    return markdown(headings, rows)

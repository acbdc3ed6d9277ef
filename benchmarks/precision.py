"""Final accuracy of the default job by bits of the grid, over seeds, against a grid too fine to
matter."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.job import ROOT, run_once

REFERENCE = 24  # bits: float32's own precision


def add_command(commands: Any) -> None:
    """Add `precision` to the command line."""
    parser = commands.add_parser(
        "precision", help="accuracy of the default job by encryption.value_bits, over seeds"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--value-bits", type=int, nargs="+", default=[8, 12, 16])
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Run every seed with every number of bits and print accuracies, and their differences from the
    reference."""
    columns = [*arguments.value_bits, REFERENCE]
    rows: list[list[float]] = []
    with tempfile.TemporaryDirectory() as home:
        Path(home, "data").symlink_to(ROOT / "data")
        for seed in range(arguments.seeds):
            # The plaintext baseline gives the accuracy of every scheme, bit for bit
            # (tests/test_parity.py).
            same = ["encryption=none", "tracking=none", f"seed={seed}"]
            rows.append(
                [
                    run_once(home, [*same, f"encryption.value_bits={bits}"])["accuracy"]
                    for bits in columns
                ]
            )
            print(f"seed {seed} done", file=sys.stderr)
    print("| seed | " + " | ".join(f"{bits} bits" for bits in columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for seed, row in enumerate(rows):
        print(f"| {seed} | " + " | ".join(f"{accuracy:.4f}" for accuracy in row) + " |")
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    print("| mean | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    differences = [f"{100 * (mean - means[-1]):+.3f}" for mean in means[:-1]]
    print("| percentage points from the finest | " + " | ".join(differences) + " | |")

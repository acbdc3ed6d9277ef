"""`python -m benchmarks NAME`: what a whole job costs, and what encryption costs against what
others do."""

from __future__ import annotations

import argparse

from benchmarks import aggregation, job, memory, precision, privacy, round, simulation
from benchmarks.peers import command as peers


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for module in (job, aggregation, memory, precision, privacy, round, simulation, peers):
        module.add_command(commands)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()

"""`python -m benchmarks NAME`: what a whole job costs, and what encryption costs against what
others do."""

from __future__ import annotations

import argparse

from benchmarks import aggregation, job, memory, precision, privacy, round, simulation
from benchmarks.federation import command as federation
from benchmarks.federation import load
from benchmarks.peers import command as peers


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    each_round = (round, simulation, privacy)
    for module in (job, aggregation, memory, precision, *each_round, peers, federation, load):
        module.add_command(commands)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()

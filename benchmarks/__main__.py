"""`python -m benchmarks job`: what the default job costs, encrypted and not."""

from __future__ import annotations

import argparse

from benchmarks import job


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    job.add_command(commands)
    arguments = parser.parse_args()
    arguments.run(arguments)


main()

"""One simulated round of many clients, encrypted and not, by one worker and by two."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.tables import Samples, markdown, ratio, summary

if TYPE_CHECKING:
    from hyperlock.experiment.rounds import Parties
    from hyperlock.settings.schema import Config

PLAIN = "plaintext"
WORKERS = (1, 2)


def add_command(commands: Any) -> None:
    """Add `round` to the command line."""
    parser = commands.add_parser(
        "round", help="seconds of a round of many clients, encrypted, against plaintext"
    )
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--model", default="2nn")
    parser.add_argument("--encryption", default="bfv")
    parser.add_argument("--value-bits", default="4,5,8")
    parser.add_argument("--also", help="a setting to compare with, such as trust=malicious")
    parser.add_argument("--repeats", type=int, default=5)
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print CPU and wall seconds, medians with the smallest and largest; the ways take turns."""
    base = [
        f"model={arguments.model}",
        f"federation.clients={arguments.clients}",
        "federation.batch_size=10",
    ]
    ways = {PLAIN: ["encryption=none"]}
    for bits in arguments.value_bits.split(","):
        name = f"{arguments.encryption}, {bits} bits"
        ways[name] = [f"encryption={arguments.encryption}", f"encryption.value_bits={bits}"]
        if arguments.also:
            ways[f"{name}, {arguments.also}"] = [*ways[name], arguments.also]
    rounds = {
        _named(name, workers): Rounds([*base, *overrides, f"runtime.workers={workers}"])
        for name, overrides in ways.items()
        for workers in WORKERS
    }

    print(_table(in_turns(rounds, arguments.repeats), list(ways)))


def in_turns(rounds: Mapping[str, Rounds], repeats: int) -> Samples:
    """Seconds of so many rounds of each, who take turns."""
    # The first of each traces, compiles and starts processes.
    samples: Samples = {name: defaultdict(list) for name in rounds}
    for repeat in range(repeats + 1):
        for name, one in rounds.items():
            seconds = one.play()
            for figure in seconds if repeat else ():
                samples[name][figure].append(seconds[figure])
        print(f"repeat {repeat} of {repeats} done", file=sys.stderr)
    return samples


class Rounds:
    """The parties of a run, which play round after round.

    Args:
        overrides: of the default job.
    """

    def __init__(self, overrides: list[str]) -> None:
        from hyperlock.experiment.rounds import run_round
        from hyperlock.settings.compose import compose
        from hyperlock.settings.parse import parse

        composed, _ = compose(["tracking=none", "federation.rounds=1000", *overrides])
        self._run_round = run_round
        self._parties = ready(parse(composed))
        self._number = 0

    def play(self) -> dict[str, float]:
        """One round's seconds: of the processor, in all processes, and by the clock."""
        self._number += 1
        wall = time.perf_counter()
        busy = _cpu()
        self._run_round(self._number, self._parties, self._parties.clients)
        return {"cpu": _cpu() - busy, "wall": time.perf_counter() - wall}


def ready(config: Config) -> Parties:
    """The parties of a run with these settings, before the first round."""
    from hyperlock.experiment import simulation
    from hyperlock.monitor import Monitor

    dataset = simulation.load_dataset(config)
    network = simulation.build_network(config, simulation.samples(dataset))
    guarantee = simulation.promised(config, network, dataset)
    return simulation.assemble(
        config,
        dataset,
        simulation.build_split(config, dataset),
        simulation.build_scheme(config, network.sizes, guarantee),
        network,
        run=uuid.uuid4().hex,
        monitor=Monitor(),
        guarantee=guarantee,
    )


def _cpu() -> float:
    """Seconds that this process and those that encrypt for it have computed."""
    seconds = time.process_time()
    ticks = os.sysconf("SC_CLK_TCK")
    own = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != own:
            try:
                with open(f"/proc/{entry.name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == own:
                seconds += (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def _named(name: str, workers: int) -> str:
    return f"{name}, {workers} worker{'s' * (workers > 1)}"


def _table(samples: Samples, ways: list[str]) -> str:
    """CPU against plaintext by as many workers, and wall against one worker."""
    headings = ["round", "CPU s", "CPU, times plaintext's", "wall s", "wall, times one worker's"]
    rows = []
    for way in ways:
        for workers in WORKERS:
            name = _named(way, workers)
            cells = [
                summary(samples[name]["cpu"]),
                summary(ratio(samples, name, _named(PLAIN, 1), "cpu")),
                summary(samples[name]["wall"]),
                summary(ratio(samples, name, _named(way, 1), "wall")),
            ]
            rows.append([name, *cells])
    return markdown(headings, rows)

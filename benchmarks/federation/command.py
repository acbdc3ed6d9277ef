"""`python -m benchmarks federation`: seconds a round between organisations on a slow network, and
what a model of bytes, trips and polling makes of them."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.federation.cost import (
    Engine,
    Link,
    Trip,
    round_seconds,
    seconds_of_trips,
    waiting,
)
from benchmarks.federation.processes import memory
from benchmarks.federation.stage import Coordinator, Federation, federation, names, run_settings
from benchmarks.tables import markdown, summary
from hyperlock.process import end_on_signals
from hyperlock.sites.meeting import pace

MODELS = {101_770: "mlp", 199_210: "2nn", 1_663_370: "cnn"}
_TIMES = 15  # empty trips of a kind
_LARGE = 2_000_000  # bytes of a trip that is all bytes
_OTHERS = 3  # parties of a project that are no sites
_FREE = Link(0.0, 0.0)


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        model: of the settings.
        trust: of the settings.
        rounds: on the slow network.
    """

    model: str
    trust: str
    rounds: int


def add_command(commands: Any) -> None:
    """Add `federation` to the command line."""
    parser = commands.add_parser(
        "federation", help="seconds a round across organisations on a slow network (Linux, root)"
    )
    parser.add_argument("--parameters", default="101770,1663370", help=f"of {list(MODELS)}")
    parser.add_argument("--trust", default="curious,malicious")
    parser.add_argument("--rate", type=float, default=20.0, help="Mbit/s of each party's link")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds, one way")
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="that are measured")
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print the table, and what memory the processes took."""
    end_on_signals()
    sites = names(arguments.sites)
    models = [MODELS[int(size)] for size in arguments.parameters.split(",")]
    jobs = [Job(m, t, arguments.rounds) for m in models for t in arguments.trust.split(",")]
    slow = Link(arguments.rate * 1e6 / 8, arguments.delay)
    rows = []
    peaks: dict[str, list[str]] = {}
    with federation(sites) as made:
        for job in jobs:
            with made.coordinator(_across(made, job, sites)) as coordinator:
                figures = _play(made, coordinator, job, sites, slow)
                figures |= coordinator.about
                peaks = _with_peaks(peaks, made.processes() | {"coordinator": [coordinator.pid]})
            figures |= alone(job, len(sites))
            rows.append(_row(job, figures))
            print(markdown(HEADINGS, rows[-1:]), file=sys.stderr)
    print(markdown(HEADINGS, rows), end="\n\n")
    columns = [f"{job.model}, {job.trust}" for job in jobs]
    print(markdown(["peak memory, MB", *columns], [[who, *mb] for who, mb in peaks.items()]))


def _across(made: Federation, job: Job, sites: Sequence[str]) -> list[str]:
    unit = "runtime.weight_unit=60"
    return [*run_settings(job.model, job.trust, len(sites)), unit, "runtime.timeout=120"]


def _play(
    made: Federation, coordinator: Coordinator, job: Job, sites: Sequence[str], slow: Link
) -> dict[str, Any]:
    """Rounds on a network without limits, from which constants are taken; then on the slow one."""
    made.network.shape(0, 0)
    coordinator.rounds(1)  # traces and compiles
    before = made.served()
    free = coordinator.rounds(3)
    served = {name: lines[len(before[name]) :] for name, lines in made.served().items()}
    engine = calibrated(coordinator, sites)
    trips = [with_work(one["trips"], served) for one in free]

    made.network.shape(slow.rate * 8 / 1e6, slow.delay)
    coordinator.rounds(1)  # what was under way when the network changed
    played = coordinator.rounds(job.rounds)
    load = os.getloadavg()[0]
    predicted = [
        round_seconds(part, _server(one), engine, slow)
        for part, one in zip(trips, free, strict=True)
    ]
    _show_trips(played, seconds_of_trips(trips[-1], _server(free[-1]), engine, slow))
    return {
        "measured": [one["seconds"] for one in played],
        "predicted": statistics.median(predicted),
        "free": [one["seconds"] for one in free],
        "trips": [len(one["trips"]) for one in played],
        "moved": _moved(played[-1]["trips"]),
        "load": load,
        "engine": engine,
    }


def calibrated(coordinator: Coordinator, sites: Sequence[str]) -> Engine:
    """What Flower takes here, of trips that parties refuse."""
    asked = pace(len(sites) + _OTHERS)
    rest = Engine(0.0, 0.0, 0.0, asked.poll, asked.share, asked.most)
    one = statistics.median(coordinator.empty(sites[:1], _TIMES)) - waiting(0, 1, rest, _FREE)
    every = statistics.median(coordinator.empty(sites, _TIMES))
    every -= waiting(0, len(sites), rest, _FREE)
    large = statistics.median(coordinator.empty(sites[:1], _TIMES, _LARGE))
    per_byte = (large - waiting(0, 1, rest, _FREE) - one) / _LARGE
    each = (every - one) / max(len(sites) - 1, 1)
    return replace(rest, one=one, each=max(each, 0.0), per_byte=max(per_byte, 0.0))


def with_work(
    trips: Sequence[Mapping[str, Any]], served: dict[str, list[tuple[int, float]]]
) -> list[Trip]:
    """Trips as they were noted, with the seconds of parties, whose next ones `served` has."""
    found = []
    for trip in trips:
        work = 0.0
        for name, size in trip["sent"].items():
            told, seconds = served[name].pop(0)
            assert told == size, f"{name} was sent {size} bytes, and served {told}"
            work = max(work, seconds)
        found.append(Trip(trip["sent"], trip["back"], work))
    return found


def _server(one: Mapping[str, Any]) -> float:
    """Seconds of a round in which nobody was waited for."""
    return float(one["seconds"] - sum(trip["waited"] for trip in one["trips"]))


def _moved(trips: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """By party, the bytes that it was sent in a round, and that it sent."""
    moved: dict[str, tuple[int, int]] = {}
    for trip in trips:
        for name in trip["sent"]:
            down, up = moved.get(name, (0, 0))
            moved[name] = (down + trip["sent"][name], up + trip["back"].get(name, 0))
    return moved


def alone(job: Job, sites: int) -> dict[str, Any]:
    """Seconds and bytes of the same rounds in one process."""
    from benchmarks.federation.coordinate import Recorded
    from benchmarks.round import ready
    from hyperlock.experiment.rounds import run_round
    from hyperlock.settings.compose import compose
    from hyperlock.settings.parse import parse

    composed, _ = compose([*run_settings(job.model, job.trust, sites), "tracking=none"])
    parties = ready(parse(composed))
    recorded = Recorded(parties.runtime)
    parties = replace(parties, runtime=recorded)  # type: ignore[arg-type]

    seconds = []
    for number in range(1, job.rounds + 2):
        recorded.drain()
        began = time.perf_counter()
        run_round(number, parties, parties.clients)
        seconds.append(time.perf_counter() - began)
    moved = _moved(recorded.drain())
    return {"alone": seconds[1:], "alone_bytes": sum(map(sum, moved.values()))}


HEADINGS = (
    "parameters", "trust", "s a round", "predicted", "ratio", "no limits", "one process",
    "trips", "down, up of a site", "of the key holder", "of the witness", "all bytes",
    "in one process", "security", "load",
)  # fmt: skip


def _show_trips(played: Sequence[Mapping[str, Any]], predicted: Sequence[float]) -> None:
    """For who looks for what the model misses."""
    for i, seconds in enumerate(predicted):
        trips = [one["trips"][i] for one in played if i < len(one["trips"])]
        waited = summary([trip["waited"] for trip in trips])
        who = ", ".join(trips[0]["sent"])
        print(f"  {who}: {waited} s, predicted {seconds:.3g}", file=sys.stderr)


def _row(job: Job, figures: dict[str, Any]) -> list[str]:
    measured = figures["measured"]
    moved = figures["moved"]
    nobody = (0, 0)
    ratio = figures["predicted"] / statistics.median(measured)
    print(f"{job}: {figures['engine']}; {measured}", file=sys.stderr)
    return [
        f"{figures['parameters']:,}",
        job.trust,
        summary(measured),
        f"{figures['predicted']:.3g}",
        f"{ratio:.2f}",
        summary(figures["free"]),
        summary(figures["alone"]),
        str(statistics.median(figures["trips"])),
        _bytes(moved["site-0"]),
        _bytes(moved["keyholder"]),
        _bytes(moved.get("witness", nobody)),
        f"{sum(map(sum, moved.values())):,}",
        f"{figures['alone_bytes']:,}",
        f"{figures['security_bits']} bits",
        f"{figures['load']:.1f}",
    ]


def _bytes(moved: tuple[int, int]) -> str:
    return f"{moved[0]:,}, {moved[1]:,}"


def _with_peaks(
    peaks: dict[str, list[str]], processes: Mapping[str, list[int]]
) -> dict[str, list[str]]:
    """A further column: the peaks so far, of processes that serve job after job."""
    found = {who: f"{memory(pids, 'VmHWM') / 1e6:.0f}" for who, pids in processes.items()}
    return {who: [*peaks.get(who, []), mb] for who, mb in found.items()}

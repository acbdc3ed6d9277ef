"""HyperLock's encryption against plaintext, the original demo and NVFlare, in one process, all of
them taking turns."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.client_time import encrypt_shares, shares_table
from benchmarks.memory import peak_memory, stdout_kept
from benchmarks.methods import Way, methods
from benchmarks.models import tensor_sizes
from benchmarks.session import drawn_update, in_turns, run_round
from benchmarks.tables import Samples, markdown, ratio, summary
from hyperlock.encryption.ciphertexts import tenseal_version
from hyperlock.tracking import style

OUT = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks"
SIZES = (101_770, 199_210, 1_663_370)
LARGE = 11_000_000  # takes a quarter of an hour, and is measured once
REFERENCE = "nvflare"
COLUMNS = {  # figure: heading
    "up": "bytes up",
    "down": "bytes down",
    "quantise": "quantise",
    "encrypt": "encrypt",
    "serialise": "serialise",
    "client": "client",
    "server": "server, per client",
    "decrypt": "decrypt",
}
RATIOS = ("up", "client", "server", "decrypt")
GOALS = (  # way, figure, what it must reach, as a ratio to the reference or in bytes
    ("bfv-8x16", "up", "at most", 3.70),
    ("bfv-8x16", "client", "times below", 8),
    ("bfv-8x16", "server", "times below", 20),
    ("bfv-8x16", "decrypt", "times below", 3),
    ("bfv-8x16-seeded", "up", "at most", 1.75),
    ("bfv-8x16-seeded", "client", "times below", 14),
    ("bfv-5x16", "up", "at most", 2.80),
    ("bfv-5x16-seeded", "up", "at most", 1.32),
    ("bfv-4x16", "client", "times below", 9),
    ("ckks-8x16", "up", "at most", 5.5),
)


def add_command(commands: Any) -> None:
    """Add `aggregation` to the command line."""
    parser = commands.add_parser(
        "aggregation", help="bytes, time and memory of every way to add encrypted updates"
    )
    parser.add_argument(
        "--sizes", type=_integers, default=(*SIZES, LARGE), help="parameters, separated by commas"
    )
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--value-bits", type=_integers, default=(4, 8))
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        help="names, separated by commas; default: all",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="skip the processes that measure memory"
    )
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Measure, print tables, and write them as JSON and plots under outputs/benchmarks/."""
    ways = _chosen(methods(arguments.value_bits), arguments.methods)
    OUT.mkdir(parents=True, exist_ok=True)
    results: dict[int, Any] = {}
    report = {
        "machine": machine(),
        "clients": arguments.clients,
        "repeats": arguments.repeats,
        "sizes": results,
    }
    with stdout_kept() as stdout:
        for size in arguments.sizes:
            parameters = sum(tensor_sizes(size))
            repeats = 1 if size == LARGE else arguments.repeats
            samples = measure_size(ways, size, arguments.clients, repeats)
            memory = {} if arguments.no_memory else {n: peak_memory(n, size, 2) for n in ways}
            encrypted = min(parameters, SIZES[-1])
            shares = encrypt_shares(8, 16, encrypted, max(arguments.repeats, 3))
            results[parameters] = {"samples": samples, "memory": memory, "encrypt_seconds": shares}

            # What is known so far is shown and kept, since the next size may take long.
            tables = [table(samples, memory)]
            if REFERENCE in samples:
                tables.append(ratios_table(samples))
            if size == SIZES[-1]:
                tables.append(goals(samples))
            tables.append(shares_table(shares, encrypted))
            heading = f"## {parameters:,} parameters, {arguments.clients} clients"
            print(f"{heading}, repeats: {repeats}\n", file=stdout)
            print(*tables, "", sep="\n\n", file=stdout, flush=True)
            (OUT / "aggregation.json").write_text(json.dumps(report, indent=1))
            plot(samples, parameters).savefig(OUT / f"aggregation-{parameters}.png")
        print("Bytes and processor microseconds are per parameter,", file=stdout, end=" ")
        print(f"medians of {arguments.repeats} repeats (min to max).", file=stdout)
        print(f"written to {OUT}", file=stdout)


def _chosen(ways: dict[str, Way], names: list[str] | None) -> dict[str, Way]:
    """The ways that were named, or all."""
    if not names:
        return ways
    unknown = set(names) - set(ways)
    if unknown:
        raise SystemExit(
            f"unknown methods {', '.join(sorted(unknown))}; there are {', '.join(ways)}"
        )
    return {name: ways[name] for name in names}


def measure_size(ways: dict[str, Way], size: int, clients: int, repeats: int) -> Samples:
    """`repeats` rounds of each way at one size, the order rotated by one each time, after a round
    of one client."""
    sizes = tensor_sizes(size)
    sessions = {name: make(sizes) for name, make in ways.items()}
    samples: Samples = {name: defaultdict(list) for name in ways}
    for session in sessions.values():
        run_round(session, updates(sum(sizes), 1), CpuClock())
    for repeat in range(repeats):
        for name in in_turns(list(ways), repeat):
            gc.collect()
            figures = one_round(sessions[name], sum(sizes), clients)
            for figure, value in figures.items():
                samples[name][figure].append(value)
        print(f"{sum(sizes):,} parameters: repeat {repeat + 1} of {repeats} done", file=sys.stderr)
    return samples


def one_round(session: Any, parameters: int, clients: int) -> dict[str, float]:
    """Every figure of one round."""
    clock = CpuClock()
    start = time.perf_counter()
    up, down = run_round(session, updates(parameters, clients), clock)
    wall = time.perf_counter() - start
    seconds = {stage: 1e6 * value / parameters for stage, value in clock.seconds.items()}
    client = {
        stage: seconds.get(stage, 0.0) / clients for stage in ("quantise", "encrypt", "serialise")
    }
    return {
        "up": up / parameters,
        "down": down / parameters,
        **client,
        "client": sum(client.values()),
        "server": (seconds["add"] + seconds["total"]) / clients,
        "decrypt": seconds["decrypt"],
        "wall": wall,
    }


class CpuClock:
    """Processor seconds by stage: nothing here waits or uses threads, and other processes share the
    machine."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the block's seconds."""
        start = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - start


def updates(parameters: int, clients: int) -> Iterator[NDArray[np.float32]]:
    """One client's update after the other."""
    for client in range(clients):
        yield drawn_update(client, parameters)


def table(samples: Samples, memory: dict[str, dict[str, Any]]) -> str:
    """Markdown: every figure of every way; bytes and microseconds per parameter."""
    rows = []
    for name, figures in samples.items():
        peak = f"{memory[name]['peak'] / 1e6:.0f}" if name in memory else ""
        rows.append([name, *(summary(figures[figure]) for figure in COLUMNS), peak])
    return markdown(["way", *COLUMNS.values(), "peak MB"], rows)


def ratios_table(samples: Samples) -> str:
    """Markdown: how many times each way lies below the reference."""
    rows = [
        [name, *(summary(ratio(samples, REFERENCE, name, figure)) for figure in RATIOS)]
        for name in samples
    ]
    return markdown([f"{REFERENCE} / this way", *(COLUMNS[figure] for figure in RATIOS)], rows)


def goals(samples: Samples) -> str:
    """Markdown: each goal that this run can judge, by medians."""
    rows: list[list[str]] = []
    for name, figure, kind, bound in GOALS:
        if name not in samples:
            continue
        goal = f"{name}, {COLUMNS[figure]}: {kind} {bound}"
        least = min(samples[name][figure])
        if kind == "at most":
            seen = samples[name][figure]
            met = statistics.median(seen) <= bound
            rows.append([goal, *_judged(met, seen, least)])
        elif REFERENCE in samples:
            seen = ratio(samples, REFERENCE, name, figure)
            met = statistics.median(seen) >= bound
            best = min(samples[REFERENCE][figure]) / least
            rows.append([f"{goal} ({REFERENCE})", *_judged(met, seen, best)])
    return markdown(["goal", "reached, by median", "seen", "from the least of each"], rows)


def _judged(met: bool, seen: list[float], best: float) -> list[str]:
    return ["yes" if met else "no", summary(seen), f"{best:.3g}"]


def plot(samples: Samples, parameters: int) -> Any:
    """Bars of the four figures that are compared, on logarithmic axes; whiskers from min to max."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.9 + 0.5 * len(samples)), dpi=120, layout="constrained")
    figure.suptitle(f"{parameters:,} parameters: per parameter, median, min and max", fontsize=11)
    panels = figure.subplots(1, len(RATIOS), sharey=True)
    for axes, key in zip(panels, RATIOS, strict=True):
        seen = {name: figures[key] for name, figures in samples.items()}
        medians = {name: statistics.median(values) for name, values in seen.items()}
        low = [medians[name] - min(values) for name, values in seen.items()]
        high = [max(values) - medians[name] for name, values in seen.items()]
        bars = axes.barh(
            list(medians),
            list(medians.values()),
            xerr=(low, high),
            color=[_colour(name) for name in medians],
            ecolor="#333333",
        )
        axes.bar_label(bars, fmt="%.3g", padding=4, fontsize=7)
        axes.set(xscale="log", xlabel=COLUMNS[key] + ("" if key == "up" else ", µs"))
        axes.margins(x=0.3)
        style.open_frame(axes)
    panels[-1].invert_yaxis()  # they share it
    return figure


def _colour(way: str) -> str:
    """What others do, what we do, and what is not encrypted."""
    if way in ("demo", "nvflare"):
        return style.RED
    return style.GREEN if "x" in way else style.GREY


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tenseal": tenseal_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(","))

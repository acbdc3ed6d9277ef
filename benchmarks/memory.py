"""Peak memory of one round of one way, stage by stage, in a process of its own."""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import methods
from benchmarks.models import tensor_sizes
from benchmarks.session import UPDATE_SCALE, run_round

ROOT = Path(__file__).resolve().parents[1]


def add_command(commands: Any) -> None:
    """Add `memory` to the command line."""
    parser = commands.add_parser(
        "memory", help="peak memory of one round of one way, as JSON (Linux)"
    )
    parser.add_argument("--method", default="bfv-8x16")
    parser.add_argument("--size", type=int, default=11_000_000)
    parser.add_argument("--clients", type=int, default=10)
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print the peaks of one round over the memory held before it: imports, keys, the update
    itself, its check."""
    bits = int(arguments.method.split("-")[1].split("x")[0]) if "-" in arguments.method else 8
    sizes = tensor_sizes(arguments.size)
    session = methods([bits])[arguments.method](sizes)
    session.open()
    update = np.random.default_rng(1).standard_normal(sum(sizes), np.float32)
    update *= np.float32(UPDATE_SCALE)
    gc.collect()
    clock = PeakClock()
    with stdout_kept() as stdout:
        up, down = run_round(session, (update for _ in range(arguments.clients)), clock)
        stages = {stage: peak - clock.baseline for stage, peak in clock.peaks.items()}
        peak = max(stages.values())
        result = {
            "update_bytes": up,
            "aggregate_bytes": down,
            "baseline": clock.baseline,
            "peak": peak,
            "peak_per_update": round(peak / up, 2),
            "stages": stages,
        }
        print(json.dumps(result), file=stdout)


def peak_memory(method: str, size: int, clients: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "memory", f"--method={method}", f"--size={size}"]
    done = subprocess.run(
        [*command, f"--clients={clients}"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


class PeakClock:
    """A clock that reads the largest resident memory of each stage, in bytes.

    `ru_maxrss` will not do: a child starts with its parent's, and it never falls. Linux resets
    VmHWM on request.
    """

    def __init__(self) -> None:
        self.baseline = _status("VmRSS")
        self.peaks: dict[str, int] = defaultdict(int)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Keep the block's peak if it is the stage's largest."""
        Path("/proc/self/clear_refs").write_text("5")
        yield
        self.peaks[stage] = max(self.peaks[stage], _status("VmHWM"))


@contextmanager
def stdout_kept() -> Iterator[Any]:
    """A file on the real standard output, while TenSEAL's warnings about long vectors go
    nowhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere, os.fdopen(kept, "w") as stdout:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield stdout
        finally:
            stdout.flush()
            os.dup2(kept, 1)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{field} is not in /proc/self/status: memory is measured on Linux only")

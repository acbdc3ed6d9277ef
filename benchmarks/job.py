"""Seconds and peak memory of whole runs, in fresh processes, the compared kinds taking turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hyperlock.metrics import Stage, total_seconds

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"CKKS": "encryption=ckks", "BFV": "encryption=bfv", "plaintext": "encryption=none"}
# The rows of the table; the step of the global model takes milliseconds in all, and has none.
STAGES = tuple(stage for stage in Stage if stage != Stage.STEP)


def add_command(commands: Any) -> None:
    """Add `job` to the command line."""
    parser = commands.add_parser(
        "job", help="the default job, encrypted and not, against importing TensorFlow"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "overrides", nargs="*", help="settings for both kinds, such as runtime.workers=2"
    )
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Run every kind `repeats` times in turn and print medians, with the smallest and largest in
    brackets."""
    samples: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    imports: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        Path(home, "data").symlink_to(ROOT / "data")
        run_once(home, ["debug=smoke", "tracking=mlflow"])  # the store, once; a first run pays it
        for repeat in range(arguments.repeats):
            imports.append(import_seconds())
            for kind, override in KINDS.items():
                samples[kind].append(run_once(home, [override, *arguments.overrides]))
            print(f"repeat {repeat + 1} of {arguments.repeats} done", file=sys.stderr)

    print(f"| seconds, median of {arguments.repeats} (min to max) | " + " | ".join(KINDS) + " |")
    print("| --- | " + "--- | " * len(KINDS))
    for row in ("whole", *STAGES, "peak_MB", "accuracy"):
        cells = [summary([sample[row] for sample in samples[kind]]) for kind in KINDS]
        print(f"| {row} | " + " | ".join(cells) + " |")
    print()
    for kind in ("CKKS", "BFV"):
        ratios = [
            a["whole"] / b["whole"]
            for a, b in zip(samples[kind], samples["plaintext"], strict=True)
        ]
        print(f"{kind} / plaintext, whole run: {summary(ratios)}")
    print(f"`import tensorflow` alone: {summary(imports)} s")


def run_once(home: str, overrides: list[str]) -> dict[str, float]:
    """One process of run.py: seconds as a whole and by stage, peak resident memory, accuracy."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *overrides],
        env={**environment, "HYPERLOCK_ROOT": home},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - start
    if status:
        raise SystemExit(f"run.py {' '.join(overrides)} failed")
    newest = max(
        Path(home, "outputs", "runs").rglob("metrics.json"), key=lambda file: file.stat().st_mtime
    )
    metrics = json.loads(newest.read_text())
    stages = {stage.value: metrics[total_seconds(stage)] for stage in STAGES}
    return {
        "whole": whole,
        **stages,
        "peak_MB": usage.ru_maxrss / 1000,
        "accuracy": metrics["accuracy"],
    }


def import_seconds() -> float:
    """Seconds of a process that only imports TensorFlow."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def summary(values: list[float]) -> str:
    """Median, smallest and largest."""
    digits = 0
    if max(values) < 1000:
        digits = 2
    if max(values) < 2:
        digits = 4
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"

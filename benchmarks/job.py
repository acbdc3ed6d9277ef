"""Seconds and peak memory of whole runs, in fresh processes, the compared kinds taking turns."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown
from hyperlock.metrics import Stage, total_seconds

ROOT = Path(__file__).resolve().parents[1]
NOTHING = "plaintext"
UNTRACKED = "CKKS, not tracked"
KINDS = {
    "CKKS": ("encryption=ckks",),
    "BFV": ("encryption=bfv",),
    NOTHING: ("encryption=none",),
    UNTRACKED: ("encryption=ckks", "tracking=none"),
}
# The rows of the table; the step of the global model takes milliseconds in all, and has none.
STAGES = tuple(stage for stage in Stage if stage != Stage.STEP)


def add_command(commands: Any) -> None:
    """Add `job` to the command line."""
    parser = commands.add_parser(
        "job", help="the default job, encrypted and not, against importing TensorFlow"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--against", metavar="COMMIT", help="compare the default run with that of a commit, only"
    )
    parser.add_argument(
        "overrides", nargs="*", help="settings for all kinds, such as runtime.workers=2"
    )
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Run every kind `repeats` times in turn and print medians, with the smallest and largest in
    brackets."""
    if arguments.against:
        compare(arguments.against, arguments.repeats, arguments.overrides)
        return
    samples: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    imports: list[float] = []
    with home() as folder:
        for repeat in range(arguments.repeats):
            imports.append(import_seconds())
            for kind, overrides in KINDS.items():
                samples[kind].append(run_once(folder, [*overrides, *arguments.overrides]))
            print(f"repeat {repeat + 1} of {arguments.repeats} done", file=sys.stderr)

    show(samples, ("whole", "cpu", *STAGES, "beside", "peak_MB", "accuracy"))
    for kind in ("CKKS", "BFV"):
        print(f"{kind} above plaintext: {differences(samples[kind], samples[NOTHING])}")
    print(f"tracking: {differences(samples['CKKS'], samples[UNTRACKED])}")
    print(f"`import tensorflow` alone: {summary(imports)} s")


def compare(commit: str, repeats: int, overrides: list[str]) -> None:
    """The default run of this tree and of a commit, in turn: seconds by the clock and of the
    processor, and their ratios.

    The figures of the two are what processes came to, whatever each of them measures itself.
    """
    samples: dict[str, list[dict[str, float]]] = {commit: [], "this tree": []}
    with checked_out(commit) as tree, home() as theirs, home() as ours:
        run_once(theirs, ["debug=smoke", "tracking=mlflow"], tree)
        for repeat in range(repeats):
            samples[commit].append(run_once(theirs, overrides, tree))
            samples["this tree"].append(run_once(ours, overrides))
            print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)

    show(samples, ("whole", "cpu", "peak_MB", "accuracy"))
    for row in ("whole", "cpu"):
        pairs = zip(samples["this tree"], samples[commit], strict=True)
        ratios = [ours[row] / theirs[row] for ours, theirs in pairs]
        print(f"this tree / {commit}, {row}: {summary(ratios)}")


@contextlib.contextmanager
def home() -> Iterator[str]:
    """A project's folder with the data and MLflow's store, for which the first run would pay."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").symlink_to(ROOT / "data")
        run_once(folder, ["debug=smoke", "tracking=mlflow"])
        yield folder


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The files of a commit, for as long as they are needed."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def show(samples: dict[str, list[dict[str, float]]], rows: tuple[str, ...]) -> None:
    """The table: a column a kind."""
    repeats = max(map(len, samples.values()))
    headings = (f"seconds, median of {repeats} (min to max)", *samples)
    lines = [
        [row, *(summary([sample[row] for sample in each]) for each in samples.values())]
        for row in rows
    ]
    print(markdown(headings, lines), end="\n\n")


def differences(more: list[dict[str, float]], less: list[dict[str, float]]) -> str:
    """What one kind takes beyond another, turn by turn; a ratio would get worse with a faster
    base."""
    turns = list(zip(more, less, strict=True))
    seconds = {row: summary([a[row] - b[row] for a, b in turns]) for row in ("whole", "cpu")}
    ratio = summary([a["whole"] / b["whole"] for a, b in turns])
    return f"{seconds['whole']} s, {seconds['cpu']} s of CPU, {ratio} times"


def run_once(folder: str, overrides: list[str], tree: Path = ROOT) -> dict[str, float]:
    """One process of run.py: seconds as a whole, of the processor and by stage, peak resident
    memory, accuracy; what a commit does not measure is left out."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    environment["PYTHONPATH"] = str(tree)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(tree / "run.py"), *overrides],
        env={**environment, "HYPERLOCK_ROOT": folder},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - start
    if status:
        raise SystemExit(f"{tree / 'run.py'} {' '.join(overrides)} failed")
    newest = max(
        Path(folder, "outputs", "runs").rglob("metrics.json"), key=lambda file: file.stat().st_mtime
    )
    metrics = json.loads(newest.read_text())
    names = {stage.value: total_seconds(stage) for stage in STAGES} | {"beside": "total/beside_s"}
    return {
        "whole": whole,
        "cpu": usage.ru_utime + usage.ru_stime,
        **{row: metrics[name] for row, name in names.items() if name in metrics},
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

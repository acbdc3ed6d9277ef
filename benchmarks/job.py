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
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import Samples, markdown, ratio
from hyperlock.metrics import Stage, total_seconds

ROOT = Path(__file__).resolve().parents[1]
NOTHING = "plaintext"
UNTRACKED = "CKKS, not tracked"
THIS = "this tree"
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
    samples: Samples = {kind: defaultdict(list) for kind in KINDS}
    imports: list[float] = []
    with home() as folder:
        for repeat in range(arguments.repeats):
            imports.append(import_seconds())
            for kind, overrides in KINDS.items():
                note(samples, kind, run_once(folder, [*overrides, *arguments.overrides]))
            print(f"repeat {repeat + 1} of {arguments.repeats} done", file=sys.stderr)

    show(samples, ("whole", "cpu", *STAGES, "beside", "peak_MB", "accuracy"))
    for kind in ("CKKS", "BFV"):
        print(f"{kind} above plaintext: {differences(samples, kind, NOTHING)}")
    print(f"tracking: {differences(samples, 'CKKS', UNTRACKED)}")
    print(f"`import tensorflow` alone: {summary(imports)} s")


def compare(commit: str, repeats: int, overrides: list[str]) -> None:
    """The default run of this tree and of a commit, in turn: seconds by the clock and of the
    processor, and their ratios.

    The figures of the two are what processes came to, whatever each of them measures itself.
    """
    samples: Samples = {name: defaultdict(list) for name in (commit, THIS)}
    with checked_out(commit) as tree, home(tree) as theirs, home() as ours:
        for repeat in range(repeats):
            note(samples, commit, run_once(theirs, overrides, tree))
            note(samples, THIS, run_once(ours, overrides))
            print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)

    show(samples, ("whole", "cpu", "peak_MB", "accuracy"))
    for row in ("whole", "cpu"):
        print(f"{THIS} / {commit}, {row}: {summary(ratio(samples, THIS, commit, row))}")


@contextlib.contextmanager
def home(tree: Path = ROOT) -> Iterator[str]:
    """A project's folder with the data and MLflow's store, for which the first run of a tree would
    pay."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").symlink_to(ROOT / "data")
        run_once(folder, ["debug=smoke", "tracking=mlflow"], tree)
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


def note(samples: Samples, name: str, figures: dict[str, float]) -> None:
    """Add what a run came to."""
    for row, value in figures.items():
        samples[name][row].append(value)


def show(samples: Samples, rows: tuple[str, ...]) -> None:
    """The table: a column a kind."""
    repeats = max(len(each["whole"]) for each in samples.values())
    headings = (f"seconds, median of {repeats} (min to max)", *samples)
    lines = [[row, *(summary(each[row]) for each in samples.values())] for row in rows]
    print(markdown(headings, lines), end="\n\n")


def differences(samples: Samples, more: str, less: str) -> str:
    """What one kind takes beyond another, turn by turn; a ratio would get worse with a faster
    base."""
    seconds = {}
    for row in ("whole", "cpu"):
        turns = zip(samples[more][row], samples[less][row], strict=True)
        seconds[row] = summary([a - b for a, b in turns])
    times = summary(ratio(samples, more, less, "whole"))
    return f"{seconds['whole']} s, {seconds['cpu']} s of CPU, {times} times"


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

"""Final accuracy by bits of the grid, for jobs of several kinds, against a grid too fine to
matter."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import ROOT
from benchmarks.paired import FEWEST, MOST, Interval, Verdict, interval, loss, verdict

REFERENCE = 24  # bits: float32's own precision
ALIKE = 0.2  # percentage points that may be lost where clients' data are alike
SKEWED = 1.0  # and where they are not, and accuracy varies the more from seed to seed

Measure = Callable[[Sequence[str]], float]  # the final accuracy that these overrides give
Sample = dict[int, list[float]]  # accuracies by bits, then by seed from 0


@dataclass(frozen=True)
class Job:
    """What is run with every number of bits.

    Attributes:
        overrides: what differs from the default job.
        limit: percentage points; a loss is small enough if its interval ends below.
    """

    overrides: tuple[str, ...] = ()
    limit: float = ALIKE


JOBS = {
    "default": Job(),
    "dirichlet": Job(("split=dirichlet", "split.alpha=0.1"), SKEWED),
    "shards": Job(("split=shards",), SKEWED),
    # At the default rate, accuracy still swings from round to round when the job ends.
    "fedsgd": Job(
        (
            "federation=fedsgd",
            "federation.learning_rate=0.2",
            "federation.rounds=40",
            "dataset.train_samples=20000",
        )
    ),
    "fedadam": Job(("federation=fedadam",)),
    "2nn": Job(("model=2nn", "federation.rounds=5")),
    # As many samples and rounds as one minute trains.
    "cnn": Job(("model=cnn", "federation.rounds=3", "dataset.train_samples=10000")),
}


def add_command(commands: Any) -> None:
    """Add `precision` to the command line."""
    parser = commands.add_parser(
        "precision",
        help="accuracy by encryption.value_bits, over seeds, for jobs of several kinds",
        description=f"Jobs: {', '.join(JOBS)}. Each seed is run with every number of bits and "
        f"with {REFERENCE}; what is measured already is read from --out, so a measurement that "
        "was interrupted goes on. Delete that file after a change to training or rounding.",
    )
    parser.add_argument("--jobs", type=_jobs, default=list(JOBS), help="by comma; all by default")
    parser.add_argument("--seeds", type=_seeds, default=5)
    parser.add_argument(
        "--most-seeds", type=_seeds, default=10, help="so many, where --seeds do not decide"
    )
    parser.add_argument("--value-bits", type=int, nargs="+", default=[4, 5, 6, 8, 12, REFERENCE])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "precision.json"
    )
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Run all that the file lacks, and print a table a job and one of all."""
    bits = sorted({*arguments.value_bits} - {REFERENCE})
    known = Accuracies(arguments.out, final_accuracy)
    samples: dict[str, Sample] = {}
    for name in arguments.jobs:
        samples[name] = gather(JOBS[name], bits, arguments.seeds, arguments.most_seeds, known.of)
        print(f"\n{name}: {' '.join(JOBS[name].overrides) or 'as it is'}\n")
        print("\n".join(table(samples[name], JOBS[name].limit)), flush=True)
    print()
    print("\n".join(overview(samples, bits)))


class Accuracies:
    """Accuracies by overrides, kept in a file from the moment each is measured."""

    def __init__(self, file: Path, measure: Measure) -> None:
        self._file = file
        self._measure = measure
        self._known: dict[str, float] = {}
        if file.exists():
            self._known = json.loads(file.read_text())

    def of(self, overrides: Sequence[str]) -> float:
        """What the file says, or else what is measured now."""
        key = " ".join(overrides)
        if key not in self._known:
            self._known[key] = self._measure(overrides)
            self._keep()
        return self._known[key]

    def _keep(self) -> None:
        """Write the file anew, so that whoever ends the process leaves the old one or the new."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".part")
        beside.write_text(json.dumps(self._known, indent=1))
        beside.replace(self._file)


def gather(job: Job, bits: Sequence[int], first: int, most: int, accuracy: Measure) -> Sample:
    """Accuracies of a job over `first` seeds, and over `most` for those bits whose loss is still
    undecided then."""
    sample: Sample = {count: [] for count in (*bits, REFERENCE)}

    def run(seeds: Iterable[int], counts: Sequence[int]) -> None:
        for seed in seeds:
            for count in counts:
                grid = f"encryption.value_bits={count}"
                sample[count].append(accuracy([*job.overrides, grid, f"seed={seed}"]))

    # Seed by seed, so that what an interrupted measurement leaves is whole seeds.
    run(range(first), [*bits, REFERENCE])

    # More seeds for those that these do not decide.
    verdicts = {count: verdict(loss(sample[REFERENCE], sample[count]), job.limit) for count in bits}
    undecided = [count for count in bits if verdicts[count] == Verdict.OPEN]
    if undecided:
        run(range(first, most), [*undecided, REFERENCE])
    return sample


def smallest(sample: Sample, limit: float) -> int | None:
    """The smallest number of bits whose loss is under the limit, if any is."""
    passing = (
        bits
        for bits in sorted(sample)
        if bits != REFERENCE
        and verdict(loss(sample[REFERENCE], sample[bits]), limit) == Verdict.UNDER
    )
    return next(passing, None)


def table(sample: Sample, limit: float) -> list[str]:
    """A job's lines, one a number of bits, and what follows from them."""
    lines = [
        f"| bits | seeds | accuracy, % | loss against {REFERENCE} bits, points | under {limit} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for bits in sorted(sample):
        mean = interval([100 * accuracy for accuracy in sample[bits]])
        cells = [str(bits), str(len(sample[bits])), f"{mean.mean:.2f} ± {mean.reach:.2f}", "", ""]
        if bits != REFERENCE:
            lost = loss(sample[REFERENCE], sample[bits])
            cells[3:] = [_shown(lost), verdict(lost, limit)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"smallest that passes: {smallest(sample, limit) or 'none'}"]


def overview(samples: dict[str, Sample], bits: Sequence[int]) -> list[str]:
    """A line a job: its losses by bits, bold where they are not under its limit."""
    heads = ["points lost (95% interval)", "limit", *(f"{count} bits" for count in bits)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, sample in samples.items():
        limit = JOBS[name].limit
        cells = [name, str(limit)]
        for count in bits:
            lost = loss(sample[REFERENCE], sample[count])
            passes = verdict(lost, limit) == Verdict.UNDER
            cells.append(_shown(lost) if passes else f"**{_shown(lost)}**")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def final_accuracy(overrides: Sequence[str]) -> float:
    """Run a job in this process, with nothing kept of it."""
    import hyperlock  # here, for the command's help does not need it

    logging.getLogger("hyperlock").setLevel(logging.ERROR)  # it warns that nothing is encrypted
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as outputs,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        # The plaintext baseline gives the accuracy of every scheme, bit for bit
        # (tests/test_parity.py). The last round is always evaluated, and no other needs to be.
        report = hyperlock.run(
            "encryption=none",
            "tracking=none",
            "checkpoint_every=0",
            "federation.evaluate_every=1000000",
            f"paths.outputs={outputs}",
            *overrides,
        )
    seconds = time.perf_counter() - start
    print(f"{report.accuracy:.4f} {seconds:5.1f} s {' '.join(overrides)}", file=sys.stderr)
    return report.accuracy


def _shown(lost: Interval) -> str:
    """A loss in percentage points, with its interval."""
    return f"{lost.mean:z.2f} ({lost.low:z.2f} to {lost.high:z.2f})"


def _jobs(text: str) -> list[str]:
    """Names of jobs, from the command line."""
    names = text.split(",")
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no job {', '.join(unknown)}; there are {', '.join(JOBS)}"
        )
    return names


def _seeds(text: str) -> int:
    """So many seeds as an interval takes, from the command line."""
    if not text.isdecimal() or not FEWEST <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: {FEWEST} to {MOST} seeds")
    return int(text)

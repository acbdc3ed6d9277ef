"""`python -m benchmarks precision`: the arithmetic of its tables, and that it goes on where it
stopped."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import precision
from benchmarks.paired import MOST, Interval, Verdict, interval, loss, verdict
from benchmarks.precision import JOBS, REFERENCE, SKEWED, Accuracies, Job, gather, smallest
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import read


def test_an_interval_is_students() -> None:
    five = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five.mean == 3
    assert five.reach == pytest.approx(2.776 * (2.5 / 5) ** 0.5)
    assert (five.low, five.high) == pytest.approx((1.037, 4.963), abs=1e-3)


@pytest.mark.parametrize("count", range(2, MOST + 1))
def test_quantiles_are_those_of_scipy(count: int) -> None:
    values = [float(value) for value in range(count)]
    low, high = stats.t.interval(0.95, count - 1, stats.tmean(values), stats.sem(values))
    ours = interval(values)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("count", [0, 1, MOST + 1])
def test_an_interval_needs_values_and_a_quantile(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} values"):
        interval([0.5] * count)


def test_a_loss_is_paired_by_seed() -> None:
    """Seeds that differ by far more than the grids do leave its interval as narrow."""
    lost = loss([0.9, 0.5, 0.7], [0.899, 0.498, 0.697])
    assert lost.mean == pytest.approx(0.2)  # accuracy lost, in points
    assert lost.reach == pytest.approx(4.303 * 0.1 / 3**0.5)


def test_a_loss_leaves_out_seeds_that_only_the_reference_has() -> None:
    assert loss([0.9, 0.5, 0.7], [0.89, 0.49]) == loss([0.9, 0.5], [0.89, 0.49])
    with pytest.raises(ValueError, match="lacks seeds"):
        loss([0.9], [0.8, 0.7])


@pytest.mark.parametrize(
    ("mean", "reach", "said"),
    [
        (-0.5, 0.125, Verdict.UNDER),
        (0.125, 0.0625, Verdict.UNDER),
        (0.125, 0.125, Verdict.OPEN),  # its end is at the limit, and not under it
        (0.375, 0.25, Verdict.OPEN),
        (0.375, 0.125, Verdict.OVER),
    ],
)
def test_a_verdict_looks_at_the_ends_of_the_interval(
    mean: float, reach: float, said: Verdict
) -> None:
    assert verdict(Interval(mean, reach), 0.25) == said


def accuracy(overrides: Sequence[str]) -> float:
    """4 bits lose much, 5 perhaps too much, 6 nothing; every seed has an accuracy of its own."""
    given = dict(text.split("=") for text in overrides)
    bits = int(given["encryption.value_bits"])
    seed = int(given["seed"])
    lost = {4: 0.05, 5: 0.002 + 0.002 * (seed % 2)}.get(bits, 0.0)
    return 0.5 + seed / 100 - lost


def test_more_seeds_are_run_where_the_first_do_not_decide() -> None:
    sample = gather(Job(limit=0.3), [4, 5, 6], 3, 5, accuracy)
    assert {bits: len(values) for bits, values in sample.items()} == {4: 3, 5: 5, 6: 3, 24: 5}
    assert sample[REFERENCE] == pytest.approx([0.50, 0.51, 0.52, 0.53, 0.54])


def test_no_more_seeds_are_run_where_the_first_decide() -> None:
    sample = gather(Job(limit=0.3), [4, 6], 3, 5, accuracy)
    assert {len(values) for values in sample.values()} == {3}


def test_the_smallest_number_of_bits_that_passes() -> None:
    sample = gather(Job(), [4, 5, 6, 8], 3, 3, accuracy)
    assert smallest(sample, 0.2) == 6
    assert smallest(sample, SKEWED) == 5
    assert smallest(sample, 0.0) is None


def test_the_table_says_what_was_lost_and_whether_that_passes() -> None:
    sample = {4: [0.90, 0.88], 8: [0.97, 0.95], REFERENCE: [0.97, 0.95]}
    lines = precision.table(sample, 0.2)
    assert lines[2:] == [
        "| 4 | 2 | 89.00 ± 12.71 | 7.00 (7.00 to 7.00) | no |",
        "| 8 | 2 | 96.00 ± 12.71 | 0.00 (0.00 to 0.00) | yes |",
        "| 24 | 2 | 96.00 ± 12.71 |  |  |",
        "",
        "smallest that passes: 8",
    ]
    assert precision.overview({"default": sample}, [4, 8])[2:] == [
        "| default | 0.2 | **7.00 (7.00 to 7.00)** | 0.00 (0.00 to 0.00) |"
    ]


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks" / "precision.json"
    asked: list[str] = []

    def stopping(overrides: Sequence[str]) -> float:
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(" ".join(overrides))
        return accuracy(overrides)

    with pytest.raises(KeyboardInterrupt):
        gather(Job(("a=1",)), [4, 6], 3, 3, Accuracies(file, stopping).of)
    assert list(json.loads(file.read_text())) == asked
    assert asked[-1] == "a=1 encryption.value_bits=6 seed=1"

    rest: list[str] = []

    def counting(overrides: Sequence[str]) -> float:
        rest.append(" ".join(overrides))
        return accuracy(overrides)

    sample = gather(Job(("a=1",)), [4, 6], 3, 3, Accuracies(file, counting).of)
    assert len(rest) == 4 and not set(rest) & set(asked)
    assert sample == gather(Job(), [4, 6], 3, 3, accuracy)


def test_a_job_is_known_by_its_overrides_and_not_by_its_name(tmp_path: Path) -> None:
    """A job that is changed is measured anew."""
    known = Accuracies(tmp_path / "known.json", accuracy)
    gather(Job(("a=1",)), [4], 2, 2, known.of)
    gather(Job(("a=2",)), [4], 2, 2, known.of)
    assert len(json.loads((tmp_path / "known.json").read_text())) == 8


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_jobs_can_be_run_with_the_fewest_bits(job: Job) -> None:
    composed, _ = compose(
        ["encryption=none", "tracking=none", *job.overrides, "encryption.value_bits=4"]
    )
    assert read(composed, []).config.encryption.value_bits == 4


def test_jobs_and_seeds_are_checked_before_anything_is_run() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    precision.add_command(parser.add_subparsers())
    parsed = parser.parse_args(["precision", "--jobs", "cnn,default", "--seeds", "10"])
    assert (parsed.jobs, parsed.seeds) == (["cnn", "default"], 10)
    for wrong in (["--jobs", "default,mnist"], ["--seeds", "1"], ["--most-seeds", "many"]):
        with pytest.raises(SystemExit):
            parser.parse_args(["precision", *wrong])

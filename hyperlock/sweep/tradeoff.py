"""Accuracy against epsilon, over the trials of a sweep: a front, with intervals where trials differ
by their seeds alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from hyperlock.privacy import account
from hyperlock.sweep.trials import FINISHED, Trial
from hyperlock.tracking import style

_SEED = "seed"  # the parameter by which trials are repetitions


@dataclass(frozen=True)
class Point:
    """Trials that differ by their seeds alone.

    Attributes:
        accuracies: on the test set, of each.
        known: mean epsilon, for who knows who took part; None without privacy.
        hidden: for who does not.
    """

    accuracies: tuple[float, ...]
    known: float | None = None
    hidden: float | None = None


@dataclass(frozen=True)
class Tradeoff:
    """What there is to draw.

    Attributes:
        unit: whose presence is hidden.
        delta: of all epsilons.
        private: by epsilon, the smallest first.
        plain: without privacy.
    """

    unit: str
    delta: float
    private: tuple[Point, ...]
    plain: tuple[Point, ...]


def tradeoff(rows: Sequence[Trial], runs: Sequence[Any]) -> Tradeoff | None:
    """What there is to draw of a sweep; None if fewer than two epsilons at one delta are.

    Args:
        rows: the trials.
        runs: of the trials, as MLflow has them.
    """
    settings = {row.number: row.params for row in rows if row.state == FINISHED}
    groups: dict[str, list[Any]] = {}
    kinds = set()
    for run in runs:
        number = int(run.data.tags["trial"])
        if number in settings and "accuracy" in run.data.metrics:
            groups.setdefault(_but_for_seed(settings[number]), []).append(run)
            if text := run.data.tags.get(account.TAG):
                promised = account.read(text)
                kinds.add((promised.unit, promised.delta))
    points = [_point(group) for group in groups.values()]
    private = sorted(
        (point for point in points if point.known is not None), key=lambda point: point.known or 0
    )
    if len(kinds) != 1 or len({point.known for point in private}) < 2:
        return None
    [(unit, delta)] = kinds
    plain = tuple(point for point in points if point.known is None)
    return Tradeoff(unit, delta, tuple(private), plain)


def tradeoff_figure(found: Tradeoff, title: str) -> Any:
    """Mean accuracy, from the lowest to the highest of the seeds, against each of both epsilons;
    what there is without privacy as a line across."""
    figure, [axes] = style.panels(f"{title}: accuracy against epsilon", height=4.4)
    known = [point.known for point in found.private]
    hidden = [point.hidden for point in found.private]
    curves = [(known, style.BLUE, "who took part is known")]
    if hidden != known:
        curves.append((hidden, style.ORANGE, "who took part is hidden"))
    for epsilons, colour, label in curves:
        middles, reaches = _intervals(found.private)
        axes.errorbar(
            epsilons, middles, yerr=reaches, color=colour, marker="o", capsize=4, label=label
        )
    for point in found.plain:
        middle = mean(point.accuracies)
        axes.axhspan(min(point.accuracies), max(point.accuracies), color=style.PALE, alpha=0.4)
        axes.axhline(middle, color=style.GREY, linestyle="--", label="without privacy")

    # What is drawn, in words.
    most = max(len(point.accuracies) for point in found.private)
    bars = f", mean and range of {most} seeds" if most > 1 else ""
    style.epsilon_axis(axes, found.unit, found.delta)
    axes.set(ylabel=f"test accuracy{bars}")
    axes.margins(x=0.08, y=0.15)
    axes.grid(alpha=0.3)
    if len(curves) > 1 or found.plain:
        axes.legend(frameon=False, loc="lower right")
    return figure


def _intervals(points: Sequence[Point]) -> tuple[list[float], list[list[float]]]:
    """Means, and how far below and above them the values reach."""
    middles = [mean(point.accuracies) for point in points]
    pairs = list(zip(points, middles, strict=True))
    below = [middle - min(point.accuracies) for point, middle in pairs]
    above = [max(point.accuracies) - middle for point, middle in pairs]
    return middles, [below, above]


def _point(runs: Sequence[Any]) -> Point:
    metrics = [run.data.metrics for run in runs]
    accuracies = tuple(each["accuracy"] for each in metrics)
    if not all("privacy/epsilon" in each for each in metrics):
        return Point(accuracies)
    known = mean(each["privacy/epsilon"] for each in metrics)
    hidden = mean(each["privacy/epsilon_hidden"] for each in metrics)
    return Point(accuracies, known, hidden)


def _but_for_seed(params: Mapping[str, Any]) -> str:
    return repr(sorted((key, str(value)) for key, value in params.items() if key != _SEED))

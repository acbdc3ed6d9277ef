"""Membership inference: whether the model tells the samples that it was trained on from others.

Two attacks that need the model and samples to ask about, and nothing else. One calls a sample a
member if its loss is low (Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, section 3.2).
The other, if it is low for its class, since some classes are easy for every model (Song and Mittal,
"Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security 2021, section
3.2). As many held-out samples as members are asked about, so that whoever guesses has an area of
0.5 under the curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlock.audit.past import Past
from hyperlock.audit.replay import took_part
from hyperlock.data.datasets import Pair
from hyperlock.errors import HyperLockError
from hyperlock.randomness import generator

WORST_CASE = (
    "Whose worst case: whoever has the model after the last round, and with it samples to ask "
    "about. An attacker who trains models of the same kind to compare with sees more."
)
LOSS = "a low loss"
PER_CLASS = "a low loss for its class"
MOST = 10_000  # samples of either kind
FALSE_ALARMS = 0.01
_RESAMPLES = 1000
_CONFIDENCE = 0.95
_GRID = np.concatenate([np.logspace(-4, -2, 41), np.linspace(0.01, 1, 199)[1:]])


@dataclass(frozen=True)
class Interval:
    """An estimate, and where a resampled one is with 95%."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Curve:
    """How an attack does (receiver operating characteristic).

    Attributes:
        area: under it; 0.5 is chance.
        few: members found while one in a hundred of the others is called one.
        false: float64[k], rates of false alarms.
        true: float64[k], the rate of members found at each.
        band: float64[2, k], where resampled rates are with 95%, each by itself.
    """

    area: Interval
    few: Interval
    false: NDArray[np.float64]
    true: NDArray[np.float64]
    band: NDArray[np.float64]


@dataclass(frozen=True)
class Membership:
    """What the attacks find.

    Attributes:
        curves: by attack, in words.
        samples: of either kind.
        cut_off: how many of the held-out ones `dataset.train_samples` cut off; the others are of
            the test set.
    """

    curves: Mapping[str, Curve]
    samples: int
    cut_off: int

    @property
    def words(self) -> str:
        """Who was asked about."""
        tests = self.samples - self.cut_off
        parts = {"cut off the training set": self.cut_off, "of the test set": tests}
        held_out = " and ".join(f"{count:,} {part}" for part, count in parts.items() if count)
        easier = ", which may be easier or harder by themselves" if tests else ""
        return (
            f"{self.samples:,} training samples of clients that took part, and as many held out: "
            f"{held_out}{easier}"
        )


def infer(past: Past) -> Membership:
    """Attack the model of the checkpoint.

    Raises:
        HyperLockError: nothing was held out.
    """
    members = _members(past)
    others, cut_off = _others(past, len(members[1]))
    samples = len(others[1])
    if samples == 0:
        raise HyperLockError(
            "no sample was held out, by which members could be told\n"
            "  try: a run with dataset.train_samples below what there are"
        )
    rng = generator(past.config.seed, "audit/membership")
    members = _some(members, samples, rng)
    x, y = (np.concatenate(each) for each in zip(members, others, strict=True))
    losses = past.network.losses(past.last.weights, x, y).astype(np.float64)
    curves = {
        attack: curve(scores[:samples], scores[samples:], rng)
        for attack, scores in _scores(losses, y).items()
    }
    return Membership(curves, samples, cut_off)


def curve(
    members: NDArray[np.floating], others: NDArray[np.floating], rng: np.random.Generator
) -> Curve:
    """How well scores, float[m] and float[n], tell members from others: higher ones if it works.

    Intervals are percentiles of samples drawn anew from both (Efron, 1979).
    """
    # Equal scores are told apart by nobody: rates are counted after all of one.
    _, order = np.unique(-np.concatenate([members, others]), return_inverse=True)
    mine, theirs = order[: len(members)], order[len(members) :]
    steps = int(order.max()) + 1
    area, true = _rates(mine, theirs, steps)
    few = _at(true, _GRID, FALSE_ALARMS)

    areas = np.empty(_RESAMPLES)
    trues = np.empty((_RESAMPLES, _GRID.size))
    for i in range(_RESAMPLES):
        some = mine[rng.integers(mine.size, size=mine.size)]
        others_again = theirs[rng.integers(theirs.size, size=theirs.size)]
        areas[i], trues[i] = _rates(some, others_again, steps)
    edges = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    band = np.quantile(trues, edges, axis=0)
    return Curve(
        area=Interval(area, *map(float, np.quantile(areas, edges))),
        few=Interval(few, *(_at(edge, _GRID, FALSE_ALARMS) for edge in band)),
        false=_GRID,
        true=true,
        band=band,
    )


def _rates(
    members: NDArray[np.integer], others: NDArray[np.integer], steps: int
) -> tuple[float, NDArray[np.float64]]:
    """The area under the curve, and the rate of members found at each rate of false alarms."""
    found = np.cumsum(np.bincount(members, minlength=steps)) / members.size
    alarms = np.cumsum(np.bincount(others, minlength=steps)) / others.size
    found = np.concatenate([[0.0], found])
    alarms = np.concatenate([[0.0], alarms])
    area = float(np.sum(np.diff(alarms) * (found[1:] + found[:-1])) / 2)
    return area, found[np.searchsorted(alarms, _GRID + 1e-12, side="right") - 1]


def _at(true: NDArray[np.float64], false: NDArray[np.float64], rate: float) -> float:
    return float(true[np.searchsorted(false, rate + 1e-12, side="right") - 1])


def _members(past: Past) -> Pair:
    """All training samples of clients whose update was in a sum."""
    used = np.concatenate([past.parts[client] for client in took_part(past)])
    return past.dataset.x_train[used], past.dataset.y_train[used]


def _others(past: Past, members: int) -> tuple[Pair, int]:
    """As many held-out samples as there are members, at most, and how many of them are no test
    samples: those that were cut off come first, since they were drawn as members were."""
    rng = generator(past.config.seed, "audit/held out")
    most = min(members, MOST)
    cut_off = _some(past.cut_off, most, rng)
    tests = _some(past.tests, most - len(cut_off[1]), rng)
    both = tuple(np.concatenate(each) for each in zip(cut_off, tests, strict=True))
    return (both[0], both[1]), len(cut_off[1])


def _some(pair: Pair, count: int, rng: np.random.Generator) -> Pair:
    chosen = rng.permutation(len(pair[1]))[:count]
    return pair[0][chosen], pair[1][chosen]


def _scores(losses: NDArray[np.float64], labels: NDArray[np.int32]) -> dict[str, NDArray]:
    """Of every sample, by attack: float64[samples], higher where it looks more like a member."""
    counts = np.bincount(labels)
    usual = np.bincount(labels, losses) / np.maximum(counts, 1)
    return {LOSS: -losses, PER_CLASS: usual[labels] - losses}

"""Means with 95% intervals of a few measurements, and of differences paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Student's t, 97.5% quantile, by degrees of freedom from 1: so many standard errors reach from the
# mean to either end of its 95% interval.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
FEWEST = 2
MOST = len(_T) + 1


@dataclass(frozen=True)
class Interval:
    """A mean, and how far its 95% interval reaches to either side."""

    mean: float
    reach: float

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.reach

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.reach


class Verdict(StrEnum):
    """What a loss's interval says about a limit."""

    UNDER = "yes"  # all of the interval is under it
    OVER = "no"  # none of it is
    OPEN = "undecided"


def interval(values: Sequence[float]) -> Interval:
    """The mean of FEWEST to MOST independent values, with Student's 95% interval."""
    if not FEWEST <= len(values) <= MOST:
        raise ValueError(f"{len(values)} values: an interval takes {FEWEST} to {MOST}")
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.mean(values), _T[len(values) - 2] * error)


def loss(reference: Sequence[float], accuracies: Sequence[float]) -> Interval:
    """How many percentage points the accuracies lie below the reference's, seed by seed.

    Args:
        reference: by seed; it may have more seeds than there are accuracies, never fewer.
        accuracies: by seed.
    """
    if len(reference) < len(accuracies):
        raise ValueError("the reference lacks seeds")
    paired = zip(reference, accuracies, strict=False)  # the reference's other seeds have no partner
    return interval([100 * (fine - coarse) for fine, coarse in paired])


def verdict(lost: Interval, limit: float) -> Verdict:
    """Whether a loss is under a limit."""
    if lost.high < limit:
        return Verdict.UNDER
    return Verdict.OVER if lost.low >= limit else Verdict.OPEN

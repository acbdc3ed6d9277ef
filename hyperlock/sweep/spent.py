"""What a sweep's trials have spent together: all of them learned from the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyperlock.privacy import account
from hyperlock.privacy.account import Account

_RELEASES = "privacy/participations"
# Runs that say so themselves have written all that they released before they did.
_TOLD = ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Spent:
    """What it came to.

    Attributes:
        epsilon: of all trials in a row, for who knows who took part; None where nothing is promised
            of them.
        line: the same for a person, and for whom.
    """

    epsilon: float | None
    line: str


def composed(runs: Sequence[Any], best: Sequence[int]) -> Spent | None:
    """What the trials have cost, finished, failed and cut off; None if none was private.

    Args:
        runs: of all trials, as MLflow has them.
        best: the numbers of the trials that no other beats.
    """
    private = [run for run in runs if account.TAG in run.data.tags]
    if not private:
        return None
    ledgers = {
        int(run.data.tags["trial"]): (account.read(run.data.tags[account.TAG]), _releases(run))
        for run in private
    }
    accounts = [one for one, _ in ledgers.values()]
    # A trial that did not come so far as to say what it promises has released nothing.
    open_ones = sum(run.data.tags.get("privacy") == "none" for run in runs)
    units = sorted({one.unit for one in accounts})
    if len(units) > 1:
        line = f"nothing is promised of all trials together: units differ ({', '.join(units)})"
        return Spent(None, line)

    # All in a row, and the best one as if it had been the only one.
    delta = account.least_delta(accounts)
    epsilon = account.together(list(ledgers.values()), delta)
    alone = [account.together([ledgers[number]], delta) for number in best if number in ledgers]
    line = (
        f"{len(private)} trials on the same data: together epsilon {epsilon:.3g} at delta "
        f"{delta:g} of one {units[0]}{_alone(alone)}"
    )
    if open_ones:
        more = f"{open_ones} trial{'s' * (open_ones > 1)} had no privacy"
        return Spent(None, f"nothing is promised any more, since {more}; but for that, {line}")
    return Spent(epsilon, line)


def _releases(run: Any) -> int:
    """Releases that one member of the data was in, at most."""
    told = int(run.data.metrics.get(_RELEASES, 0))
    if run.info.status in _TOLD:
        return told
    # Of a process that was killed the last lines may be missing.
    promised: Account = account.read(run.data.tags[account.TAG])
    return max(told, promised.planned)


def _alone(epsilons: Sequence[float]) -> str:
    if not epsilons:
        return ""
    low, high = min(epsilons), max(epsilons)
    if len(epsilons) == 1:
        return f" (the best alone: {low:.3g})"
    return f" (the best alone: {low:.3g} to {high:.3g})"

"""What a run's record says of its privacy, so that whoever reads it can count on: the trials of a
sweep have all spent on the same data.

    >>> first = Account("client", 1e-5, planned=5, release=Spent(1, noise=1.0))
    >>> read(first.text()) == first
    True
    >>> round(together([(first, 2), (first, 3)]), 2)  # two runs, of two and of three releases
    11.48
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hyperlock.privacy.accounting import Spent, epsilons
from hyperlock.privacy.closeness import Shares

TAG = "privacy.account"  # where a record has an `Account`, as text


@dataclass(frozen=True)
class Account:
    """What a run promised, and what each of its releases costs.

    Attributes:
        unit: whose presence is hidden, a client's or a sample's.
        delta: of the whole run.
        planned: releases that one member was to be in, at most.
        release: one of them, for who knows who took part.
    """

    unit: str
    delta: float
    planned: int
    release: Spent

    def text(self) -> str:
        """As a record keeps it."""
        release = self.release
        return json.dumps(
            {
                "unit": self.unit,
                "delta": self.delta,
                "planned": self.planned,
                "noise": release.noise,
                "record_rate": release.record_rate,
                "shares": None if release.shares is None else asdict(release.shares),
            }
        )


def read(text: str) -> Account:
    """What `Account.text` gave."""
    found: dict[str, Any] = json.loads(text)
    shares = found["shares"]
    release = Spent(
        round=1,
        noise=found["noise"],
        record_rate=found["record_rate"],
        shares=None if shares is None else Shares(**shares),
    )
    return Account(found["unit"], found["delta"], found["planned"], release)


def together(runs: Sequence[tuple[Account, int]], delta: float | None = None) -> float:
    """Epsilon of several runs on the same data, for who knows who took part: all their ledgers in a
    row.

    Args:
        runs: each with the releases of it that its busiest member was in, who is taken to be the
            same in all.
        delta: of the whole; None for the smallest of the runs', which each of them may have.
    """
    ledger = [
        replace(account.release, round=number)
        for account, times in runs
        for number in range(1, times + 1)
    ]
    if delta is None:
        delta = least_delta([account for account, _ in runs])
    return epsilons(ledger, delta).known


def least_delta(accounts: Sequence[Account]) -> float:
    """The smallest of several runs', which is small enough for each."""
    return min(account.delta for account in accounts)

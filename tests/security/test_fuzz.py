"""The fuzz run: nothing but refusals and good form comes out of it, and no crash, no hang, no
memory."""

from __future__ import annotations

import pytest

from tests.security.fuzz import fuzz, table
from tests.security.mutations import MUTATIONS
from tests.security.stages import ACCEPTED, BEFORE, NOT_RELEASED, OUTCOMES

GROWTH = 64 * 1024  # kilobytes
NOT_SIGNED = {"garbage", "garbage in an envelope", "cut", "damaged"}


@pytest.mark.parametrize(
    "inputs", [1500, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_every_input_is_refused_or_of_good_form(inputs: int) -> None:
    found, cost = fuzz(inputs, seed=inputs)
    print("\n".join([*table(found, 0), "", *table(found, 1)]))
    assert found.total() == inputs
    assert {outcome for _, _, outcome in found} <= {*OUTCOMES}
    assert {name for name, _, _ in found} == {*MUTATIONS}
    assert cost["kilobytes"] - cost["at first"] < GROWTH
    by_outcome = {
        outcome: sum(n for key, n in found.items() if key[2] == outcome) for outcome in OUTCOMES
    }
    # Deep enough to be decrypted, and to be taken; and most of it stopped before.
    assert by_outcome[NOT_RELEASED] > inputs / 100 and by_outcome[ACCEPTED] > inputs / 50
    assert by_outcome[BEFORE] > inputs / 2
    assert {outcome for name, _, outcome in found if name in NOT_SIGNED} == {BEFORE}

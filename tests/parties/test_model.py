"""The global model's ranges: they follow the sum, by a step a round at most, and clients can tell
ranges that did not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.totals import Totals
from hyperlock.learning.optimizers import Sgd
from hyperlock.parties.model import RANGE_STEP, GlobalModel, ModelKeeper, ranges_follow
from tests.parties.cast import Cast

SIZES = (3, 2)
RANGES = st.floats(2**-20, 2**20, width=32)


def model(*ranges: float, factor: float = 4.0) -> GlobalModel:
    grid = Grid(SIZES, ranges, 8)
    return GlobalModel(np.zeros(5, np.float32), grid, Sgd(1.0), 10.0, factor)


def stepped(start: GlobalModel, largest: int, saturated: int = 0) -> tuple[float, ...]:
    """The ranges after a round of one update whose coordinates are all this."""
    totals = Totals(1, 10, 1.0, saturated)
    return start.step(totals, np.full(5, largest)).grid.ranges


@given(
    first=RANGES,
    second=RANGES,
    rounds=st.lists(st.integers(-127, 127), min_size=1, max_size=4),
    factor=st.floats(1e-3, 1e3),
    saturated=st.integers(0, 5),
)
def test_ranges_that_a_model_came_to_follow(
    first: float, second: float, rounds: list[int], factor: float, saturated: int
) -> None:
    """Whatever the sums: no client refuses an honest server."""
    start = model(first, second, factor=factor)
    after = start
    for largest in rounds:
        after = after.step(Totals(1, 10, 1.0, saturated), np.full(5, largest))
        for was, now in zip(start.grid.ranges, after.grid.ranges, strict=True):
            assert now == np.float32(now) and now > 0 and was > 0
    assert ranges_follow(after.grid.ranges, start.grid.ranges, len(rounds))
    assert ranges_follow(start.grid.ranges, after.grid.ranges, len(rounds))


@pytest.mark.parametrize(
    ("factor", "largest", "due"),
    [(4.0, 127, 4.0), (4.0, 0, 1 / RANGE_STEP), (1e4, 127, RANGE_STEP), (1e-4, 127, 1 / 16)],
)
def test_a_range_moves_by_no_more_than_a_step(factor: float, largest: int, due: float) -> None:
    assert stepped(model(0.5, 2.0, factor=factor), largest) == pytest.approx((0.5 * due, 2 * due))


def test_a_range_that_was_too_small_grows() -> None:
    """Where many coordinates fell outside it, by twice at least."""
    assert stepped(model(0.5, 2.0), 8, saturated=5) == pytest.approx((1.0, 4.0))
    assert stepped(model(0.5, 2.0), 8) == pytest.approx((0.5 * 32 / 127, 2 * 32 / 127))


@given(old=RANGES, factor=st.floats(1e-9, 1e9), rounds=st.integers(0, 5))
def test_no_more_than_a_step_a_round_is_believed(old: float, factor: float, rounds: int) -> None:
    most = RANGE_STEP**rounds
    found = ranges_follow((old, old * factor), (old, old), rounds)
    if factor > most * 1.001 or factor < 1 / (most * 1.001):
        assert not found
    if 1 / most <= factor <= most:
        assert found


@pytest.mark.parametrize("rounds", [70, 10**4, 2**63])
def test_after_many_rounds_every_float32_is_believed(rounds: int) -> None:
    ends = tuple(map(float, (np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max)))
    assert ranges_follow(ends, ends[::-1], rounds)


def test_weights_and_ranges_have_a_digest_and_the_rest_does_not_change_it() -> None:
    first = model(0.5, 2.0)
    assert len(first.digest) == 32 and first.digest == model(0.5, 2.0).digest
    assert first.digest == model(0.5, 2.0, factor=9.0).digest
    other_weights = replace(first, weights=np.arange(5, dtype=np.float32))
    assert len({first.digest, other_weights.digest, model(0.5, 1.0).digest}) == 3


def test_several_who_share_a_model_step_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation's clients, on threads, are given the same Release."""
    cast = Cast(Plain(Extent(8), 16))
    release = cast.keyholder.handle(cast.aggregate([cast.vector(i) for i in range(3)]))
    step = GlobalModel.step

    def slow(self: GlobalModel, *given: Any) -> GlobalModel:
        time.sleep(0.02)
        return step(self, *given)

    monkeypatch.setattr(GlobalModel, "step", slow)
    keeper = ModelKeeper(cast.keeper.model)
    session = cast.session("client-0")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: keeper.catch_up(release, session), range(6)))
    cast.keeper.take(release, session)
    assert keeper.round == 1 and keeper.model.digest == cast.keeper.model.digest


def test_a_state_with_slots_of_any_number_is_as_large_as_it_says() -> None:
    @dataclass(frozen=True)
    class Seven:
        one: Any = 0.0
        two: Any = 0.0
        three: Any = 0.0
        four: Any = 0.0
        five: Any = 0.0
        six: Any = 0.0
        seven: Any = 0.0

        def step(self, weights: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, Seven]:
            return weights, Seven(*[np.full(weights.size, float(i)) for i in range(7)])

    model = replace(Cast(Plain(Extent(8), 16)).keeper.model, optimizer=Seven())
    _, optimizer = model.optimizer.step(model.weights, model.weights)
    stepped = replace(model, optimizer=optimizer)
    assert len(stepped.encode()) < model.most_bytes == stepped.most_bytes
    assert model.decode(stepped.encode()).digest == stepped.digest

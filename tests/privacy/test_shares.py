"""Shares of noise: the distribution that was asked for, exactly, and from the operating system."""

import math
import os
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from hyperlock.encryption.extent import cut
from hyperlock.privacy import noise
from hyperlock.privacy.noise import CUT, LEAST_DEVIATION, add_share, share

DRAWS = 400_000


def chances(deviation: float) -> np.ndarray:
    """float64[2 cut + 1]: what each integer from -cut to cut is drawn with."""
    at = np.arange(-cut(deviation), cut(deviation) + 1)
    weights = np.exp(-(at**2) / (2 * deviation**2))
    return weights / weights.sum()


def p_value(drawn: np.ndarray, deviation: float) -> float:
    """Of a chi-square test against the exact chances; tails of fewer than ten draws together."""
    expected = chances(deviation) * drawn.size
    seen = np.bincount(drawn + cut(deviation), minlength=expected.size)
    often = expected >= 10
    observed = np.append(seen[often], seen[~often].sum())
    return float(
        stats.chisquare(observed, np.append(expected[often], expected[~often].sum())).pvalue
    )


@pytest.mark.parametrize("deviation", [3.0, 4.7, 38.0, 301.5])
def test_draws_have_their_chances(deviation: float) -> None:
    source = np.random.default_rng(1).bytes
    assert p_value(share(DRAWS, deviation, source), deviation) > 1e-3


def test_draws_of_the_operating_system_have_their_chances() -> None:
    assert p_value(share(DRAWS, 20.0), 20.0) > 1e-6


def test_the_test_of_chances_sees_faults() -> None:
    source = np.random.default_rng(2).bytes
    drawn = share(DRAWS, 20.0, source)
    assert p_value(drawn, 20.0) > 1e-3
    assert p_value(share(DRAWS, 10.0, source), 20.0) < 1e-9  # halved
    assert p_value(share(DRAWS, 20.4, source), 20.0) < 1e-9  # a fiftieth more
    assert p_value(np.where(drawn > 0, drawn - 1, drawn), 20.0) < 1e-9  # shifted on one side


@pytest.mark.parametrize("deviation", [3.0, 17.3, 1000.0])
def test_the_table_is_that_of_the_discrete_gaussian(deviation: float) -> None:
    table = noise._table(deviation)
    entries = [(int(a) << 64) + int(b) for a, b in zip(table.upper, table.lower, strict=True)]
    assert len(entries) == 2 * cut(deviation)
    assert entries == sorted(entries)
    # Symmetric to the last unit, and right to what float64 can tell.
    whole = 1 << 127
    assert all(abs(a + b - whole) <= 1 for a, b in zip(entries, entries[::-1], strict=True))
    mass = np.diff([0, *(entry / whole for entry in entries)])
    assert mass == pytest.approx(chances(deviation)[:-1], rel=1e-9, abs=1e-15)


def test_a_draw_that_the_upper_bits_do_not_decide_takes_the_lower_ones() -> None:
    table = noise._table(3.0)
    for entry in (0, 20, table.upper.size - 1):
        first = int(table.upper[entry]) << 1
        for lower, reached in ((int(table.lower[entry]) - 1, 0), (int(table.lower[entry]), 1)):
            answers = [first.to_bytes(8, "little"), lower.to_bytes(8, "little")]
            drawn = table.draw(1, lambda _, answers=answers: answers.pop(0))
            assert drawn[0] == entry + reached - cut(3.0) and not answers


def test_extreme_draws_stay_within_the_cut() -> None:
    for byte, end in ((b"\0", -1), (b"\xff", 1)):
        drawn = share(4, 10.0, lambda count, byte=byte: byte * count)
        assert (drawn == end * cut(10.0)).all()
    assert cut(10.0) == 96 and drawn.dtype == np.int32


def test_what_is_cut_is_as_rare_as_is_said() -> None:
    at = np.arange(cut(3.0) + 1, 400)
    beyond = 2 * np.exp(-(at**2) / 18).sum() / np.exp(-(np.arange(-400, 401) ** 2) / 18).sum()
    assert beyond < 2 * math.exp(-(CUT**2) / 2) < 2**-65.4


def test_shares_add_up_to_one_gaussian() -> None:
    source = np.random.default_rng(3).bytes
    total = np.zeros(DRAWS, np.int32)
    for _ in range(5):
        add_share(total, 6.0, source)
    whole = 6.0 * math.sqrt(5)
    inside = total[np.abs(total) <= cut(whole)]
    assert p_value(inside, whole) > 1e-3
    assert total.var() == pytest.approx(180, rel=0.02)


def test_no_seed_decides_the_noise() -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        drawn.append(share(1000, 20.0))
    assert (drawn[0] != drawn[1]).any()
    assert add_share.__defaults__ == share.__defaults__ == (os.urandom,)


@pytest.mark.parametrize("deviation", [LEAST_DEVIATION - 1e-9, 0.0, math.nan])
def test_too_fine_shares_are_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        share(10, deviation)


def test_a_share_is_added_in_little_memory() -> None:
    values = np.zeros(2_000_000, np.int32)
    share(10, 50.0)  # the table
    tracemalloc.start()
    add_share(values, 50.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21 and values.std() == pytest.approx(50, rel=0.01)


def test_a_model_of_100_000_weights_takes_milliseconds() -> None:
    share(10, 50.0)
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        share(101_770, 50.0)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.05  # 6 ms on a quiet core

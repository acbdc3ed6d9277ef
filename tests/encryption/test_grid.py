"""The grid: unbiased rounding, exact on the grid, never outside it, every saturated coordinate
counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.grid import Grid, integer_type, largest_value
from hyperlock.settings.schema import MAX_VALUE_BITS, MIN_VALUE_BITS

VALUE_BITS = st.integers(MIN_VALUE_BITS, MAX_VALUE_BITS)
SEEDS = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def fine_grid(length: int, value_bits: int, exponent: int = -6) -> Grid:
    """A grid whose step is a power of two, so that its values are exact in float32 up to 24
    bits."""
    return Grid((length,), (largest_value(value_bits) * 2.0**exponent,), value_bits)


@pytest.mark.parametrize("fraction", [0.03, 0.25, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("whole", [-5, -1, 0, 4])
def test_rounding_is_unbiased(fraction: float, whole: int) -> None:
    n = 200_000
    grid = fine_grid(200_000, 8)
    step = grid.ranges[0] / grid.levels
    x = np.full(n, (whole + fraction) * step, np.float32)
    integers, _ = grid.quantise(x, rng(1))
    assert set(np.unique(integers)) == {whole, whole + 1}
    up = np.mean(integers - whole)
    deviation = np.sqrt(fraction * (1 - fraction) / n)
    assert abs(up - fraction) < 5 * deviation


def test_the_mean_of_many_roundings_approaches_the_vector() -> None:
    grid = Grid((40, 60), (0.3, 5.0), 8)
    x = (rng(2).uniform(-1, 1, 100) * np.repeat([0.3, 5.0], [40, 60])).astype(np.float32)
    source = rng(3)
    n = 4000
    mean = sum(grid.dequantise(grid.quantise(x, source)[0]) for _ in range(n)) / n
    steps = np.repeat([0.3, 5.0], [40, 60]) / grid.levels
    assert (np.abs(mean - x) < 5 * steps * 0.5 / np.sqrt(n)).all()


@given(value_bits=VALUE_BITS, seed=SEEDS, data=st.data())
def test_values_on_the_grid_come_back_as_they_were(
    value_bits: int, seed: int, data: st.DataObject
) -> None:
    levels = largest_value(value_bits)
    whole = np.array(data.draw(st.lists(st.integers(-levels, levels), min_size=1, max_size=30)))
    grid = fine_grid(whole.size, value_bits)
    x = (whole * 2.0**-6).astype(np.float32)
    integers, saturated = grid.quantise(x, rng(seed))
    assert (integers == whole).all() and saturated == 0
    assert (grid.dequantise(integers) == x).all()


@given(
    value_bits=VALUE_BITS,
    seed=SEEDS,
    bound=st.floats(2.0**-20, 2.0**20, width=32),
    shares=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30),
)
def test_values_in_range_move_by_less_than_a_step(
    value_bits: int, seed: int, bound: float, shares: list[float]
) -> None:
    grid = Grid((len(shares),), (bound,), value_bits)
    x = np.clip(np.array(shares, np.float32) * np.float32(bound), -bound, bound).astype(np.float32)
    integers, saturated = grid.quantise(x, rng(seed))
    assert saturated == 0
    assert (np.abs(integers) <= grid.levels).all()
    step = bound / grid.levels
    assert (np.abs(grid.dequantise(integers) - x) < step * (1 + 1e-9)).all()


@given(value_bits=VALUE_BITS, seed=SEEDS, data=st.data())
def test_values_outside_the_range_saturate_and_are_counted(
    value_bits: int, seed: int, data: st.DataObject
) -> None:
    levels = largest_value(value_bits)
    beyond = data.draw(st.lists(st.integers(levels + 1, 20 * levels), min_size=1, max_size=10))
    signs = data.draw(
        st.lists(st.sampled_from([-1, 1]), min_size=len(beyond), max_size=len(beyond))
    )
    inside = data.draw(st.lists(st.integers(-levels, levels), max_size=10))
    whole = np.array([b * s for b, s in zip(beyond, signs, strict=True)] + inside, np.float64)
    grid = Grid((whole.size,), (float(levels),), value_bits)
    integers, saturated = grid.quantise(whole, rng(seed))
    assert saturated == len(beyond)
    assert (integers == np.clip(whole, -levels, levels)).all()


@pytest.mark.parametrize("value_bits", range(MIN_VALUE_BITS, MAX_VALUE_BITS + 1))
def test_levels_are_the_largest_signed_value(value_bits: int) -> None:
    assert (
        Grid((1,), (1.0,), value_bits).levels
        == largest_value(value_bits)
        == 2 ** (value_bits - 1) - 1
    )


def test_both_ends_of_the_range_are_levels() -> None:
    grid = Grid((2,), (0.7,), 8)
    integers, saturated = grid.quantise(np.array([0.7, -0.7]), rng())
    assert list(integers) == [127, -127] and saturated == 0


def test_every_tensor_has_its_own_range() -> None:
    grid = Grid((2, 3), (1.0, 100.0), 8)
    assert list(grid.dequantise(np.full(5, 127))) == pytest.approx([1, 1, 100, 100, 100])
    integers, saturated = grid.quantise(np.array([1, 50, 1, 50, 100], np.float32), rng())
    assert saturated == 1
    assert list(integers[:2]) == [127, 127] and integers[2] in (1, 2) and integers[4] == 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_nan_and_inf_are_refused(bad: float, place: int) -> None:
    x = np.zeros(7, np.float32)
    x[place] = bad
    with pytest.raises(FloatingPointError, match="NaN or Inf"):
        Grid((3, 4), (1.0, 1.0), 8).quantise(x, rng())


def test_the_generator_decides_the_rounding() -> None:
    grid = Grid((1000,), (1.0,), 8)
    x = rng(5).uniform(-1, 1, 1000).astype(np.float32)
    first, _ = grid.quantise(x, rng(6))
    assert (grid.quantise(x, rng(6))[0] == first).all()
    assert (grid.quantise(x, rng(7))[0] != first).any()


def test_the_vector_is_left_as_it_was() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([0.1, -0.2, 3.0], dtype)
        before = x.copy()
        Grid((3,), (1.0,), 8).quantise(x, rng())
        assert (x == before).all()


@given(value_bits=VALUE_BITS, clients=st.integers(1, 200), seed=SEEDS)
def test_a_sum_of_integers_stands_for_the_sum_of_values(
    value_bits: int, clients: int, seed: int
) -> None:
    levels = largest_value(value_bits)
    whole = rng(seed).integers(-levels, levels, (clients, 6), endpoint=True)
    grid = fine_grid(6, value_bits)
    values = np.array([grid.dequantise(row) for row in whole])
    assert (grid.dequantise(whole.sum(axis=0)) == values.sum(axis=0)).all()


@given(largest=st.integers(0, 2**63 - 1))
def test_an_integer_type_holds_its_largest_value_and_no_narrower_one_does(largest: int) -> None:
    bounds = np.iinfo(integer_type(largest))
    assert bounds.min <= -largest and largest <= bounds.max
    assert bounds.bits == 8 or largest > 2 ** (bounds.bits // 2 - 1) - 1


@pytest.mark.parametrize(
    ("value_bits", "size"), [(4, 1), (8, 1), (9, 2), (16, 2), (17, 4), (24, 4)]
)
def test_integers_are_as_narrow_as_the_grid(value_bits: int, size: int) -> None:
    grid = Grid((40_000, 3), (1.0, 2.0), value_bits)  # more than one block
    integers, saturated = grid.quantise(np.full(40_003, -9e9, np.float32), rng())
    assert integers.dtype == f"<i{size}"
    assert saturated == 40_003 and (integers == -grid.levels).all()

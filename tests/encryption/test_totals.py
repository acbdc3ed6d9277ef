"""Totals: digits are grid values, and sums of digits decode to the exact totals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption import totals
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.totals import Totals
from hyperlock.settings.schema import MAX_VALUE_BITS, MIN_VALUE_BITS

UNIT = 2**-totals.LOSS_FRACTION_BITS
MOST = Totals(1, 2**31 - 1, 2**31 - UNIT, 2**31 - 1)
SHARES = st.builds(
    Totals,
    contributors=st.just(1),
    samples=st.integers(0, 2**31 - 1),
    loss=st.integers(0, 2**47 - 1).map(lambda n: n * UNIT),
    saturated=st.integers(0, 2**31 - 1),
)
VALUE_BITS = st.integers(MIN_VALUE_BITS, MAX_VALUE_BITS)


@given(value_bits=VALUE_BITS, shares=st.lists(SHARES, min_size=1, max_size=40))
def test_summed_shares_decode_to_the_exact_totals(value_bits: int, shares: list[Totals]) -> None:
    summed = sum(totals.encode(share, value_bits) for share in shares)
    whole_loss = sum(int(share.loss / UNIT) for share in shares)
    assert totals.decode(summed, value_bits) == Totals(
        len(shares),
        sum(s.samples for s in shares),
        whole_loss * UNIT,
        sum(s.saturated for s in shares),
    )


@pytest.mark.parametrize("value_bits", range(MIN_VALUE_BITS, MAX_VALUE_BITS + 1))
@pytest.mark.parametrize("clients", [1, 2, 1024, 2**20])
def test_the_largest_shares_of_all_clients_decode_exactly(value_bits: int, clients: int) -> None:
    summed = totals.encode(MOST, value_bits) * clients
    most = 2**31 - 1
    assert totals.decode(summed, value_bits) == Totals(
        clients, clients * most, clients * (2**47 - 1) / 2**16, clients * most
    )


@given(value_bits=VALUE_BITS, share=SHARES)
def test_a_digit_is_a_grid_value(value_bits: int, share: Totals) -> None:
    digits = totals.encode(share, value_bits)
    assert digits.shape == (totals.width(value_bits),) and digits.dtype == np.int64
    assert digits.min() >= 0 and digits.max() <= largest_value(value_bits)


def test_the_count_is_a_coordinate_of_its_own() -> None:
    """The key holder reads it; another field must not be able to carry into it."""
    for value_bits in range(MIN_VALUE_BITS, MAX_VALUE_BITS + 1):
        assert totals.encode(Totals(1, 0, 0.0, 0), value_bits).tolist() == [1] + [0] * (
            totals.width(value_bits) - 1
        )
        assert totals.encode(replace(MOST, contributors=0), value_bits)[0] == 0


@pytest.mark.parametrize("value_bits", [4, 8, 24])
def test_shares_that_are_too_large_are_clipped(value_bits: int) -> None:
    huge = Totals(1, 2**40, 1e30, 2**31)
    assert totals.decode(totals.encode(huge, value_bits), value_bits) == MOST


def test_negative_shares_are_clipped_to_nothing() -> None:
    assert totals.decode(totals.encode(Totals(1, -5, -0.5, -1), 8), 8) == Totals(1, 0, 0.0, 0)


def test_the_loss_is_rounded_to_its_unit() -> None:
    decoded = totals.decode(totals.encode(Totals(1, 1, 2.302585, 0), 8), 8)
    assert abs(decoded.loss - 2.302585) <= UNIT / 2

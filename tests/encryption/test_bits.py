"""Packed integers: every width, exactly as many bits as they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.bits import pack, packed_bytes, unpack


@pytest.mark.parametrize("width", range(1, 64))
def test_numbers_of_every_width_go_through_in_exactly_their_bits(width: int) -> None:
    rng = np.random.default_rng(width)
    for count in (8, 16, 1024):
        numbers = rng.integers(0, 2**width, count, np.uint64)
        numbers[:2] = 0, 2**width - 1
        before = numbers.copy()
        data = pack(numbers, width)
        assert len(data) == packed_bytes(count, width) == count * width / 8
        assert unpack(data, count, width).dtype == np.uint64
        assert (unpack(data, count, width) == numbers).all()
        assert (unpack(memoryview(data), count, width) == numbers).all()
        assert (numbers == before).all()


@given(width=st.integers(1, 63), data=st.data())
def test_any_numbers_go_through(width: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=8, max_size=40))
    numbers = numbers[: len(numbers) // 8 * 8]
    packed = pack(np.array(numbers, np.uint64), width)
    assert unpack(packed, len(numbers), width).tolist() == numbers


@given(width=st.integers(1, 63), eights=st.integers(1, 4), data=st.data())
def test_any_bytes_are_those_of_one_array(width: int, eights: int, data: st.DataObject) -> None:
    """There is one way to write an array: nothing can be hidden."""
    packed = data.draw(st.binary(min_size=eights * width, max_size=eights * width))
    numbers = unpack(packed, 8 * eights, width)
    assert int(numbers.max()) < 2**width
    assert pack(numbers, width) == packed

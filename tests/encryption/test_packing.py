"""Packing: sums of packed vectors unpack to the sums, also where every field is full."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.packing import Packing

CHOICES = [(4, 2), (8, 16), (8, 1024), (12, 128), (16, 16), (16, 1024), (24, 3), (5, 100)]


def packings(value_bits: int, clients: int) -> list[Packing]:
    """Every packing for these sums, up to the 62 bits that a slot may have."""
    field_bits = value_bits + math.ceil(math.log2(clients))
    return [Packing(fields, field_bits) for fields in range(1, 62 // field_bits + 1)]


def pack(packing: Packing, vector: np.ndarray) -> np.ndarray:
    return packing.pack(vector, 0, packing.slots(vector.size))


def unpack(packing: Packing, packed: np.ndarray, length: int) -> np.ndarray:
    values = np.empty(length, np.int64)
    packing.unpack(packed, values, 0)
    return values


@given(choice=st.sampled_from(CHOICES), length=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_sums_of_packed_vectors_unpack_to_sums(
    choice: tuple[int, int], length: int, seed: int
) -> None:
    value_bits, clients = choice
    levels = largest_value(value_bits)
    vectors = np.random.default_rng(seed).integers(
        -levels, levels, (clients, length), endpoint=True
    )
    for packing in packings(value_bits, clients):
        packed = sum(pack(packing, vector) for vector in vectors)
        assert (unpack(packing, packed, length) == vectors.sum(axis=0)).all()


@given(
    choice=st.sampled_from(CHOICES),
    signs=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40),
)
def test_all_clients_at_the_extremes_unpack_exactly(
    choice: tuple[int, int], signs: list[int]
) -> None:
    value_bits, clients = choice
    vector = np.array(signs) * largest_value(value_bits)
    for packing in packings(value_bits, clients):
        assert (
            unpack(packing, pack(packing, vector) * clients, vector.size) == vector * clients
        ).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_full_field_leaves_its_neighbours_alone(sign: int) -> None:
    packing = Packing(3, 12)
    clients = 16
    for field in range(3):
        vector = np.zeros(9, np.int64)
        vector[field * 3 + 1] = sign * 127
        assert (unpack(packing, pack(packing, vector) * clients, 9) == vector * clients).all()


@pytest.mark.parametrize(("fields", "field_bits"), [(2, 31), (1, 62), (5, 12), (31, 2)])
def test_the_whole_62_bits_of_a_slot_may_be_used(fields: int, field_bits: int) -> None:
    packing = Packing(fields, field_bits)
    most = 2 ** (field_bits - 1) - 1
    for value in (most, -most, -most - 1):
        vector = np.full(2 * fields, value)
        assert (unpack(packing, pack(packing, vector), vector.size) == vector).all()


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_vector_takes_no_more_slots_than_it_needs(length: int, slots: int) -> None:
    packing = Packing(3, 12)
    vector = np.arange(-3, length - 3)
    assert packing.slots(length) == slots
    assert pack(packing, vector).shape == (slots,)
    assert (unpack(packing, pack(packing, vector), length) == vector).all()


def test_the_vector_is_left_as_it_was() -> None:
    vector = np.arange(10)
    pack(Packing(3, 12), vector)
    assert (vector == np.arange(10)).all()


@given(
    choice=st.sampled_from(CHOICES),
    length=st.integers(1, 60),
    cut=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_ranges_of_slots_are_parts_of_the_whole(
    choice: tuple[int, int], length: int, cut: int, seed: int
) -> None:
    value_bits, clients = choice
    levels = largest_value(value_bits)
    vector = np.random.default_rng(seed).integers(
        -levels, levels, length, integer_type(levels), endpoint=True
    )
    for packing in packings(value_bits, clients):
        slots = packing.slots(length)
        parts = [
            packing.pack(vector, start, min(start + cut, slots)) for start in range(0, slots, cut)
        ]
        assert (np.concatenate(parts) == pack(packing, vector)).all()
        values = np.full(length, 99, integer_type(clients * levels))
        for i in reversed(range(len(parts))):  # in any order
            packing.unpack(parts[i] * clients, values, i * cut)
        assert (values == vector.astype(np.int64) * clients).all()


@given(
    fields=st.lists(st.integers(-(2**11), 2**11 - 1), min_size=3, max_size=3),
    size=st.sampled_from([1, 2, 4, 8]),
)
def test_a_field_that_does_not_fit_is_an_error_and_never_wraps(
    fields: list[int], size: int
) -> None:
    packing = Packing(3, 12)
    values = np.zeros(3, f"<i{size}")
    packed = pack(packing, np.array(fields))
    if max(fields) < 2 ** (8 * size - 1) and min(fields) >= -(2 ** (8 * size - 1)):
        packing.unpack(packed, values, 0)
        assert values.tolist() == fields
    else:
        with pytest.raises(OverflowError):
            packing.unpack(packed, values, 0)

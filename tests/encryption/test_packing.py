"""Packing: sums of packed vectors unpack to the sums, also where every field is full."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.packing import Packing

CHOICES = [(4, 2), (8, 16), (8, 1024), (12, 128), (16, 16), (16, 1024), (24, 3), (5, 100)]


def packings(value_bits: int, clients: int) -> list[Packing]:
    """Every packing for these sums, up to the 62 bits that a slot may have."""
    field_bits = value_bits + math.ceil(math.log2(clients))
    return [Packing(fields, field_bits) for fields in range(1, 62 // field_bits + 1)]


@given(choice=st.sampled_from(CHOICES), length=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_sums_of_packed_vectors_unpack_to_sums(choice: tuple[int, int], length: int, seed: int) -> None:
    value_bits, clients = choice
    levels = largest_value(value_bits)
    vectors = np.random.default_rng(seed).integers(-levels, levels, (clients, length), endpoint=True)
    for packing in packings(value_bits, clients):
        packed = sum(packing.pack(vector) for vector in vectors)
        assert (packing.unpack(packed, length) == vectors.sum(axis=0)).all()


@given(choice=st.sampled_from(CHOICES), signs=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40))
def test_all_clients_at_the_extremes_unpack_exactly(choice: tuple[int, int], signs: list[int]) -> None:
    value_bits, clients = choice
    vector = np.array(signs) * largest_value(value_bits)
    for packing in packings(value_bits, clients):
        assert (packing.unpack(packing.pack(vector) * clients, vector.size) == vector * clients).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_full_field_leaves_its_neighbours_alone(sign: int) -> None:
    packing, clients = Packing(3, 12), 16
    for field in range(3):
        vector = np.zeros(9, np.int64)
        vector[field * 3 + 1] = sign * 127
        assert (packing.unpack(packing.pack(vector) * clients, 9) == vector * clients).all()


@pytest.mark.parametrize(("fields", "field_bits"), [(2, 31), (1, 62), (5, 12), (31, 2)])
def test_the_whole_62_bits_of_a_slot_may_be_used(fields: int, field_bits: int) -> None:
    packing, most = Packing(fields, field_bits), 2 ** (field_bits - 1) - 1
    for value in (most, -most, -most - 1):
        vector = np.full(2 * fields, value)
        assert (packing.unpack(packing.pack(vector), vector.size) == vector).all()


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_vector_takes_no_more_slots_than_it_needs(length: int, slots: int) -> None:
    packing, vector = Packing(3, 12), np.arange(-3, length - 3)
    assert packing.slots(length) == slots
    assert packing.pack(vector).shape == (slots,)
    assert (packing.unpack(packing.pack(vector), length) == vector).all()


def test_the_vector_is_left_as_it_was() -> None:
    vector = np.arange(10)
    Packing(3, 12).pack(vector)
    assert (vector == np.arange(10)).all()

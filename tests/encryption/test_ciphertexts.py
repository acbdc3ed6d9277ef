"""What CKKS and BFV share: a refused vector leaves no trace in a sum, and narrow integers never
wrap."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import CiphertextSum, PackedDecryptor, PackedScheme
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import CiphertextRefused

SCHEMES: list[PackedScheme] = [
    Ckks(ckks_parameters(2048, "auto", "auto", Extent(8), 16, 128)),
    Bfv(bfv_parameters(2048, [34, 20], "auto", Extent(8), 16, 128)),
]


def vector(length: int, seed: int) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 127, length, np.int8, endpoint=True)


@pytest.fixture(params=SCHEMES, ids=lambda scheme: scheme.name)
def scheme(request: pytest.FixtureRequest) -> PackedScheme:
    return request.param


@pytest.fixture
def keys(scheme: PackedScheme) -> KeyPair:
    return scheme.generate_keys()


def sums(scheme: PackedScheme, keys: KeyPair, length: int) -> Iterator[CiphertextSum]:
    """Sums that hold the same three vectors, one of them seeded: same bytes."""
    encryptor = scheme.encryptor(keys.public)
    symmetric = scheme.symmetric_encryptor(keys.secret)
    given = [
        tuple(each.encrypt(vector(length, i)))
        for i, each in enumerate((encryptor, symmetric, encryptor))
    ]
    while True:
        made = scheme.accumulator(keys.public, length)
        for chunks in given:
            made.add(chunks)
        yield made


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_bytes_of_a_sum_are_as_before_wherever_a_vector_breaks_off(
    scheme: PackedScheme, keys: KeyPair, place: int
) -> None:
    length = 3 * scheme.parameters.slots * scheme.parameters.packing.fields + 10
    assert scheme.chunk_count(length) == 4
    summed, untouched = (
        made for made, _ in zip(sums(scheme, keys, length), range(2), strict=False)
    )
    good = list(scheme.encryptor(keys.public).encrypt(vector(length, 9)))
    seeded = list(scheme.symmetric_encryptor(keys.secret).encrypt(vector(length, 8)))
    for bad in (b"garbage", good[place][:-1], b"", b"\xff" * len(good[place])):
        with pytest.raises(CiphertextRefused):
            summed.add([*good[:place], bad, *good[place + 1 :]])
        with pytest.raises(CiphertextRefused):
            summed.add([*seeded[:place], bad, *good[place + 1 :]])
    assert list(summed.total()) == list(untouched.total())


def test_no_more_than_one_ciphertext_of_a_vector_is_opened_at_a_time(
    scheme: PackedScheme, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 3 * scheme.parameters.slots * scheme.parameters.packing.fields
    (summed,) = (made for made, _ in zip(sums(scheme, keys, length), range(1), strict=False))
    open_update = Layout.open_update
    opened = []

    def watched(*arguments: Any) -> Any:
        assert not any(earlier() for earlier in opened)
        received = open_update(*arguments)
        opened.append(weakref.ref(received))
        return received

    monkeypatch.setattr(Layout, "open_update", watched)
    summed.add(tuple(scheme.encryptor(keys.public).encrypt(vector(length, 9))))
    assert len(opened) == 3


# Narrow integers


CHOICES = [
    (bits, clients)
    for bits in (4, 5, 8, 9, 12, 16, 20, 24)
    for clients in (1, 2, 16, 17, 128, 1000)
]


class Open(PackedDecryptor):
    """Is handed slots in the clear, int64[slots] as bytes."""

    def __init__(self, scheme: PackedScheme) -> None:
        self._scheme = scheme

    def _slots(self, file: Any, chunk: Any) -> NDArray[np.int64]:
        return np.frombuffer(chunk, np.int64)


def opened(choice: tuple[int, int]) -> tuple[PackedDecryptor, int]:
    """A decryptor that is handed slots in the clear, and the largest sum of its scheme."""
    value_bits, clients = choice
    made = Ckks(ckks_parameters(32768, "auto", "auto", Extent(value_bits), clients, 128))
    return Open(made), clients * largest_value(value_bits)


@given(choice=st.sampled_from(CHOICES), data=st.data())
def test_sums_come_out_exactly_or_not_at_all(choice: tuple[int, int], data: st.DataObject) -> None:
    """In the narrowest type that holds the largest sum; whatever a field can hold beyond it is
    refused, not wrapped."""
    decryptor, top = opened(choice)
    packing = decryptor._scheme.parameters.packing
    most = 2 ** (packing.field_bits - 1) - 1
    edge = st.sampled_from(
        [top, -top, top + 1, -top - 1, most, -most, 128, -129, 32768, -32769, 2**31, -(2**31) - 1]
    )
    fields = st.one_of(st.integers(-top, top), edge.filter(lambda value: abs(value) <= most))
    values = np.array(data.draw(st.lists(fields, min_size=1, max_size=30)))
    packed = packing.pack(values, 0, packing.slots(values.size))
    if np.abs(values).max() <= top:
        sums = decryptor.decrypt([packed.tobytes()], values.size)
        assert sums.dtype == integer_type(top) and (sums == values).all()
    else:
        with pytest.raises(CiphertextRefused, match="out of range"):
            decryptor.decrypt([packed.tobytes()], values.size)


@pytest.mark.parametrize(("clients", "size"), [(1, 1), (2, 2), (16, 2), (258, 2), (259, 4)])
def test_sums_of_all_clients_take_the_narrowest_type(clients: int, size: int) -> None:
    decryptor, top = opened((8, clients))
    packing = decryptor._scheme.parameters.packing
    for sign in (-1, 1):
        values = np.full(9, sign * top)
        sums = decryptor.decrypt([packing.pack(values, 0, packing.slots(9)).tobytes()], 9)
        assert sums.dtype == f"<i{size}" and (sums == values).all()


@pytest.mark.parametrize("form", ["whole", "seeded"])
def test_one_encryptor_serves_several_clients_at_once(
    scheme: PackedScheme, keys: KeyPair, form: str
) -> None:
    """Under keys=clients all clients of a process share one, and runtime.workers of them train at
    once: none may encrypt what another encoded."""
    encryptor = (
        scheme.symmetric_encryptor(keys.secret)
        if form == "seeded"
        else scheme.encryptor(keys.public)
    )
    length = 6 * scheme.parameters.slots * scheme.parameters.packing.fields
    vectors = [vector(length, seed) for seed in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            sent = list(pool.map(lambda values: list(encryptor.encrypt(values)), vectors))
    finally:
        sys.setswitchinterval(before)
    for values, chunks in zip(vectors, sent, strict=True):
        accumulator = scheme.accumulator(keys.public, length)
        accumulator.add(chunks)
        assert (scheme.decryptor(keys.secret).decrypt(accumulator.total(), length) == values).all()

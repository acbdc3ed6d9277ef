"""The baseline: the same integers as CKKS, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.plain import CHUNK, Plain
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import CiphertextRefused


def released(scheme: Scheme, keys: KeyPair, vectors: list[np.ndarray]) -> np.ndarray:
    encryptor = scheme.encryptor(keys.public)
    accumulator = scheme.accumulator(keys.public, vectors[0].size)
    for vector in vectors:
        chunks = tuple(encryptor.encrypt(vector))
        assert len(chunks) == scheme.chunk_count(vector.size)
        accumulator.add(chunks)
    return scheme.decryptor(keys.secret).decrypt(accumulator.total(), vectors[0].size)


@settings(max_examples=25)
@given(clients=st.integers(1, 16), length=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_the_sums_are_those_of_ckks(
    ckks: Ckks, keys: KeyPair, clients: int, length: int, seed: int
) -> None:
    vectors = list(
        np.random.default_rng(seed).integers(-127, 127, (clients, length), endpoint=True)
    )
    vectors[0][: length // 2] = 127
    plain = Plain(Extent(8), 16)
    ours = released(plain, plain.generate_keys(), vectors)
    theirs = released(ckks, keys, vectors)
    assert ours.dtype == theirs.dtype == np.int16  # 16 x 127
    assert ours.tobytes() == theirs.tobytes() == sum(vectors).astype(np.int16).tobytes()


@pytest.mark.parametrize("value_bits", range(4, 25))
@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_at_the_extremes_do_not_wrap(value_bits: int, sign: int) -> None:
    plain = Plain(Extent(value_bits), 1024)
    vector = np.array([sign * largest_value(value_bits), 0, -1])
    assert (released(plain, plain.generate_keys(), [vector] * 1024) == vector * 1024).all()


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_vectors_of_several_chunks_come_back(length: int) -> None:
    plain = Plain(Extent(12), 4)
    vector = np.arange(length) % 4000 - 2000
    assert (released(plain, plain.generate_keys(), [vector, vector]) == 2 * vector).all()


@pytest.mark.parametrize(
    ("value_bits", "size"), [(4, 1), (8, 1), (9, 2), (16, 2), (17, 4), (24, 4)]
)
def test_chunks_are_as_narrow_as_the_values(value_bits: int, size: int) -> None:
    plain = Plain(Extent(value_bits), 4)
    (chunk,) = plain.encryptor(b"").encrypt(np.zeros(10, np.int64))
    assert len(chunk) == 10 * size <= plain.max_chunk_bytes


def test_a_failed_add_leaves_the_sum_as_it_was() -> None:
    plain = Plain(Extent(16), 4)
    vector = np.arange(CHUNK + 5) % 1000
    accumulator = plain.accumulator(b"", vector.size)
    good = tuple(plain.encryptor(b"").encrypt(vector))
    accumulator.add(good)
    for bad in (
        (good[0], b"odd"),
        (good[0], b"\0" * 8),
        (good[0],),
        (*good, good[1]),
        (good[1], good[0]),
    ):
        with pytest.raises(CiphertextRefused):
            accumulator.add(bad)
    accumulator.add(good)
    assert (plain.decryptor(b"").decrypt(accumulator.total(), vector.size) == 2 * vector).all()


@pytest.mark.parametrize(
    ("value_bits", "value"),
    [(4, 8), (4, -8), (8, -128), (12, 2048), (12, -2048), (16, -32768), (17, 65536), (17, -65536)],
)
def test_a_value_outside_the_grid_is_refused_whole(value_bits: int, value: int) -> None:
    """Else one client could make a narrow sum wrap."""
    plain = Plain(Extent(value_bits), 2)
    length = CHUNK + 3
    accumulator = plain.accumulator(b"", length)
    good = tuple(plain.encryptor(b"").encrypt(np.ones(length, np.int8)))
    accumulator.add(good)
    bad = np.array([0, value, 0], integer_type(largest_value(value_bits)))
    with pytest.raises(CiphertextRefused, match="lies outside"):
        accumulator.add((good[0], bad.tobytes()))
    accumulator.add(good)
    assert (plain.decryptor(b"").decrypt(accumulator.total(), length) == 2).all()


@pytest.mark.parametrize(
    "chunks", [(), (b"",), (b"\0",), (b"\0" * 3,), (b"\0" * 4,), (b"\0" * 2, b"\0" * 3)]
)
def test_a_sum_of_another_length_is_refused(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(CiphertextRefused):
        Plain(Extent(4), 4).decryptor(b"").decrypt(chunks, 2)


def test_it_says_that_it_is_no_encryption() -> None:
    plain = Plain(Extent(8), 16)
    assert plain.security_bits == 0 and plain.name == "none" and "none" in plain.fingerprint
    others = (Plain(Extent(9), 16), Plain(Extent(8), 17), Plain(Extent(8, 100, 2.0), 16))
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 4

"""The baseline: the same integers as CKKS, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.plain import CHUNK, Plain
from hyperlock.encryption.scheme import CiphertextRefused, KeyPair, Scheme


def released(scheme: Scheme, keys: KeyPair, vectors: list[np.ndarray]) -> np.ndarray:
    encryptor, accumulator = scheme.encryptor(keys.public), scheme.accumulator(keys.public)
    for vector in vectors:
        chunks = encryptor.encrypt(vector)
        assert len(chunks) == scheme.chunks(vector.size)
        accumulator.add(chunks)
    return scheme.decryptor(keys.secret).decrypt(accumulator.total(), vectors[0].size)


@settings(max_examples=25)
@given(clients=st.integers(1, 16), length=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_the_sums_are_those_of_ckks(ckks: Ckks, keys: KeyPair, clients: int, length: int, seed: int) -> None:
    vectors = list(np.random.default_rng(seed).integers(-127, 127, (clients, length), endpoint=True))
    vectors[0][: length // 2] = 127
    plain = Plain(8, 16)
    ours = released(plain, plain.generate_keys(), vectors)
    theirs = released(ckks, keys, vectors)
    assert ours.dtype == theirs.dtype == np.int64
    assert ours.tobytes() == theirs.tobytes() == sum(vectors).tobytes()


@pytest.mark.parametrize("value_bits", range(4, 25))
@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_at_the_extremes_do_not_wrap(value_bits: int, sign: int) -> None:
    plain = Plain(value_bits, 1024)
    vector = np.array([sign * largest_value(value_bits), 0, -1])
    assert (released(plain, plain.generate_keys(), [vector] * 1024) == vector * 1024).all()


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_vectors_of_several_chunks_come_back(length: int) -> None:
    plain, vector = Plain(12, 4), np.arange(length) % 4000 - 2000
    assert (released(plain, plain.generate_keys(), [vector, vector]) == 2 * vector).all()


@pytest.mark.parametrize(("value_bits", "size"), [(4, 1), (8, 1), (9, 2), (16, 2), (17, 4), (24, 4)])
def test_chunks_are_as_narrow_as_the_values(value_bits: int, size: int) -> None:
    plain = Plain(value_bits, 4)
    (chunk,) = plain.encryptor(b"").encrypt(np.zeros(10, np.int64))
    assert len(chunk) == 10 * size <= plain.max_chunk_bytes


def test_a_failed_add_leaves_the_sum_as_it_was() -> None:
    plain, vector = Plain(16, 4), np.arange(CHUNK + 5) % 1000
    accumulator, good = plain.accumulator(b""), plain.encryptor(b"").encrypt(vector)
    accumulator.add(good)
    for bad in ((good[0], b"odd"), (good[0], b"\0" * 8), (good[0],), (*good, good[1]), (good[1], good[0])):
        with pytest.raises(CiphertextRefused):
            accumulator.add(bad)
    accumulator.add(good)
    assert (plain.decryptor(b"").decrypt(accumulator.total(), vector.size) == 2 * vector).all()


@pytest.mark.parametrize("chunks", [(), (b"",), (b"\0" * 7,), (b"\0" * 8,), (b"\0" * 24,), (b"\0" * 8, b"\0" * 16)])
def test_a_sum_of_another_length_is_refused(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(CiphertextRefused):
        Plain(8, 4).decryptor(b"").decrypt(chunks, 2)


def test_it_says_that_it_is_no_encryption() -> None:
    plain = Plain(8, 16)
    assert plain.security == 0 and plain.name == "none" and "none" in plain.fingerprint
    assert len({Plain(8, 16).fingerprint, Plain(9, 16).fingerprint, Plain(8, 17).fingerprint}) == 3

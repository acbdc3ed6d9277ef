"""Ciphertexts on the wire: both forms go through as they were made; whatever is not one of these
parameters does not.

What a hostile client may put there is in tests/security.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption import seeded
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.layout import varint
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import CiphertextRefused
from tests.security.forge import PLAIN, ZSTD, Forgery

SCHEMES: dict[str, PackedScheme] = {
    "ckks": Ckks(ckks_parameters(2048, "auto", "auto", 8, 16, 128)),
    "ckks of two primes": Ckks(ckks_parameters(8192, [40, 40, 40], 30, 8, 16, 128)),
    "bfv": Bfv(bfv_parameters(2048, [34, 20], "auto", 8, 16, 128)),
    "bfv of two primes": Bfv(bfv_parameters(4096, [36, 36, 37], "auto", 8, 16, 128)),
}
KEYS: dict[str, KeyPair] = {name: scheme.generate_keys() for name, scheme in SCHEMES.items()}
FORMS = ["whole", "seeded"] if seeded.available else ["whole"]
VALUES = np.arange(-100, 101, dtype=np.int8)


@pytest.fixture(params=[(name, form) for name in SCHEMES for form in FORMS], ids=" ".join)
def sent(request: pytest.FixtureRequest) -> tuple[PackedScheme, KeyPair, bytes, int]:
    """A scheme, its keys, one ciphertext in one form, and its slots."""
    name, form = request.param
    scheme = SCHEMES[name]
    keys = KEYS[name]
    encryptor = (
        scheme.symmetric_encryptor(keys.secret)
        if form == "seeded"
        else scheme.encryptor(keys.public)
    )
    (chunk,) = encryptor.encrypt(VALUES)
    return scheme, keys, chunk, scheme.blocks(VALUES.size)[0][1]


def test_both_forms_open_to_what_was_encrypted(sent: tuple) -> None:
    scheme, keys, chunk, slots = sent
    opened = scheme.layout.open(chunk, slots)
    for form in (chunk, opened, memoryview(chunk), scheme.layout.open(opened, slots)):
        assert (scheme.decryptor(keys.secret).decrypt([form], VALUES.size) == VALUES).all()
    accumulator = scheme.accumulator(keys.public, VALUES.size)
    for form in (chunk, opened, memoryview(chunk)):
        accumulator.add([form])
    sums = scheme.decryptor(keys.secret).decrypt(accumulator.total(), VALUES.size)
    assert (sums == 3 * VALUES.astype(np.int64)).all()


def test_seal_is_handed_an_uncompressed_ciphertext_of_exactly_the_right_size(sent: tuple) -> None:
    scheme, _, chunk, slots = sent
    layout = scheme.layout
    opened = scheme.layout.open(chunk, slots)
    forgery = Forgery.of(chunk, layout, slots)
    assert forgery.write() == opened and forgery.outer.compression == PLAIN
    halves = 2 if forgery.seed is None else 1
    assert forgery.coefficients.size == halves * layout.poly_modulus * layout.primes
    assert len(opened) <= scheme.max_chunk_bytes
    # Opening what is open, or compressed anew, gives the same.
    compressed = replace(
        forgery, outer=replace(forgery.outer, compression=ZSTD), compress=zstandard.compress
    )
    assert layout.open(opened, slots) == layout.open(compressed.write(), slots) == opened


def test_a_framed_ciphertext_is_what_tenseal_writes(sent: tuple) -> None:
    scheme, keys, chunk, slots = sent
    vector = scheme.read(public_context(keys.public), scheme.layout.open(chunk, slots))
    assert vector.size() == slots
    written = vector.serialize()
    assert (
        scheme.layout.open(written, slots)
        == replace(
            Forgery.of(written, scheme.layout, slots),
            outer=Forgery.of(chunk, scheme.layout, slots).outer,
        ).write()
    )


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_another_number_of_slots_is_refused(sent: tuple, change: int) -> None:
    scheme, _, chunk, slots = sent
    with pytest.raises(CiphertextRefused, match=f"not one ciphertext of {slots + change} slots"):
        scheme.layout.open(chunk, slots + change)


def test_every_scheme_refuses_the_ciphertexts_of_the_others() -> None:
    for name, scheme in SCHEMES.items():
        slots = scheme.blocks(VALUES.size)[0][1]
        for other_name, other in SCHEMES.items():
            length = slots * other.parameters.packing.fields
            (chunk,) = other.encryptor(KEYS[other_name].public).encrypt(np.zeros(length, np.int8))
            if name != other_name:
                with pytest.raises(CiphertextRefused):
                    scheme.layout.open(chunk, slots)


def test_every_truncation_is_refused(sent: tuple) -> None:
    scheme, _, chunk, slots = sent
    cuts = [*range(60), *range(60, len(chunk) - 60, 997), *range(len(chunk) - 60, len(chunk))]
    for cut in cuts:
        for bad in (chunk[:cut], chunk[len(chunk) - cut :]):
            with pytest.raises(CiphertextRefused):
                scheme.layout.open(bad, slots)
    for extra in (b"\0", b"\x12\0", b"\x0a\0", chunk):
        with pytest.raises(CiphertextRefused):
            scheme.layout.open(chunk + extra, slots)


@given(number=st.integers(0, 2**70))
def test_a_varint_is_that_of_protobuf(number: int) -> None:
    data = varint(number)
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(data)) == number
    assert all(byte >= 128 for byte in data[:-1]) and data[-1] < 128
    assert len(data) == max(1, -(-number.bit_length() // 7))


@pytest.mark.parametrize("name", SCHEMES)
def test_a_length_written_in_more_bytes_than_it_takes_is_refused(name: str) -> None:
    """One ciphertext, one way to write it."""
    scheme = SCHEMES[name]
    (chunk,) = scheme.encryptor(KEYS[name].public).encrypt(VALUES)
    slots = scheme.blocks(VALUES.size)[0][1]
    forgery = Forgery.of(chunk, scheme.layout, slots)
    start = b"\x0a" + varint(len(varint(slots))) + varint(slots) + b"\x12"
    for length in (
        varint(len(forgery.seal))[:-1] + bytes([varint(len(forgery.seal))[-1] | 128, 0]),
        b"\xff" * 5,
        b"",
    ):
        with pytest.raises(CiphertextRefused):
            scheme.layout.open(start + length + forgery.seal + forgery.suffix, slots)

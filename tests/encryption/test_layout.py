"""Ciphertexts on the wire: all forms go through as they were made; whatever is not one of these
parameters does not.

What a hostile client may put there is in tests/security.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption import seal
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.layout import Layout
from hyperlock.encryption.scheme import KeyPair
from hyperlock.encryption.seal import Residues
from hyperlock.errors import CiphertextRefused
from tests.security.forge import Forgery

SCHEMES: dict[str, PackedScheme] = {
    "ckks": Ckks(ckks_parameters(2048, "auto", "auto", Extent(8), 16, 128)),
    "ckks of two primes": Ckks(ckks_parameters(8192, [40, 40, 40], 30, Extent(8), 16, 128)),
    "bfv": Bfv(bfv_parameters(2048, "auto", "auto", Extent(8), 128, 128)),
    "bfv of two primes": Bfv(bfv_parameters(4096, [36, 36, 37], "auto", Extent(8), 16, 128)),
}
KEYS: dict[str, KeyPair] = {name: scheme.generate_keys() for name, scheme in SCHEMES.items()}
FORMS = ["whole", "seeded", "sum"]
VALUES = np.arange(-100, 101, dtype=np.int8)
LAYOUTS = {name: scheme.layout for name, scheme in SCHEMES.items()}
DROPS = replace(LAYOUTS["bfv"], dropped=7, dropped_seeded=9)


def random_residues(layout: Layout, count: int = 2, seed: int = 0) -> Residues:
    """uint64[count, primes, N], with the least and the largest in each row."""
    rng = np.random.default_rng(seed)
    shape = (count, layout.poly_modulus)
    rows = np.stack([rng.integers(0, p, shape, np.uint64) for p in layout.primes], axis=1)
    rows[..., 0] = 0
    rows[..., 1] = np.array(layout.primes, np.uint64) - np.uint64(1)
    return rows


def encrypted(name: str, form: str) -> bytes:
    """One ciphertext of `VALUES`, in one form of an Update, or as an Aggregate's."""
    scheme, keys = SCHEMES[name], KEYS[name]
    encryptor = (
        scheme.symmetric_encryptor(keys.secret)
        if form == "seeded"
        else scheme.encryptor(keys.public)
    )
    (chunk,) = encryptor.encrypt(VALUES)
    if form == "sum":
        accumulator = scheme.accumulator(keys.public, VALUES.size)
        accumulator.add([chunk])
        (chunk,) = accumulator.total()
    return chunk


@pytest.fixture(scope="module", params=[(n, f) for n in SCHEMES for f in FORMS], ids=" ".join)
def sent(request: pytest.FixtureRequest) -> tuple[str, str, bytes]:
    """A scheme, a form, and a ciphertext."""
    name, form = request.param
    return name, form, encrypted(name, form)


def open_as(layout: Layout, form: str, chunk: bytes | memoryview) -> Residues:
    """The residues of a ciphertext that arrived."""
    return layout.open_sum(chunk) if form == "sum" else layout.open_update(chunk).both


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), DROPS], ids=[*LAYOUTS, "drops"])
def test_lengths_are_those_of_residues_in_their_bits(layout: Layout) -> None:
    n = layout.poly_modulus
    width = sum(prime.bit_length() for prime in layout.primes)
    assert layout.sum_bytes == 2 * n * width // 8
    assert layout.whole_bytes == n * (2 * width - layout.dropped) // 8
    assert layout.seeded_bytes == n * (width - layout.dropped_seeded) // 8 + 64
    both = random_residues(layout)
    assert len(layout.write_sum(both)) == layout.sum_bytes
    assert len(layout.write_whole(both)) == layout.whole_bytes
    assert len(layout.write_seeded(both[0], bytes(64))) == layout.seeded_bytes


def test_only_one_prime_in_coefficients_drops_bits() -> None:
    drops = {name: (at.dropped > 0, at.dropped_seeded > 0) for name, at in LAYOUTS.items()}
    assert drops == {name: (name == "bfv",) * 2 for name in SCHEMES}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_residues_go_through_all_three_forms(layout: Layout) -> None:
    both = random_residues(layout)
    assert (layout.open_sum(layout.write_sum(both)) == both).all()
    whole = layout.open_update(layout.write_whole(both))
    seeded = layout.open_update(layout.write_seeded(both[0], bytes(range(64))))
    assert whole.seed == b"" and (whole.both[1] == both[1]).all()
    assert seeded.seed == bytes(range(64)) and seeded.both.shape == (1, *both[0].shape)
    for received in (whole, seeded):
        assert (received.both[0] == both[0]).all() or layout.dropped
    # What was rounded before stays as it is.
    assert layout.write_whole(whole.both) == layout.write_whole(both)
    assert layout.write_seeded(seeded.both[0], seeded.seed) == layout.write_seeded(
        both[0], seeded.seed
    )


@given(dropped=st.integers(1, 12), more=st.integers(0, 8), seed=st.integers(0, 2**32 - 1))
def test_the_first_polynomial_is_rounded_by_half_of_what_is_dropped_at_most(
    dropped: int, more: int, seed: int
) -> None:
    """Modulo the prime, at whose end it is rounded to zero."""
    layout = replace(LAYOUTS["bfv"], dropped=dropped, dropped_seeded=dropped + more)
    (prime,) = layout.primes
    both = random_residues(layout, seed=seed)
    near = 2 ** (dropped + more)
    both[0, 0, 2:66] = np.random.default_rng(seed).integers(prime - near, prime, 64, np.uint64)
    for chunk, d in (
        (layout.write_whole(both), dropped),
        (layout.write_seeded(both[0], bytes(64)), dropped + more),
    ):
        first = layout.open_update(chunk).both[0]
        off = (first.astype(np.int64) - both[0].astype(np.int64)) % prime
        off = np.minimum(off, prime - off)
        # Beyond the last multiple below the prime, zero is next: the prime itself, modulo it.
        assert off.max() <= 2 ** (d - 1)
        assert (first % np.uint64(2**d) == 0).all()
    assert (layout.open_update(layout.write_whole(both)).both[1] == both[1]).all()


def test_what_was_encrypted_is_decrypted(sent: tuple[str, str, bytes]) -> None:
    name, form, chunk = sent
    scheme, keys = SCHEMES[name], KEYS[name]
    sums = [chunk]
    times = 1
    if form != "sum":
        accumulator = scheme.accumulator(keys.public, VALUES.size)
        for written in (chunk, memoryview(chunk), bytearray(chunk)):
            accumulator.add([written])
        sums = list(accumulator.total())
        times = 3
    found = scheme.decryptor(keys.secret).decrypt(sums, VALUES.size)
    assert (found == times * VALUES.astype(np.int64)).all()
    assert len(sums[0]) == scheme.max_chunk_bytes


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("form", ["whole", "seeded"])
def test_seal_reads_and_writes_the_residues_that_were_sent(name: str, form: str) -> None:
    scheme = SCHEMES[name]
    context = public_context(KEYS[name].public).seal_context().data
    received = scheme.layout.open_update(encrypted(name, form))
    with seal.scratch() as file:
        ciphertext = scheme.ciphertext(file, context, received)
        both = seal.residues(file, ciphertext, len(scheme.layout.primes))
    assert both.shape == (2, len(scheme.layout.primes), scheme.layout.poly_modulus)
    assert (both[: len(received.both)] == received.both).all()
    assert both[1].any(axis=-1).all()


def test_a_residue_at_its_prime_or_above_is_refused(sent: tuple[str, str, bytes]) -> None:
    name, form, chunk = sent
    layout = LAYOUTS[name]
    good = (Forgery.of_sum if form == "sum" else Forgery.of)(chunk, layout)
    n = layout.poly_modulus
    for start in range(0, good.size, n):
        for place in (start, start + n // 2, start + n - 1):
            prime, width, dropped = good.about(place)
            edge = -(-prime >> dropped)
            for number in {edge, edge + 1, 2**width - 1}:
                if edge <= number < 2**width:
                    with pytest.raises(CiphertextRefused, match="a residue that is none"):
                        open_as(layout, form, good.with_coefficient(place, number).write())
            found = open_as(layout, form, good.with_coefficient(place, edge - 1).write())
            assert int(found.flat[place]) == (edge - 1) << dropped


@pytest.mark.parametrize("name", SCHEMES)
def test_a_ciphertext_without_its_second_polynomial_is_refused(name: str) -> None:
    layout = LAYOUTS[name]
    for row in range(len(layout.primes)):
        both = random_residues(layout)
        both[1, row] = 0
        with pytest.raises(CiphertextRefused, match="without its second polynomial"):
            layout.open_update(layout.write_whole(both))
        with pytest.raises(CiphertextRefused, match="without its second polynomial"):
            layout.open_sum(layout.write_sum(both))
        both[1, row, -1] = 1
        assert (layout.open_sum(layout.write_sum(both)) == both).all()


@pytest.mark.parametrize("form", FORMS)
def test_every_scheme_refuses_the_ciphertexts_of_the_others(form: str) -> None:
    for name, layout in LAYOUTS.items():
        for other in SCHEMES:
            if name != other:
                with pytest.raises(CiphertextRefused, match="bytes instead of"):
                    open_as(layout, form, encrypted(other, form))


def test_every_truncation_and_extension_is_refused(sent: tuple[str, str, bytes]) -> None:
    name, form, chunk = sent
    layout = LAYOUTS[name]
    allowed = {layout.sum_bytes} if form == "sum" else {layout.whole_bytes, layout.seeded_bytes}
    size = len(chunk)
    cuts = [*range(80), *range(80, size - 80, 997), *range(size - 80, size)]
    for cut in {*cuts} - allowed:
        for bad in (chunk[:cut], chunk[size - cut :]):
            with pytest.raises(CiphertextRefused, match="bytes instead of"):
                open_as(layout, form, bad)
    for extra in (b"\0", bytes(8), bytes(64), chunk):
        with pytest.raises(CiphertextRefused, match="bytes instead of"):
            open_as(layout, form, chunk + extra)

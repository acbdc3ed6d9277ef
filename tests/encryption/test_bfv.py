"""Packed BFV: parameters by rule, exact sums with real TenSEAL, refusals that name the figure that
fails."""

import math
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import (
    RESERVED,
    BfvParameters,
    Candidate,
    bfv_parameters,
    exact_bits,
    needed_margin,
    plain_modulus,
)
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import (
    EXACT_BITS,
    POLY_MODULI,
    SECURITY_LIMITS,
    ciphertexts,
    is_prime,
)
from hyperlock.encryption.vector import Vector
from hyperlock.errors import CiphertextRefused, ConfigError
from tests.encryption.sums import budget, of_coefficients

AUTO = ("auto", "auto", "auto")


@pytest.fixture(scope="module")
def bfv() -> Bfv:
    return Bfv(bfv_parameters(*AUTO, Extent(8), 16, 128))


@pytest.mark.parametrize(
    ("value_bits", "clients", "security"), product((8, 12, 16), (2, 16, 128, 1024), (128, 192, 256))
)
def test_the_rule_chooses_secure_parameters_with_a_margin(value_bits, clients, security):
    p = bfv_parameters(*AUTO, Extent(value_bits), clients, security)
    n = p.poly_modulus
    t = p.plain_modulus
    assert sum(p.coeff_mod_bits) <= SECURITY_LIMITS[security][n] and p.security_bits >= security
    assert is_prime(t) and t % 8 in (3, 5) and t > 2 ** (p.packing.fields * p.packing.field_bits)
    assert 2**p.packing.field_bits >= 2 * clients * largest_value(value_bits)
    q = math.prod(2**bits for bits in p.coeff_mod_bits[:-1])
    sigma = math.sqrt((1 + 2 * n / 3) / 12)
    assert q / (4 * t) >= 0.99 * (9.5 * sigma * math.sqrt(clients) + 2 * clients)


@pytest.mark.parametrize(
    ("value_bits", "clients", "ring"),
    [
        (8, 16, "auto"),
        (12, 16, "auto"),
        (16, 16, "auto"),
        (16, 16, 8192),
        (8, 128, "auto"),
        (16, 128, 16384),
        pytest.param(8, 1024, "auto", marks=pytest.mark.slow),
    ],
)
def test_sums_of_as_many_clients_as_allowed_are_exact(value_bits, clients, ring):
    """Thirds of the vector: all at +levels, all at -levels, random; for few clients into a second
    ciphertext too."""
    scheme = Bfv(bfv_parameters(ring, "auto", "auto", Extent(value_bits), clients, 128))
    keys = scheme.generate_keys()
    levels = largest_value(value_bits)
    rng = np.random.default_rng(0)
    length = scheme.parameters.packing.fields * scheme.parameters.slots + (
        50 if clients <= 16 else -50
    )
    encryptor = scheme.encryptor(keys.public)
    total = scheme.accumulator(keys.public, length)
    expected = np.zeros(length, np.int64)
    for _ in range(clients):
        vector = rng.integers(-levels, levels, length, endpoint=True)
        vector[: length // 3], vector[length // 3 : 2 * length // 3] = levels, -levels
        chunks = tuple(encryptor.encrypt(vector))
        assert max(map(len, chunks)) <= scheme.max_chunk_bytes and len(
            chunks
        ) == scheme.chunk_count(length)
        total.add(chunks)
        expected += vector
    assert (scheme.decryptor(keys.secret).decrypt(total.total(), length) == expected).all()


@given(st.integers(2, 2**20))
def test_primes_are_primes(number):
    assert is_prime(number) == all(number % d for d in range(2, math.isqrt(number) + 1))


def test_large_primes_and_pseudoprimes_are_told_apart():
    assert is_prime(2**61 - 1) and is_prime(2**59 - 55)
    assert (
        not is_prime(3215031751)
        and not is_prime(3825123056546413051)
        and not is_prime((2**31 - 1) ** 2)
    )


REFUSED = {
    "fields overflow": ((4096, "auto", 5, 8, 16, 128), "encryption.fields=5", "5 x 12 bits"),
    "security limit": (
        (4096, [60, 50], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits=[60,50]",
        "at most 109 bits",
    ),
    "margin": ((4096, [57, 40], 4, 8, 16, 128), "encryption.coeff_mod_bits=[57,40]", "margin"),
    "no chain": ((2048, "auto", 4, 8, 16, 128), "encryption.poly_modulus=2048", "at most 53 bits"),
    "ring not tabled": ((5000, "auto", "auto", 8, 16, 128), "encryption.poly_modulus=5000", "4096"),
    "not a number": (("big", "auto", "auto", 8, 16, 128), "encryption.poly_modulus=big", "integer"),
    "too many bits": (
        ("auto", "auto", "auto", 24, 2**40, 128),
        "encryption.value_bits=24",
        "field overflow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_setting_value_and_the_figure_that_fails(name):
    arguments, start, figure = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        bfv_parameters(*arguments[:3], Extent(arguments[3]), *arguments[4:])
    text = str(caught.value)
    assert text.startswith(start) and figure in text and "allowed: " in text
    assert re.search(r"try: encryption\.\w+=", text)


def test_a_chain_of_the_size_that_a_refusal_asks_for_is_enough():
    with pytest.raises(ConfigError) as caught:
        bfv_parameters(4096, [57, 40], 4, Extent(8), 16, 128)
    bits = int(re.search(r"at least (\d+) bits", str(caught.value)).group(1))
    assert bfv_parameters(4096, [bits, 40], 4, Extent(8), 16, 128).margin_bits >= 0
    with pytest.raises(ConfigError):
        bfv_parameters(4096, [bits - 1, 40], 4, Extent(8), 16, 128)


def test_every_ring_that_has_room_can_be_asked_for():
    for ring in POLY_MODULI:
        p = bfv_parameters(ring, "auto", "auto", Extent(8), 16, 128)
        assert (
            p.poly_modulus == ring
            and Candidate(ring, p.coeff_mod_bits, Packing(p.packing.fields, 12), 16).margin_bits
            >= 0
        )


def test_the_margin_follows_the_noise_that_is_measured(bfv):
    """A fresh ciphertext's budget says how large its noise is; the rule's sigma must not be below
    it."""
    p = bfv_parameters(4096, [60, 40], 1, Extent(8), 16, 128)
    scheme = Bfv(p)
    keys = scheme.generate_keys()
    chunk = of_coefficients(scheme, keys.public, np.zeros(4096, np.int64))
    left = budget(scheme, keys.secret, chunk)
    log_noise = sum(p.coeff_mod_bits[:-1]) - 1 - math.log2(p.plain_modulus) - left
    assert 4 < log_noise <= needed_margin(4096, 1) + 1


def test_bytes_per_parameter_stay_below_those_of_float32(bfv):
    keys = bfv.generate_keys()
    length = 4 * 4032 * 5
    chunks = bfv.encryptor(keys.public).encrypt(np.ones(length, np.int64))
    assert sum(map(len, chunks)) / length <= 3.66


def test_a_sum_under_another_key_or_of_too_many_is_refused(bfv):
    keys = bfv.generate_keys()
    other = bfv.generate_keys()
    total = bfv.accumulator(other.public, 30)
    for _ in range(3):
        total.add(tuple(bfv.encryptor(other.public).encrypt(np.arange(30))))
    with pytest.raises(CiphertextRefused, match="noise budget"):
        bfv.decryptor(keys.secret).decrypt(total.total(), 30)


@pytest.mark.parametrize("bad", [b"", b"garbage", b"\x0a\x01\x0a", bytes(2000)])
def test_what_is_no_ciphertext_is_refused_and_leaves_the_sum(bfv, bad):
    keys = bfv.generate_keys()
    total, untouched = (bfv.accumulator(keys.public, 30) for _ in range(2))
    good = tuple(bfv.encryptor(keys.public).encrypt(np.arange(30)))
    total.add(good)
    untouched.add(good)
    with pytest.raises(CiphertextRefused):
        total.add((bad,))
    assert list(total.total()) == list(untouched.total())


def test_ciphertexts_of_ckks_are_refused(bfv):
    from hyperlock.encryption.ckks import Ckks
    from hyperlock.encryption.ckks_parameters import ckks_parameters

    ckks = Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), 16, 128))
    chunks = tuple(ckks.encryptor(ckks.generate_keys().public).encrypt(np.arange(30)))
    with pytest.raises(CiphertextRefused):
        bfv.accumulator(bfv.generate_keys().public, 30).add(chunks)


# The reserved coefficients


@pytest.mark.parametrize("place", [0, 1, RESERVED - 1])
@pytest.mark.parametrize("value", [1, -1, 4000])
def test_a_reserved_coefficient_that_is_not_zero_is_refused(bfv, place, value):
    keys = bfv.generate_keys()
    coefficients = np.zeros(4096, np.int64)
    coefficients[RESERVED] = 5
    decryptor = bfv.decryptor(keys.secret)
    good = of_coefficients(bfv, keys.public, coefficients)
    assert decryptor.decrypt([good], 4).tolist() == [5, 0, 0, 0]
    coefficients[place] = value
    with pytest.raises(CiphertextRefused, match="not zero where every update is"):
        decryptor.decrypt([of_coefficients(bfv, keys.public, coefficients)], 4)


def test_a_coefficient_behind_the_vector_that_is_not_zero_is_refused(bfv):
    keys = bfv.generate_keys()
    coefficients = np.zeros(4096, np.int64)
    coefficients[RESERVED + 1] = 1
    chunk = of_coefficients(bfv, keys.public, coefficients)
    with pytest.raises(CiphertextRefused, match="behind its end"):
        bfv.decryptor(keys.secret).decrypt([chunk], 4)
    assert bfv.decryptor(keys.secret).decrypt([chunk], 8).sum() == 1


@given(st.sampled_from([9, 12, 24, 36, 45, 48, 54, 57]))
def test_modulo_t_the_ring_is_two_fields(bits):
    """t is of order N/2 modulo 2N for every ring: X^N + 1 has two irreducible factors, so that a
    multiple of the key is of rank N/2 at least."""
    t = plain_modulus(bits)
    assert t > 2**bits and is_prime(t)
    for n in POLY_MODULI:
        assert pow(t, n // 2, 2 * n) == 1 and pow(t, n // 4, 2 * n) != 1


def test_low_bits_are_dropped_as_far_as_the_bound_allows_and_no_further():
    for bits, clients in product((4, 5, 8, 12, 16), (2, 16, 128)):
        p = bfv_parameters(*AUTO, Extent(bits), clients, 128)
        layout = p.layout
        assert p.exact_to_bits >= EXACT_BITS
        if len(layout.primes) > 1:
            assert layout.dropped == layout.dropped_seeded == 0
            continue
        budget = layout.primes[0] / (4 * p.plain_modulus)
        n = p.poly_modulus
        for more in ((1, 1), (0, 1)):
            further = (layout.dropped + more[0], layout.dropped_seeded + more[1])
            assert exact_bits(n, clients, budget, *further) < EXACT_BITS


@pytest.mark.parametrize(("bits", "whole", "seeded"), [(8, 3.70, 1.75), (5, 2.80, 1.32)])
def test_bytes_per_parameter_of_a_large_model(bits, whole, seeded):
    parameters = 1_663_370
    length = Vector(Extent(bits), (parameters,)).length
    p = bfv_parameters(*AUTO, Extent(bits), 16, 128, length)
    count = Bfv(p).chunk_count(length)
    assert count * p.layout.whole_bytes / parameters <= whole - 0.001  # for the message around it
    assert count * p.layout.seeded_bytes / parameters <= seeded - 0.001


@pytest.mark.parametrize(("value_bits", "clients"), [(4, 100), (4, 1000), (8, 32), (9, 1000)])
def test_one_prime_is_taken_where_it_costs_few_bytes(value_bits: int, clients: int) -> None:
    """And two where they save many."""
    length = 1_000_000
    chosen = bfv_parameters("auto", "auto", "auto", Extent(value_bits), clients, 128, length)
    least = min(
        chunks * parameters.layout.whole_bytes
        for primes in (1, 2)
        for bits in range(30, 61)
        if (parameters := tried(value_bits, clients, (bits,) * primes + (20,)))
        for chunks in [ciphertexts(parameters.packing.slots(length), parameters.slots)]
    )
    chunks = ciphertexts(chosen.packing.slots(length), chosen.slots)
    assert least <= chunks * chosen.layout.whole_bytes <= 1.07 * least
    assert (len(chosen.coeff_mod_bits) == 2) == ((value_bits, clients) != (9, 1000))


def tried(value_bits: int, clients: int, chain: tuple[int, ...]) -> BfvParameters | None:
    """What is chosen with this chain at N=4096, if anything."""
    try:
        return bfv_parameters(4096, list(chain), "auto", Extent(value_bits), clients, 128)
    except ConfigError:
        return None

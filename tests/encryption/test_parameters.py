"""Parameters: the security table, the bounds under which sums are exact, and refusals that say what
to do."""

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from hyperlock.encryption import ckks_parameters as parameters
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks_parameters import (
    RESIDUE_LIMIT,
    CkksParameters,
    ckks_noise,
    ckks_parameters,
)
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.parameters import (
    MAX_PRIME_BITS,
    POLY_MODULI,
    SECURITY_LIMITS,
    check_security,
)
from hyperlock.errors import ConfigError

VALUE_BITS = (8, 12, 16)
MAX_CLIENTS = (2, 16, 128, 1024)


def assert_exact_and_secure(p: CkksParameters) -> None:
    """The bounds that the docstring of `parameters.py` states, computed from it anew."""
    n = p.poly_modulus
    chain = p.coeff_mod_bits
    packing = p.packing
    assert sum(chain) <= SECURITY_LIMITS[p.security_bits][n]
    assert max(chain) <= MAX_PRIME_BITS and len(chain) >= 2
    # A field holds every sum, a slot its fields.
    assert p.max_clients * largest_value(p.extent.value_bits) < 2 ** (packing.field_bits - 1)
    slot_bits = packing.fields * packing.field_bits
    assert packing.fields >= 1 and slot_bits <= 62
    # Sum times scale stays away from the ends, q / 2, of the data modulus, for slots of two parts;
    # primes are just below 2^bits.
    assert math.sqrt(2) * 2.0 ** (slot_bits - 1 + p.scale_bits) <= 2.0 ** (sum(chain[:-1]) - 1.4)
    # Noise is below 3/16 but once in 2^64, by its Laplace tail, and rounding in the transforms
    # below 1/16.
    sigma = math.sqrt(n / 2 * (1 + 2 * n / 3) / 12) * math.sqrt(p.max_clients) / 2.0**p.scale_bits
    assert math.exp(-math.sqrt(2) * (3 / 16) / sigma) <= 2.0**-64 * (1 + 1e-9)
    assert math.sqrt(2) * 2.0 ** (slot_bits - 1) * 8 * math.log2(n) * 2.0**-53 <= 1 / 16
    assert RESIDUE_LIMIT == 3 / 16 + 1 / 16


def refusal(
    poly_modulus: object, chain: object, scale: object, value_bits: int, *others: int
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        ckks_parameters(poly_modulus, chain, scale, Extent(value_bits), *others)
    return caught.value


def test_the_security_table_is_seals_own(sealapi: Any) -> None:
    """SEAL's `hestdparms.h`, as the installed library answers it."""
    types = sealapi.SEC_LEVEL_TYPE
    levels = {128: types.TC128, 192: types.TC192, 256: types.TC256}
    assert set(SECURITY_LIMITS) == set(levels)
    for security, limits in SECURITY_LIMITS.items():
        for n, limit in limits.items():
            assert limit == sealapi.CoeffModulus.MaxBitCount(n, levels[security]), (security, n)


@pytest.mark.parametrize("security", SECURITY_LIMITS)
@pytest.mark.parametrize("n", POLY_MODULI)
def test_a_chain_at_the_limit_is_taken_and_one_bit_more_refused(security: int, n: int) -> None:
    limit = SECURITY_LIMITS[security][n]
    assert check_security(n, (limit,), security) >= security
    with pytest.raises(ConfigError, match=f"at most {limit} bits"):
        check_security(n, (limit - 20, 21), security)


def test_the_level_reported_is_the_best_that_holds() -> None:
    assert check_security(8192, (60, 58), 128) == 256
    assert check_security(8192, (60, 59), 128) == 192
    assert check_security(8192, (60, 60, 33), 128) == 128


@pytest.mark.parametrize("n", POLY_MODULI)
@pytest.mark.parametrize("value_bits", VALUE_BITS)
@pytest.mark.parametrize("clients", MAX_CLIENTS)
@pytest.mark.parametrize("security", SECURITY_LIMITS)
def test_automatic_parameters_are_exact_and_secure_or_refused(
    n: int, value_bits: int, clients: int, security: int
) -> None:
    try:
        p = ckks_parameters(n, "auto", "auto", Extent(value_bits), clients, security)
    except ConfigError:
        # Too small a ring for the grid; never the sizes that people use.
        assert n == 2048 or (n == 4096 and security == 256)
        return
    assert (p.poly_modulus, p.extent.value_bits, p.max_clients) == (n, value_bits, clients)
    assert p.security_bits >= security
    assert_exact_and_secure(p)


@pytest.mark.parametrize("n", POLY_MODULI)
@pytest.mark.parametrize(
    "chain", [[60, 40, 40, 60], [40, 40], [60, 60], [60, 20], [30, 24], [20, 20, 20]]
)
def test_chosen_chains_and_scales_are_exact_and_secure_or_refused(n: int, chain: list[int]) -> None:
    for value_bits, clients, scale in product(
        VALUE_BITS, MAX_CLIENTS, ("auto", 15, 20, 25, 30, 40, 60)
    ):
        try:
            p = ckks_parameters(n, chain, scale, Extent(value_bits), clients, 128)
        except ConfigError:
            continue
        assert p.coeff_mod_bits == tuple(chain) and scale in ("auto", p.scale_bits)
        assert_exact_and_secure(p)


@pytest.mark.parametrize(
    ("n", "chain", "security"),
    [
        (8192, [60, 40, 40, 60], 128),
        (8192, [40, 40], 256),
        (8192, [60, 60], 192),
        (4096, [60, 49], 128),
        (16384, [60, 40, 40, 60], 256),
    ],
)
def test_the_usual_chains_just_work(n: int, chain: list[int], security: int) -> None:
    p = ckks_parameters(n, chain, "auto", Extent(8), 16, 128)
    assert p.coeff_mod_bits == tuple(chain) and p.security_bits == security
    assert p.slots == n


def test_as_many_fields_as_fit_share_a_part() -> None:
    """60 data bits, one free, 19 of least scale at N=4096: 40 bits, which hold three fields of
    12."""
    p = ckks_parameters(4096, [60, 49], "auto", Extent(8), 16, 128)
    assert (p.packing.fields, p.packing.field_bits) == (3, 12)
    assert p.scale_bits == 59 - 36
    assert ckks_parameters(4096, [60, 49], "auto", Extent(12), 16, 128).packing.fields == 2
    assert ckks_parameters(4096, [60, 49], 40, Extent(8), 16, 128).packing.fields == 1


def test_scales_at_the_ends_of_what_is_allowed_are_taken() -> None:
    allowed = re.search(r"allowed: (\d+) to (\d+)", str(refusal(4096, [60, 49], 5, 8, 16, 128)))
    assert allowed is not None
    low = int(allowed[1])
    high = int(allowed[2])
    for scale in (low, high):
        assert_exact_and_secure(ckks_parameters(4096, [60, 49], scale, Extent(8), 16, 128))
    for scale in (low - 1, high + 1):
        assert refusal(4096, [60, 49], scale, 8, 16, 128).setting == "encryption.scale_bits"


REFUSED = {
    "ring not tabled": ((5000, "auto", "auto", 8, 16, 128), "encryption.poly_modulus", "5000"),
    "ring too small": ((1024, "auto", "auto", 8, 16, 128), "encryption.poly_modulus", "1024"),
    "chain too long": (
        (4096, [60, 50], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[60,50]",
    ),
    "chain too long for 256": (
        (8192, [60, 60], "auto", 8, 16, 256),
        "encryption.coeff_mod_bits",
        "[60,60]",
    ),
    "one prime": ((8192, [60], "auto", 8, 16, 128), "encryption.coeff_mod_bits", "[60]"),
    "no prime": ((8192, [], "auto", 8, 16, 128), "encryption.coeff_mod_bits", "[]"),
    "prime too large": (
        (8192, [61, 40], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[61,40]",
    ),
    "prime too small": (
        (8192, [60, 19], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[60,19]",
    ),
    "prime is no integer": (
        (8192, [60, 40.0], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[60,40.0]",
    ),
    "prime is a boolean": (
        (8192, [60, True], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[60,true]",
    ),
    "chain is a word": ((8192, "best", "auto", 8, 16, 128), "encryption.coeff_mod_bits", "best"),
    "chain is null": ((8192, None, "auto", 8, 16, 128), "encryption.coeff_mod_bits", "null"),
    "chain too short": (
        (4096, [20, 20], "auto", 8, 16, 128),
        "encryption.coeff_mod_bits",
        "[20,20]",
    ),
    "ring holds no value": (
        (2048, "auto", "auto", 16, 1024, 128),
        "encryption.coeff_mod_bits",
        "[33,20]",
    ),
    "scale too small": ((8192, [60, 40, 40, 60], 10, 8, 16, 128), "encryption.scale_bits", "10"),
    "scale too large": ((8192, [40, 40], 38, 8, 16, 128), "encryption.scale_bits", "38"),
    "scale is a word": ((8192, "auto", "big", 8, 16, 128), "encryption.scale_bits", "big"),
    "scale is a fraction": ((8192, "auto", 30.5, 8, 16, 128), "encryption.scale_bits", "30.5"),
    "sums too large": ((8192, "auto", "auto", 24, 2**20, 128), "encryption.value_bits", "24"),
    "security not tabled": ((8192, "auto", "auto", 8, 16, 100), "encryption.security", "100"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_setting_value_allowed_and_what_to_try(name: str) -> None:
    arguments, setting, value = REFUSED[name]
    error = refusal(*arguments)
    assert error.setting == setting
    first, *rest = str(error).split("\n  ")
    assert first.startswith(f"{setting}={value}: ") and len(first) > len(setting) + len(value) + 10
    assert [line.split(": ")[0] for line in rest] == ["allowed", "try"]
    assert all(len(line.split(": ", 1)[1]) > 0 for line in rest)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hint_names_the_setting_to_change(name: str) -> None:
    hint = str(refusal(*REFUSED[name][0])).rpartition("try: ")[2]
    assert re.search(r"encryption\.\w+", hint), hint


def test_where_no_scale_would_do_none_is_offered() -> None:
    for n in POLY_MODULI:
        for scale in (5, 30):
            allowed = re.search(
                r"allowed: (\d+) to (-?\d+)", str(refusal(n, [20, 20], scale, 8, 16, 128))
            )
            assert allowed is None or int(allowed[1]) <= int(allowed[2]), allowed[0]


def test_the_ring_that_a_refused_chain_is_sent_to_takes_it() -> None:
    for n, chain in ((2048, [40, 20]), (4096, [60, 50]), (8192, [60, 60, 60, 60])):
        hint = re.search(
            r"encryption\.poly_modulus=(\d+)", str(refusal(n, chain, "auto", 8, 16, 128))
        )
        assert hint is not None
        assert check_security(int(hint[1]), tuple(chain), 128) >= 128
    longest = refusal(32768, [60] * 14 + [42], "auto", 8, 16, 128)
    assert "poly_modulus=32768" in str(longest).splitlines()[
        0
    ] and "try: encryption.coeff_mod_bits=auto" in str(longest)


def test_data_primes_as_large_as_the_refusal_asks_for_are_enough() -> None:
    asked = re.search(r"at least (\d+) bits", str(refusal(4096, [20, 20], "auto", 8, 16, 128)))
    assert asked is not None
    assert_exact_and_secure(ckks_parameters(4096, [int(asked[1]), 20], "auto", Extent(8), 16, 128))
    refusal(4096, [int(asked[1]) - 1, 20], "auto", 8, 16, 128)


def test_noise_grows_with_the_square_root_of_the_updates() -> None:
    assert ckks_noise(4096, 1) == pytest.approx(683, rel=0.01)
    assert ckks_noise(8192, 1) == pytest.approx(1365, rel=0.01)
    assert ckks_noise(4096, 100) == pytest.approx(10 * ckks_noise(4096, 1))


def test_the_smallest_scale_is_no_larger_than_it_must_be() -> None:
    for n in POLY_MODULI:
        for clients in MAX_CLIENTS:
            scale = parameters.min_scale_bits(n, clients)
            tail = math.exp(-math.sqrt(2) * 3 / 16 * 2.0 ** (scale - 1) / ckks_noise(n, clients))
            assert tail > 2.0**-64


@pytest.mark.parametrize(
    ("value_bits", "clients"),
    [
        ((4, 8, 10, 13, 16, 24), (2, 128, 1024, 2**16, 2**18, 2**20)),
        pytest.param(
            range(4, 25),
            sorted(
                {c for k in range(1, 21) for c in (2**k, 2**k - 1, 2**k + 1) if 2 <= c <= 2**20}
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "all"],
)
def test_automatic_chains_stay_under_the_newer_guidance_too(
    value_bits: Sequence[int], clients: Sequence[int]
) -> None:
    """Bossuat et al., eprint 2024/463, 128 bits, ternary secret; docs/security.md says so."""
    newer = {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}
    chosen = 0
    for n, bits, most in product(newer, value_bits, clients):
        for choose in (ckks_parameters, bfv_parameters):
            try:
                chain = choose(n, "auto", "auto", Extent(bits), most, 128).coeff_mod_bits
            except ConfigError:
                continue
            chosen += 1
            assert sum(chain) <= newer[n], (choose.__name__, n, bits, most)
    assert chosen > len(value_bits) * len(clients) * 5


def test_an_automatic_ckks_chain_is_no_longer_than_its_fields_and_the_smallest_scale() -> None:
    p = ckks_parameters("auto", "auto", "auto", Extent(8), 16, 128)
    assert (p.poly_modulus, p.coeff_mod_bits, p.packing.fields) == (4096, (56, 30), 3)
    assert p.scale_bits == parameters.min_scale_bits(4096, 16) == 19
    # One bit less holds no third field at any exact scale.
    assert ckks_parameters(4096, [55, 30], "auto", Extent(8), 16, 128).packing.fields == 2


@pytest.mark.parametrize("choose", [ckks_parameters, bfv_parameters])
@pytest.mark.parametrize("security", SECURITY_LIMITS)
def test_the_ring_follows_the_length_of_the_vector(choose: Any, security: int) -> None:
    """No other ring takes fewer bytes, but for two per cent; and short vectors take small rings."""
    found = []
    for length in (1, 44, 2000, 5000, 30_000, 101_788, 1_663_388):
        chosen = choose("auto", "auto", "auto", Extent(8), 16, security, length)
        found.append(chosen.poly_modulus)
        sizes = []
        for ring in POLY_MODULI:
            try:
                sizes.append(
                    upload(choose(ring, "auto", "auto", Extent(8), 16, security, length), length)
                )
            except ConfigError:
                continue
        assert upload(chosen, length) <= 1.02 * min(sizes)
        assert chosen.security_bits >= security
    assert (found == sorted(found) and found[0] < found[-1]) or security > 128


def upload(p: Any, length: int) -> int:
    """Bytes of the ciphertexts of one update."""
    return -(-p.packing.slots(length) // p.slots) * p.layout.whole_bytes


def test_both_schemes_default_to_the_same_security() -> None:
    for length in (44, 101_788, 1_663_388):
        levels = {
            choose("auto", "auto", "auto", Extent(8), 16, 128, length).security_bits
            for choose in (ckks_parameters, bfv_parameters)
        }
        assert levels == {128}


def test_every_automatic_choice_is_guarded_to_64_bits_and_more() -> None:
    for bits, log_clients in product(range(4, 25), range(1, 21)):
        for choose in (ckks_parameters, bfv_parameters):
            try:
                p = choose("auto", "auto", "auto", Extent(bits), 2**log_clients, 128)
            except ConfigError:
                assert choose is ckks_parameters and bits + log_clients > 28
                continue
            assert p.forgery_bits >= (101 if choose is bfv_parameters else 147)

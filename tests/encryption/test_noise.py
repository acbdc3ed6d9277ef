"""The tail bounds of `noise.py` hold for what they describe, for SEAL's ciphertexts, and for every
choice taken."""

import math
import re

import numpy as np
import pytest

from hyperlock.encryption import bfv_parameters as bfv_rule
from hyperlock.encryption import ckks_parameters as ckks_rule
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.noise import (
    MOST_BITS,
    coefficient_bits,
    least_allowed,
    run_bits,
    slot_bits,
)
from hyperlock.encryption.parameters import EXACT_BITS, POLY_MODULI, data_modulus_bits
from hyperlock.errors import ConfigError
from tests.encryption.sums import raw_parts, total


def noise_polynomials(rng: np.random.Generator, n: int, clients: int, keys: int) -> np.ndarray:
    """float64[keys, n]: sums of r1 * s over `clients` under one s each, as the docstring describes
    them."""
    twist = np.exp(1j * np.pi * np.arange(n) / n)
    errors = rng.uniform(-0.5, 0.5, (keys, clients, n)).sum(1)
    secrets = rng.integers(-1, 1, (keys, n), endpoint=True)
    values = np.fft.fft(errors * twist.conj()) * np.fft.fft(secrets * twist.conj())
    return (np.fft.ifft(values) * twist).real


@pytest.mark.parametrize(("n", "clients"), [(64, 1), (64, 16), (256, 3)])
def test_coefficients_exceed_no_threshold_more_often_than_the_bound_says(
    n: int, clients: int
) -> None:
    noise = np.abs(noise_polynomials(np.random.default_rng(0), n, clients, 20_000))
    assert np.std(noise_polynomials(np.random.default_rng(1), n, clients, 2000)) == pytest.approx(
        math.sqrt(clients * n / 18), rel=0.03
    )
    for deviations in (3.5, 4.0, 4.5):
        allowed = deviations * math.sqrt(clients * n / 18)
        seen = (noise > allowed).any(1).mean()
        bits = coefficient_bits(n, clients, allowed)
        assert 0 < seen <= 2.0**-bits


def test_coefficients_of_long_sums_are_nearly_gaussian() -> None:
    gaussian = 10**2 / 2 / math.log(2) - 1 - math.log2(4096)
    assert gaussian - 0.3 < coefficient_bits(4096, 16, 10 * math.sqrt(16 * 4096 / 18)) < gaussian


@pytest.mark.parametrize(("n", "clients"), [(64, 1), (64, 16), (256, 3)])
def test_slots_exceed_no_threshold_more_often_than_the_bound_says(n: int, clients: int) -> None:
    """And more often by far than a Gaussian would, so that the exponential tail is no excess of
    caution."""
    noise = noise_polynomials(np.random.default_rng(0), n, clients, 20_000)
    slots = (np.fft.fft(noise * np.exp(-1j * np.pi * np.arange(n) / n))[:, : n // 2]).real
    sigma = n * math.sqrt(clients) / 6
    assert np.std(slots) == pytest.approx(sigma, rel=0.03)
    for deviations in (4, 6, 8):
        seen = (np.abs(slots) > deviations * sigma).mean()
        assert 0 < seen <= 2.0 ** -slot_bits(n, clients, deviations * sigma)
    assert (np.abs(slots) > 6 * sigma).mean() > 1000 * math.erfc(6 / math.sqrt(2))


@pytest.mark.parametrize(("n", "clients"), [(2048, 1), (4096, 4)])
def test_seals_slots_exceed_no_threshold_more_often_than_the_bound_says(
    n: int, clients: int
) -> None:
    """Fresh keys each time: under one key, the same slots are noisy in every ciphertext. Real and
    imaginary parts, each by the same bound."""
    scheme = Ckks(ckks_parameters(n, "auto", 24, Extent(4), 4, 128))
    length = scheme.parameters.slots * scheme.parameters.packing.fields
    slots = []
    for _ in range(40):
        keys = scheme.generate_keys()
        (chunk,) = total(scheme, keys.public, [np.zeros(length, np.int64)] * clients)
        slots.append(raw_parts(scheme, keys.secret, chunk))
    noise = np.abs(slots) * 2.0**24
    sigma = n * math.sqrt(clients) / 6
    for part in np.split(noise, 2, axis=1):
        for deviations in (3, 4, 5):
            seen = (part > deviations * sigma).mean()
            assert 0 < seen <= 2.0 ** -slot_bits(n, clients, deviations * sigma)


def test_figures_grow_with_what_is_allowed_and_fall_with_the_clients() -> None:
    for bits_of, sigma in ((coefficient_bits, math.sqrt(4096 / 18)), (slot_bits, 4096 / 6)):
        figures = [bits_of(4096, 1, deviations * sigma) for deviations in np.linspace(0, 60, 200)]
        assert figures == sorted(figures) and figures[0] == 0
        assert bits_of(4096, 1, 1e12) == MOST_BITS and bits_of(4096, 1, -5.0) == 0
        assert (
            bits_of(4096, 4, 2 * 40 * sigma)
            <= bits_of(4096, 1, 40 * sigma)
            < bits_of(4096, 1, 41 * sigma) + 1
        )
        least = least_allowed(lambda allowed, bits_of=bits_of: bits_of(4096, 1, allowed), 64)
        assert bits_of(4096, 1, least) >= 64 > bits_of(4096, 1, least * (1 - 2**-18))


def test_a_run_sums_over_coordinates_and_rounds() -> None:
    assert run_bits(64, 101_770, 10) == pytest.approx(-math.log2(2**-64 * 101_770 * 10))
    assert 44 < run_bits(64, 101_770, 10) < 44.1


@pytest.mark.parametrize("n", POLY_MODULI)
@pytest.mark.parametrize("clients", [2, 10, 16, 100, 128, 1024, 5000])
def test_every_choice_taken_is_exact_to_64_bits_and_says_so(n: int, clients: int) -> None:
    for value_bits in (4, 8, 12, 16):
        for make, choose in (
            (Ckks, lambda v: ckks_parameters(n, "auto", "auto", Extent(v), clients, 128)),
            (Bfv, lambda v: bfv_parameters(n, "auto", "auto", Extent(v), clients, 128)),
        ):
            try:
                p = choose(value_bits)
            except ConfigError:
                assert n == 2048
                continue
            assert p.exact_to_bits >= EXACT_BITS and p.undetected_bits >= 240
            assert make(p).describe()["exact_to_bits"] == round(p.exact_to_bits, 1)


def test_the_presets() -> None:
    bfv = bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128)
    assert (
        bfv.poly_modulus,
        bfv.coeff_mod_bits[0],
        bfv.packing.fields,
        bfv.packing.field_bits,
    ) == (4096, 60, 4, 12)
    assert bfv.exact_to_bits == pytest.approx(93.8, abs=0.1)
    assert (bfv.layout.dropped, bfv.layout.dropped_seeded) == (5, 6)
    ckks = ckks_parameters("auto", "auto", "auto", Extent(8), 16, 128)
    assert (ckks.coeff_mod_bits, ckks.scale_bits, ckks.packing.fields) == ((56, 30), 19, 3)
    assert ckks.exact_to_bits == pytest.approx(66.3, abs=0.1)


def test_a_scale_below_the_smallest_is_refused_with_the_figure_that_fails() -> None:
    for n in (4096, 8192):
        smallest = ckks_rule.min_scale_bits(n, 16)
        assert ckks_parameters(n, "auto", smallest, Extent(8), 16, 128).exact_to_bits >= EXACT_BITS
        with pytest.raises(ConfigError, match=f"allowed: {smallest} to") as caught:
            ckks_parameters(n, "auto", smallest - 1, Extent(8), 16, 128)
        figure = re.search(r"exact to ([\d.]+) bits, 64 are needed", str(caught.value))
        bits = slot_bits(n, 16, 3 / 16 * 2.0 ** (smallest - 1))
        assert (
            figure is not None
            and float(figure[1]) == pytest.approx(bits, abs=0.05)
            and bits < EXACT_BITS
        )


def test_data_primes_a_bit_too_short_are_refused_with_the_figure_that_fails() -> None:
    with pytest.raises(ConfigError, match="margin") as caught:
        bfv_parameters(4096, [59, 40], 4, Extent(8), 16, 128)
    figure = re.search(r"exact to ([\d.]+) bits, 64 are needed", str(caught.value))
    budget = 2.0**57 / bfv_rule.plain_modulus(48)
    assert figure is not None and float(figure[1]) == pytest.approx(
        bfv_rule.exact_bits(4096, 16, budget), abs=0.05
    )


def test_nine_and_a_half_standard_deviations_were_not_enough_for_bfv() -> None:
    """As the rule once had it: 2^-64 for one coefficient, but a slot hangs on all of them."""
    assert 51 < coefficient_bits(4096, 16, 9.5 * math.sqrt(16 * 4096 / 18)) < 53
    assert 10.3 < (2 ** bfv_rule.needed_margin(4096, 16) - 32) / math.sqrt(16 * 4096 / 18) < 10.4
    assert 10.5 < (2 ** bfv_rule.needed_margin(32768, 16) - 32) / math.sqrt(16 * 32768 / 18) < 10.6


@pytest.mark.parametrize(
    ("n", "chain"),
    [
        (8192, [60, 40, 40, 60]),
        (4096, [36, 36, 37]),
        (2048, [34, 20]),
        (8192, [21] * 10),
        (16384, [20, 21, 20, 23]),
        (32768, [24] * 12),
    ],
    ids=str,
)
def test_the_data_modulus_is_the_one_that_seal_chooses(n: int, chain: list[int]) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, n, coeff_mod_bit_sizes=chain)
    primes = context.seal_context().data.first_context_data().parms().coeff_modulus()
    assert data_modulus_bits(n, tuple(chain)) == pytest.approx(
        math.log2(math.prod(p.value() for p in primes))
    )


def test_short_primes_do_not_overflow_unnoticed() -> None:
    """Nine primes of 21 bits hold 183 bits, not 189: sums at a scale of 2^176 would wrap around."""
    with pytest.raises(ConfigError, match="overflow the 183 bits"):
        ckks_parameters(8192, [21] * 10, 176, Extent(8), 16, 128)
    assert ckks_parameters(8192, [21] * 10, 170, Extent(8), 16, 128).packing.fields == 1
    p = bfv_parameters(8192, [20, 20, 20, 20], "auto", Extent(8), 16, 128)
    assert p.margin_bits >= 0 and p.packing.fields == 3


@pytest.mark.parametrize(
    "whole", [0, 16, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 12))]
)
def test_any_mixture_of_both_forms_is_covered(whole: int) -> None:
    """Of sums of 16 with the noise of either form, at a small ring where thresholds are passed."""
    n = 64
    rng = np.random.default_rng(whole)
    keys = 20_000
    noise = noise_polynomials(rng, n, whole, keys) if whole else np.zeros((keys, n))
    coins = (
        rng.binomial(21, 0.5, (2, keys, 16 - whole, n)) if whole < 16 else np.zeros((2, 1, 1, 1))
    )
    noise = np.abs(noise + (coins[0] - coins[1]).sum(1))
    for deviations in (3.5, 4.0, 4.5):
        allowed = deviations * math.sqrt(16 * max(n / 18, 10.5))
        seen = (noise > allowed).any(1).mean()
        assert seen <= 2.0 ** -coefficient_bits(n, 16, allowed, allowed)


def test_a_seeded_ciphertext_leaves_more_room() -> None:
    alone = coefficient_bits(4096, 16, 700.0)
    assert coefficient_bits(4096, 16, 700.0, 700.0) == pytest.approx(alone, abs=0.1)
    assert coefficient_bits(4096, 16, 700.0, 100.0) < 64 < alone
    assert coefficient_bits(4096, 16, 700.0, 0.0) == 0

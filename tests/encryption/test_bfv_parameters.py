"""BFV's parameters: the margin rule that their docstring states, and sums that are exact under
it."""

import math
from itertools import product

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.parameters import POLY_MODULI, SECURITY_LIMITS, is_prime
from hyperlock.errors import ConfigError


def choices() -> list:
    found = []
    for ring, bits, clients, fields in product(
        ("auto", *POLY_MODULI), (4, 8, 12, 16), (2, 16, 128, 1024), ("auto", 1)
    ):
        try:
            found.append(bfv_parameters(ring, "auto", fields, Extent(bits), clients, 128))
        except ConfigError:
            assert ring == 2048
    return found


def test_automatic_parameters_are_secure_and_their_fields_hold_every_sum() -> None:
    for p in choices():
        assert sum(p.coeff_mod_bits) <= SECURITY_LIMITS[p.security_bits][p.poly_modulus]
        assert p.max_clients * largest_value(p.extent.value_bits) < 2 ** (p.packing.field_bits - 1)
        assert 2 ** (p.packing.fields * p.packing.field_bits) <= p.plain_modulus < 2**60
        assert is_prime(p.plain_modulus) and p.plain_modulus % 8 in (3, 5)


def test_automatic_parameters_hold_the_margin() -> None:
    """q / (4t) >= 9.5 sigma sqrt(K) + 2K + K 2^(d-1), with the t that is used."""
    for p in choices():
        sigma = math.sqrt((1 + 2 * p.poly_modulus / 3) / 12)
        noise = 9.5 * sigma * math.sqrt(p.max_clients) + 2 * p.max_clients
        if p.layout.dropped:
            noise += p.max_clients * 2 ** (p.layout.dropped - 1)
        assert 2.0 ** sum(p.coeff_mod_bits[:-1]) / (4 * p.plain_modulus) >= noise, p


@pytest.mark.parametrize(
    "choice",
    [
        (2048, "auto", "auto", 4, 16), ("auto", "auto", "auto", 8, 16),
        ("auto", "auto", "auto", 16, 16),
        ("auto", "auto", "auto", 8, 128),
        (4096, "auto", 1, 8, 16),
    ],
    ids=str,
)  # fmt: skip
def test_sums_of_all_clients_are_exact(choice: tuple) -> None:
    *before, bits, clients = choice
    scheme = Bfv(bfv_parameters(*before, Extent(bits), clients, 128))
    p = scheme.parameters
    keys = scheme.generate_keys()
    rng = np.random.default_rng(0)
    length = p.packing.fields * (p.slots + 100)
    levels = largest_value(p.extent.value_bits)
    encryptor = scheme.encryptor(keys.public)
    accumulator = scheme.accumulator(keys.public, length)
    expected = np.zeros(length, np.int64)
    for _ in range(p.max_clients):
        vector = rng.integers(-levels, levels, length, endpoint=True)
        vector[: length // 3], vector[length // 3 : length // 2] = levels, -levels
        accumulator.add(tuple(encryptor.encrypt(vector)))
        expected += vector
    assert (scheme.decryptor(keys.secret).decrypt(accumulator.total(), length) == expected).all()

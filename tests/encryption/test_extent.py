"""Extents: sums of values with noise in them stay within their bound, every scheme is exact up to
it, and what lies beyond is refused."""

import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import TAIL, TAIL_BITS, Extent
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.parameters import EXACT_BITS
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.encryption.vector import Vector
from hyperlock.errors import CiphertextRefused, ConfigError
from hyperlock.settings.schema import MAX_VALUE_BITS, MIN_VALUE_BITS
from tests.encryption.sums import added

LENGTH = 30
AUTO = ("auto", "auto", "auto")
CLIENTS = st.integers(1, 2**20)


@st.composite
def noisy(draw: st.DrawFn) -> Extent:
    """Any extent with noise that its grid holds."""
    value_bits = draw(st.integers(MIN_VALUE_BITS, MAX_VALUE_BITS))
    signal = draw(st.integers(1, largest_value(value_bits) - 1))
    room = largest_value(value_bits) - signal
    return Extent(value_bits, signal, draw(st.floats(0.01, 1)) * room / TAIL)


# The bounds


@given(value_bits=st.integers(MIN_VALUE_BITS, MAX_VALUE_BITS), clients=CLIENTS)
def test_without_noise_every_client_may_be_at_its_largest_at_once(
    value_bits: int, clients: int
) -> None:
    extent = Extent(value_bits)
    levels = 2 ** (value_bits - 1) - 1
    assert extent.largest_value == levels and extent.largest_sum(clients) == clients * levels
    assert extent.sum_bits(clients) == value_bits + math.ceil(math.log2(clients))
    assert extent.sum_type(clients) == integer_type(clients * levels)
    assert extent == Extent(value_bits, None, 0.0) and str(extent) == str(value_bits)


@given(extent=noisy(), clients=CLIENTS)
def test_with_noise_a_field_has_the_fewest_bits_that_hold_every_sum(
    extent: Extent, clients: int
) -> None:
    top = extent.largest_sum(clients)
    assert top <= clients * extent.largest_value <= clients * largest_value(extent.value_bits)
    assert top <= clients * extent.signal + math.ceil(TAIL * extent.spread * math.sqrt(clients))
    assert 2 ** (extent.sum_bits(clients) - 2) <= top < 2 ** (extent.sum_bits(clients) - 1)
    assert extent.sum_bits(clients) <= Extent(extent.value_bits).sum_bits(clients)
    # Of one it is a value; and what fits for many fits for fewer.
    assert extent.largest_sum(1) == extent.largest_value
    assert extent.largest_sum(clients + 1) > top >= clients


def shares(spread: float, cut: int) -> np.ndarray:
    """float64[2 cut + 1]: the discrete Gaussian's probabilities, from -cut to cut."""
    weights = np.exp(-(np.arange(-cut, cut + 1) ** 2) / (2 * spread**2))
    return weights / weights.sum()


@pytest.mark.parametrize("spread", [3.0, 20.5, 184.0])
def test_noise_is_cut_where_it_is_not_seen_again(spread: float) -> None:
    """The probability of more, summed up to 30 deviations."""
    cut = Extent(16, 1, spread).cut
    whole = shares(spread, math.ceil(30 * spread))
    middle = whole.size // 2
    assert 0 < 2 * whole[middle + cut + 1 :].sum() <= 2.0**-TAIL_BITS
    assert TAIL_BITS > EXACT_BITS


@pytest.mark.parametrize("clients", [2, 16, 100])
@pytest.mark.parametrize("cut", [29, 12, 5])
def test_the_sum_of_noise_stays_within_its_bound(clients: int, cut: int) -> None:
    """Its distribution, by convolution; also of noise that is cut far earlier than it need be."""
    extent = Extent(8, 1, 3.0)
    one = shares(extent.spread, cut)
    total = np.ones(1)
    for _ in range(clients):
        total = np.convolve(total, one)
    noise = np.abs(np.arange(total.size) - total.size // 2)
    beyond = total[noise > extent.largest_sum(clients) - clients * extent.signal].sum()
    assert beyond <= 2.0**-TAIL_BITS


# Sums


SCHEMES = {
    "bfv": lambda extent, n: Bfv(bfv_parameters(*AUTO, extent, n, 128, LENGTH)),
    "ckks": lambda extent, n: Ckks(ckks_parameters(*AUTO, extent, n, 128, LENGTH)),
    "none": Plain,
}
SIZES = [
    (Extent(12, 64, 184.0), 16),
    (Extent(10, 60, 20.0), 7),
    (Extent(4, 1, 0.6), 10),
    (Extent(20, 10, 54_000.0), 12),
]


@lru_cache
def made(name: str, extent: Extent, most: int) -> tuple[Scheme, KeyPair]:
    """A scheme for so many clients, with keys."""
    scheme = SCHEMES[name](extent, most)
    return scheme, scheme.generate_keys()


def split(sums: np.ndarray, clients: int, top: int, rng: np.random.Generator) -> np.ndarray:
    """int64[clients, length] within ±top that sum to `sums`, int64[length], and look random."""
    vectors = np.repeat(sums[np.newaxis] // clients, clients, axis=0)
    vectors += np.arange(clients)[:, np.newaxis] < sums % clients
    for i in range(0, clients - 1, 2):
        room = top - np.abs(vectors[i : i + 2]).max(axis=0)
        moved = rng.integers(-room, room, endpoint=True)
        vectors[i] += moved
        vectors[i + 1] -= moved
    assert (vectors.sum(axis=0) == sums).all() and np.abs(vectors).max() <= top
    return vectors


def released(scheme: Scheme, keys: KeyPair, vectors: np.ndarray) -> np.ndarray:
    """What the key holder decrypts of the sum of int64[clients, length]."""
    encryptor = scheme.encryptor(keys.public)
    updates = (tuple(encryptor.encrypt(vector)) for vector in vectors)
    total = added(scheme, keys.public, updates, vectors.shape[1])
    return scheme.decryptor(keys.secret).decrypt(total, vectors.shape[1])


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_sums_with_noise_are_exact_to_their_very_limits(
    name: str, size: tuple[Extent, int], data: st.DataObject
) -> None:
    extent, most = size
    scheme, keys = made(name, extent, most)
    clients = data.draw(st.integers(1, most))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    top = extent.largest_sum(clients)
    # At either end, or anywhere between.
    signs = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=LENGTH, max_size=LENGTH))
    sums = np.where(signs, top * np.array(signs), rng.integers(-top, top, LENGTH, endpoint=True))
    found = released(scheme, keys, split(sums, clients, extent.largest_value, rng))
    assert (found == sums).all() and found.dtype == extent.sum_type(most)

    # What the key holder then checks; one more in any coordinate is more than so many can have.
    vector = Vector(extent, (LENGTH - 1,))
    sums[0] = clients
    assert vector.possible(sums, clients)
    for sign in (-1, 1):
        above = sums.copy()
        above[1 + rng.integers(LENGTH - 1)] = sign * (top + 1)
        assert not vector.possible(above, clients)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(("extent", "most"), SIZES, ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
def test_one_above_the_largest_sum_of_all_is_refused(
    name: str, extent: Extent, most: int, sign: int
) -> None:
    scheme, keys = made(name, extent, most)
    rng = np.random.default_rng(0)
    sums = np.zeros(LENGTH, np.int64)
    sums[rng.integers(LENGTH)] = sign * extent.largest_sum(most)
    assert (released(scheme, keys, split(sums, most, extent.largest_value, rng)) == sums).all()
    beyond = split(sums + np.sign(sums), most, extent.largest_value, rng)
    with pytest.raises(CiphertextRefused, match="out of range"):
        released(scheme, keys, beyond)


def test_sums_in_the_clear_do_not_wrap_whatever_the_clients_send() -> None:
    """All at their largest at once, which honest noise never is."""
    extent = Extent(16, 10, 3000.0)
    plain = Plain(extent, 1024)
    assert extent.sum_type(1024) == np.int32
    largest = np.full((1024, LENGTH), extent.largest_value)
    with pytest.raises(CiphertextRefused, match="out of range"):
        released(plain, plain.generate_keys(), largest)
    narrow = Plain(Extent(12, 1, 200.0), 16)
    with pytest.raises(CiphertextRefused, match="out of range"):
        released(narrow, narrow.generate_keys(), np.full((16, LENGTH), 1900))


def test_everything_of_an_extent_is_in_the_fingerprint_and_among_the_figures() -> None:
    extents = [Extent(12), Extent(12, 64, 184.0), Extent(12, 64, 184.5), Extent(12, 65, 184.0)]
    extents += [Extent(13, 64, 184.0), Extent(12, 64, math.nextafter(184.0, 0))]
    for make in SCHEMES.values():
        prints = {make(extent, 16).fingerprint for extent in extents}
        assert len(prints) == len(extents)
        told = make(extents[1], 16).describe()
        assert (told["value_bits"], told["signal"], told["spread"]) == (12, 64, 184.0)
        assert "spread" not in make(extents[0], 16).describe()


# The vector


def test_with_noise_the_count_is_the_only_total() -> None:
    vector = Vector(Extent(12, 64, 184.0), (3, 2))
    assert vector.counted and vector.length == 1 + 5
    update = np.arange(5, dtype=np.int16)
    joined = vector.join(Totals(1, samples=600, loss=3.5, saturated=9), update)
    assert joined.tolist() == [1, 0, 1, 2, 3, 4]
    totals, sums = vector.split(7 * joined)
    assert totals == Totals(7) and (sums == 7 * update).all()
    # A digit of seven clients is 7 at most, and no coordinate has noise that makes it negative.
    assert vector.possible(7 * joined, 7)
    for digit in (-1, 8):
        assert not vector.possible(np.array([digit, *sums]), 7)


def test_clients_do_not_tell_right_answers_beside_noise() -> None:
    assert not Vector(Extent(12), (3,), evaluated=True).counted
    with pytest.raises(ConfigError, match=r"runtime\.evaluation=sites: .*\n.*\n.*coordinator"):
        Vector(Extent(12, 64, 184.0), (3,), evaluated=True)


# What is refused


def test_a_grid_that_does_not_hold_its_noise_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError) as caught:
        Extent(8, 64, 184.0)
    assert str(caught.value) == (
        "encryption.value_bits=8: values of up to 64 with noise of up to 1766 leave the grid, "
        "which ends at 127\n  allowed: at least 12\n  try: encryption.value_bits=12"
    )
    assert Extent(12, 64, 184.0).largest_value == 64 + 1766
    with pytest.raises(ConfigError, match="value_bits=11: "):
        Extent(11, 64, 184.0)
    with pytest.raises(ConfigError, match="up to 127 with noise of up to 9"):
        Extent(8, spread=1.0)


@pytest.mark.parametrize("wrong", [(8, 5), (8, 5, 0.0), (8, 0, 1.0), (8, 5, -1.0)])
def test_what_is_no_extent_is_an_error(wrong: tuple) -> None:
    with pytest.raises(ValueError, match=r"deviation|beside noise"):
        Extent(*wrong)
    for spread in (math.inf, math.nan):
        with pytest.raises(ValueError, match="deviation"):
            Extent(8, 5, spread)


def test_parameters_that_do_not_hold_the_sums_are_refused() -> None:
    extent = Extent(24, 7_000_000, 100_000.0)
    with pytest.raises(ConfigError, match=r"value_bits=24: field overflow: .* take 64 bits"):
        bfv_parameters(*AUTO, extent, 2**40, 128)
    with pytest.raises(ConfigError, match=r"encryption\.fields=2: fields overflow: 2 x 44 bits"):
        bfv_parameters("auto", "auto", 2, extent, 2**20, 128)
    with pytest.raises(ConfigError, match="take 44 bits, more than double precision keeps exact"):
        ckks_parameters(*AUTO, extent, 2**20, 128)


# What it costs

MOST = 1.4  # bytes a parameter, over the same run at 8 bits without noise
# Parameters, clients; bits of a value and of a field; bytes a parameter with noise and at 8 bits
# without, as the public key makes them, and from a seed.
TABLE = [
    (101_770, 16, 12, 14, 4.66, 4.05, 2.18, 1.91),
    (101_770, 128, 11, 15, 5.12, 5.12, 2.45, 2.45),
    (101_770, 1024, 10, 18, 6.34, 6.54, 3.18, 3.15),
    (1_663_370, 16, 14, 16, 4.88, 3.68, 2.30, 1.73),
    (1_663_370, 128, 13, 17, 5.44, 4.80, 2.72, 2.30),
    (1_663_370, 1024, 12, 20, 6.88, 5.95, 3.32, 2.98),
    (11_000_000, 16, 16, 18, 5.59, 3.66, 2.80, 1.72),
    (11_000_000, 128, 14, 19, 5.93, 4.79, 2.97, 2.29),
    (11_000_000, 1024, 13, 21, 7.12, 5.93, 3.44, 2.97),
]
BEYOND = {(11_000_000, 16)}  # in whole ciphertexts, by 1.93


def bytes_a_parameter(extent: Extent, clients: int, parameters: int) -> tuple[float, float]:
    """Of the ciphertexts of one update, as a run chooses them: whole, and from a seed."""
    length = Vector(extent, (parameters,)).length
    scheme = Bfv(bfv_parameters(*AUTO, extent, clients, 128, length))
    chunks = scheme.chunk_count(length)
    layout = scheme.layout
    return chunks * layout.whole_bytes / parameters, chunks * layout.seeded_bytes / parameters


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}x{row[1]}")
def test_what_noise_costs(row: tuple) -> None:
    """With the step that keeps the signal: updates of length B = 2 sqrt(parameters) in steps of the
    grid, coordinates clipped to B / 10, and noise of the length of B in sums of three quarters of
    the clients. From a seed noise costs no more than MOST anywhere; in whole ciphertexts not where
    11 million parameters and 16 clients leave room for two fields instead of four."""
    parameters, clients, value_bits, field_bits, *due = row
    length = 2 * math.sqrt(parameters)
    signal = math.ceil(length / 10)
    extent = Extent(value_bits, signal, length / math.sqrt(0.75 * clients))
    with pytest.raises(ConfigError):
        Extent(value_bits - 1, signal, extent.spread)
    assert extent.sum_bits(clients) == field_bits
    whole, seeded = bytes_a_parameter(extent, clients, parameters)
    before, seeded_before = bytes_a_parameter(Extent(8), clients, parameters)
    assert [whole, before, seeded, seeded_before] == pytest.approx(due, abs=0.006)
    assert seeded - seeded_before <= MOST
    assert (whole - before <= MOST) == ((parameters, clients) not in BEYOND)

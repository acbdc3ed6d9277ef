"""The mechanism: the grid that value bits hold, what a client sends on it, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.grid import largest_value
from hyperlock.errors import ConfigError
from hyperlock.privacy import noise
from hyperlock.privacy.mechanism import (
    COMFORT,
    MAX_VALUE_BITS,
    MIN_VALUE_BITS,
    Mechanism,
    Promise,
    Unit,
    fit,
)

CLIENT = Promise("client", clip=0.5, noise=1.0, fewest=70)
SAMPLE = Promise("sample", clip=1.0, noise=2.0, fewest=10, records=120)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    unit=st.sampled_from(["client", "sample"]),
    multiplier=st.floats(0.3, 5),
    fewest=st.integers(2, 500),
    coordinates=st.integers(2000, 2_000_000),
    value_bits=st.integers(MIN_VALUE_BITS, MAX_VALUE_BITS),
)
def test_the_grid_is_the_finest_that_value_bits_hold(
    unit: Unit, multiplier: float, fewest: int, coordinates: int, value_bits: int
) -> None:
    promise = Promise(unit, 0.7, multiplier, fewest, records=1.0 if unit == "client" else 7.5)
    try:
        mechanism = fit(promise, coordinates, value_bits)
    except ConfigError:
        return
    largest = largest_value(value_bits)
    assert mechanism.signal + noise.CUT * mechanism.spread < largest + 1
    assert mechanism.largest_value <= largest and mechanism.value_bits <= value_bits
    finer = replace(
        mechanism,
        bound=mechanism.bound + 1,
        signal=math.ceil(0.1 * promise.records * (mechanism.bound + 1)),
    )
    assert finer.largest_value > largest
    assert mechanism.bound >= math.sqrt(coordinates)
    assert mechanism.spread >= noise.LEAST_DEVIATION
    assert mechanism.step * mechanism.bound == pytest.approx(0.7)


# studies/privacy.md, "Bits", at d=101,770, z=1, m0=70.
@pytest.mark.parametrize(("value_bits", "bound"), [(10, 410), (11, 820), (12, 1641), (16, 26268)])
def test_bounds_are_those_of_the_study(value_bits: int, bound: int) -> None:
    assert fit(CLIENT, 101_770, value_bits).bound == bound


def test_shares_of_noise_make_up_what_is_promised() -> None:
    mechanism = fit(replace(CLIENT, noise=1.3, colluders=3), 7850, 12)
    together = mechanism.spread * math.sqrt(67)
    assert together == pytest.approx(1.3 * mechanism.bound)
    mechanism = fit(SAMPLE, 7850)
    together = mechanism.spread * math.sqrt(10)
    assert together == pytest.approx(2 * (mechanism.bound + math.sqrt(7850)))


def coarser(promise: Promise, coordinates: int, value_bits: int) -> int:
    """B in so few bits; 0 if that is refused."""
    try:
        return fit(promise, coordinates, value_bits).bound
    except ConfigError:
        return 0


def test_bits_are_the_fewest_that_keep_the_signal() -> None:
    for promise, coordinates in ((CLIENT, 7850), (CLIENT, 101_770), (SAMPLE, 7850)):
        mechanism = fit(promise, coordinates)
        enough = COMFORT[promise.unit] * math.sqrt(coordinates)
        assert enough <= mechanism.bound < enough + 1
        assert fit(promise, coordinates, mechanism.value_bits).bound >= mechanism.bound
        assert coarser(promise, coordinates, mechanism.value_bits - 1) < enough
    assert fit(CLIENT, 101_770).value_bits == 11
    # Where shares would be too fine, so much finer as they need.
    many = fit(replace(CLIENT, noise=0.5, fewest=10_000), 10_000)
    assert 3 <= many.spread < 3.02 and many.bound > 200


# d, n, and the field bits of studies/privacy.md, "honest bound": B = 2 sqrt(d), m0 = .75 n, z = 1.
@pytest.mark.parametrize(
    ("coordinates", "clients", "bits"),
    [
        (101_770, 16, 14),
        (101_770, 128, 15),
        (101_770, 1024, 18),
        (1_663_370, 128, 17),
        (11_000_000, 128, 19),
    ],
)
def test_sums_fit_the_fields_of_the_study(coordinates: int, clients: int, bits: int) -> None:
    mechanism = fit(replace(CLIENT, fewest=clients * 3 // 4), coordinates)
    assert mechanism.extent.largest_sum(clients) < 2 ** (bits - 1)


def test_a_sum_stays_within_its_largest() -> None:
    mechanism = fit(CLIENT, 7850, 10)
    wide = 40 * mechanism.signal + 9.6 * mechanism.spread * math.sqrt(40)
    assert wide <= mechanism.extent.largest_sum(40) < wide + 1
    assert mechanism.extent.largest_sum(1) == mechanism.largest_value
    source = rng(1).bytes
    updates = (rng(seed).standard_normal(7850).astype(np.float32) for seed in range(40))
    total = sum(mechanism.protect(update, rng(2), source).astype(int) for update in updates)
    assert np.abs(total).max() <= mechanism.extent.largest_sum(40)


def test_the_mean_of_a_sum_is_that_of_the_clipped_updates() -> None:
    promise = Promise("client", clip=1.0, noise=0.01, fewest=2)
    mechanism = Mechanism(promise, 100, bound=3000, signal=3000)
    updates = rng(3).standard_normal((50, 100)) * 0.05  # norms of a half: nothing is clipped
    source = rng(4).bytes
    total = sum(mechanism.protect(row, rng(5), source).astype(int) for row in updates)
    mean = total * (mechanism.step / 50)
    assert mean == pytest.approx(updates.mean(axis=0), abs=6 * 0.01 / math.sqrt(2 * 50))


def test_what_is_sent_is_noise_on_the_grid() -> None:
    mechanism = fit(CLIENT, 50_000, 12)
    update = rng(6).standard_normal(50_000).astype(np.float32)
    signal = mechanism.round(update, rng(7))
    sent = mechanism.protect(update, rng(7))
    assert sent.dtype == np.int16
    assert np.abs(sent).max() <= mechanism.largest_value
    share = sent - signal
    assert share.std() == pytest.approx(mechanism.spread, rel=0.03)
    assert (mechanism.protect(update, rng(7)) != sent).any()  # no seed decides it
    injected = [mechanism.protect(update, rng(7), rng(8).bytes) for _ in range(2)]
    assert (injected[0] == injected[1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_sends_zeros_and_noise(bad: float) -> None:
    mechanism = fit(CLIENT, 50_000, 12)
    update = np.full(50_000, bad, np.float32)
    assert not mechanism.round(update, rng()).any()
    sent = mechanism.protect(update, rng())
    assert sent.std() == pytest.approx(mechanism.spread, rel=0.03)


def test_more_contributors_than_promised_count_as_promised() -> None:
    mechanism = fit(replace(CLIENT, colluders=2), 7850, 12)
    assert mechanism.multiplier(70) == mechanism.multiplier(500) == 1.0
    assert mechanism.multiplier(36) == pytest.approx(math.sqrt(0.5))
    assert mechanism.multiplier(2) == 0.0
    assert mechanism.shares(500).secret == mechanism.shares(70).secret == 68
    assert mechanism.shares(36).secret == 34


def test_a_record_moves_what_a_client_sends_by_no_more_than_the_sensitivity() -> None:
    mechanism = fit(SAMPLE, 7850)
    gradients = rng(10).standard_normal((30, 7850))
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    for left_out in range(3):
        both = [
            mechanism.round(SAMPLE.clip * rows.sum(axis=0), rng(11)).astype(int)
            for rows in (gradients, np.delete(gradients, left_out, axis=0))
        ]
        moved = float(np.linalg.norm(both[0] - both[1]))
        assert 0 < moved <= mechanism.sensitivity == mechanism.bound + math.sqrt(7850)


def refused(text: str, wrong: object) -> None:
    with pytest.raises(ConfigError) as caught:
        wrong()  # type: ignore[operator]
    assert text in str(caught.value), str(caught.value)


def test_refusals_name_the_figure() -> None:
    for clip in (0.0, -1.0, math.nan, math.inf):
        refused("privacy.clip=", lambda clip=clip: replace(CLIENT, clip=clip))
    refused("privacy.noise_multiplier=0", lambda: replace(CLIENT, noise=0))
    refused(
        "keys.min_clients=3: with 2 colluders 1", lambda: replace(CLIENT, fewest=3, colluders=2)
    )
    refused("try: keys.min_clients=4", lambda: replace(CLIENT, fewest=3, colluders=2))
    # 8 bits do not carry 100,000 coordinates.
    refused("a clip of 101 steps is below the root of 101770", lambda: fit(CLIENT, 101_770, 8))
    refused("try: encryption.value_bits=10", lambda: fit(CLIENT, 101_770, 8))
    assert fit(CLIENT, 101_770, 10).bound >= math.sqrt(101_770)
    # Many clients with little noise each: the share, and not the bound, is too fine.
    many = replace(CLIENT, noise=0.5, fewest=10_000)
    refused("a share of noise is", lambda: fit(many, 10_000, 7))
    assert fit(many, 10_000).spread >= 3
    refused("allowed: 4 to 20", lambda: fit(CLIENT, 1000, 24))
    refused(
        "a clip of 6634 steps over 11000000 coordinates",
        lambda: fit(Promise("client", 1, 1e3, 2), 11_000_000),
    )
    with pytest.raises(ValueError, match=r"0\.5 records"):
        replace(SAMPLE, records=0.5)

"""The mechanism: what a client does to an update before it is encrypted, so that the sum of all is
differentially private.

One step g for the whole vector. Under `client`, an update is clipped to S in L2, put on the grid by
`rounding`, where it is at most B = S / g long whatever happens, and a share of N_Z(0, s^2) is added
to every coordinate (distributed discrete Gaussians: Kairouz, Liu and Steinke, ICML 2021). Of the m0
shares that are in every sum that is released, c may be known to who attacks; the others together
have z times the sensitivity:

    s = z * sensitivity / sqrt(m0 - c)

Neighbours, `client`. Two runs in which one client's updates are anything, or zeros: the sum moves
by at most B. It sends its share of noise either way, so that who took part is the same in both.

Neighbours, `sample`. One record more or less with one client, whose vector is the sum over its
records of gradients, each clipped to S. With x the sum in steps and u the dither, the client sends
clamp(floor(x + u), -L, L). A record moves x by at most B in L2. The dither is drawn before the
records are and is the same for both, and |floor(a) - floor(b)| < |a - b| + 1, so that the integers
move by at most B + sqrt(d) (the triangle inequality). Clamping each coordinate brings any two
integers no further apart, so that L, which is there for the value bits, costs no privacy: a sum of
many records that is cut by it is a worse gradient and nothing else. For this to hold a record has
to be cut on its own, in the norm and where it is NaN (`learning/per_sample.py`): a NaN that takes
the whole sum with it would move it by the sum.

    >>> promise = Promise("client", clip=0.5, noise=1.0, fewest=70)
    >>> mechanism = fit(promise, coordinates=101_770, value_bits=10)
    >>> mechanism.bound, mechanism.signal, round(mechanism.spread, 1), mechanism.largest_value
    (410, 41, 49.0, 511)
    >>> fit(promise, 101_770).value_bits  # the fewest that keep the signal
    11
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.extent import Extent, cut
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.errors import ConfigError
from hyperlock.privacy import noise, rounding
from hyperlock.privacy.closeness import Shares

Unit = Literal["client", "sample"]

# The largest coordinate of an update, as a share of the longest update. At 100,000 coordinates 0.1
# is 30 times what they are on average; a smaller share would save a bit of each field at most. In
# the sum of many records' gradients coordinates even out: on MNIST's digits the largest one of a
# hundred rounds was 0.022 of so many clips, and half were below 0.004.
SIGNAL: dict[Unit, float] = {"client": 0.1, "sample": 0.02}
# And at least so many times the average: of a model of a few parameters, that is less.
_TIMES_THE_AVERAGE = 2.0
# B over sqrt(d). Under `client` rounding adds d / 4 at most to the squared norm, which the signal
# gives up: 3% of its norm at 2. Under `sample` sqrt(d) is added to the sensitivity and so to the
# noise: a fourth at 4, where finer steps took another bit of a field each time they halve that.
COMFORT: dict[Unit, int] = {"client": 2, "sample": 4}
MIN_VALUE_BITS = 4
# Integers below 2^19, whose squares float64 adds exactly, a block at a time. More bits keep no more
# of the signal: here B is 150 times sqrt(d) for ten million coordinates and a hundred shares.
MAX_VALUE_BITS = 20


@dataclass(frozen=True)
class Promise:
    """What is promised to whom, before a model or a grid is known.

    Attributes:
        unit: whose presence is hidden, a client's or a record's.
        clip: S, the L2 norm that an update (`client`) or a record's gradient (`sample`) is cut to.
        noise: z, the deviation of a sum's noise over its sensitivity.
        fewest: m0, no sum of fewer contributors is ever released.
        colluders: c, contributors who tell their shares of the noise; at least 1 where a client
            decrypts, since it knows its own.
        records: how many records a client's sum is expected to hold, a public number >= 1; 1 under
            `client`.

    Raises:
        ConfigError: the clip or the noise is not positive, or fewer than two shares are secret.
    """

    unit: Unit
    clip: float
    noise: float
    fewest: int
    colluders: int = 0
    records: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("clip", self.clip), ("noise_multiplier", self.noise)):
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"privacy.{name}", value, "nothing is hidden by it", allowed="a number above 0"
                )
        if self.shares < 2:
            raise ConfigError(
                "keys.min_clients",
                self.fewest,
                f"with {self.colluders} colluders {max(self.shares, 0)} secret shares of noise are"
                " left in a sum, and one alone is its owner's",
                allowed=f"at least {self.colluders + 2}",
                hint=f"keys.min_clients={self.colluders + 2}",
            )
        if not self.records >= 1 or (self.unit == "client" and self.records != 1):
            raise ValueError(f"{self.records} records for privacy by {self.unit}")

    @property
    def shares(self) -> int:
        """Shares of noise in a sum that nobody knows, at least."""
        return self.fewest - self.colluders


@dataclass(frozen=True)
class Mechanism:
    """A promise on the grid of one model: what `fit` found.

    Attributes:
        promise: what is promised.
        coordinates: d, the length of an update.
        bound: B, the clip in steps.
        signal: L, the largest coordinate before noise.
    """

    promise: Promise
    coordinates: int
    bound: int
    signal: int

    @property
    def step(self) -> float:
        """g: what 1 on the grid stands for, in every tensor."""
        return self.promise.clip / self.bound

    @property
    def sensitivity(self) -> float:
        """By how much a neighbour moves the sum of integers, in L2."""
        rounded = math.sqrt(self.coordinates) if self.promise.unit == "sample" else 0.0
        return self.bound + rounded

    @property
    def spread(self) -> float:
        """s: the deviation of one share of noise, in steps."""
        return self.promise.noise * self.sensitivity / math.sqrt(self.promise.shares)

    @property
    def largest_value(self) -> int:
        """The largest integer that a client sends."""
        return self.signal + cut(self.spread)

    @property
    def extent(self) -> Extent:
        """How large what a client sends may be, and a sum of it."""
        return Extent(self.value_bits, self.signal, self.spread)

    @property
    def value_bits(self) -> int:
        """The fewest bits of a signed value that hold what a client sends."""
        return self.largest_value.bit_length() + 1

    def multiplier(self, contributors: int) -> float:
        """z of a sum of so many, never more than promised: the shares beyond m0 are more noise,
        but not what anyone was told to count on."""
        shares = contributors - self.promise.colluders
        return self.promise.noise * math.sqrt(min(1.0, max(0, shares) / self.promise.shares))

    def shares(self, contributors: int) -> Shares:
        """How the noise of a sum of so many is made, for the ledger."""
        secret = min(contributors, self.promise.fewest) - self.promise.colluders
        return Shares(self.coordinates, secret, self.spread, self.multiplier(contributors))

    def round(self, values: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int32]:
        """What an update, or a sum of records' gradients, is on the grid, before noise.

        Args:
            values: float[d]; where anything in it is NaN or infinite, the integers are zeros, since
                a failure could be seen.
            rng: the dither; under `sample` it may not know the records. The same state gives the
                same integers.

        Returns:
            int32[d] within ±`signal`; under `client` of a norm of at most `bound`.
        """
        if self.promise.unit == "client":
            return rounding.within(values, self.step, self.bound, self.signal, rng)
        return rounding.plain(values, self.step, self.signal, rng)

    def protect(
        self,
        values: NDArray[np.floating],
        rng: np.random.Generator,
        source: noise.Source = os.urandom,
    ) -> NDArray[np.integer]:
        """What a client encrypts: the update on the grid and a share of noise, as int[d] of the
        narrowest type that holds `largest_value`."""
        integers = self.round(values, rng)
        noise.add_share(integers, self.spread, source)
        return integers.astype(integer_type(self.largest_value), copy=False)


def fit(promise: Promise, coordinates: int, value_bits: int | None = None) -> Mechanism:
    """A grid that is fine enough, in as many bits as may be.

    Args:
        promise: what is promised.
        coordinates: d, the length of an update.
        value_bits: bits of one signed value: the largest B they hold, L + 9.6 s <= 2^(value_bits -
            1) - 1. None takes a B of `COMFORT` times sqrt(d), for sums as small as that allows;
            `Mechanism.value_bits` says what it needs.

    Raises:
        ConfigError: B would be below sqrt(d), or a share of noise below `noise.LEAST_DEVIATION`.
    """
    if value_bits is None:
        return _coarsest(promise, coordinates, COMFORT[promise.unit])
    if not MIN_VALUE_BITS <= value_bits <= MAX_VALUE_BITS:
        raise ConfigError(
            "encryption.value_bits",
            value_bits,
            "an update with noise is no such number",
            allowed=f"{MIN_VALUE_BITS} to {MAX_VALUE_BITS}",
        )
    mechanism = _finest(promise, coordinates, value_bits)
    root = math.sqrt(coordinates)
    if mechanism.bound < root:
        problem = (
            f"a clip of {mechanism.bound} steps is below the root of {coordinates} coordinates"
            f" ({root:.0f}): rounding would take most of an update"
        )
    elif mechanism.spread < noise.LEAST_DEVIATION:
        problem = (
            f"a share of noise is {mechanism.spread:.2g} steps; fewer than"
            f" {noise.LEAST_DEVIATION:.0f} do not add up to a Gaussian"
        )
    else:
        return mechanism
    enough = _coarsest(promise, coordinates, 1).value_bits
    raise ConfigError(
        "encryption.value_bits",
        value_bits,
        problem,
        allowed=f"{enough} to {MAX_VALUE_BITS}",
        hint=f"encryption.value_bits={enough}",
    )


def _at(promise: Promise, coordinates: int, bound: int) -> Mechanism:
    share = SIGNAL[promise.unit]
    largest = min(1.0, max(share, _TIMES_THE_AVERAGE / math.sqrt(coordinates)))
    signal = max(1, math.ceil(largest * promise.records * bound))
    return Mechanism(promise, coordinates, bound, signal)


def _coarsest(promise: Promise, coordinates: int, roots: int) -> Mechanism:
    """The smallest B that is so many times sqrt(d), and whose shares of noise are not too fine."""
    mechanism = _at(promise, coordinates, math.ceil(roots * math.sqrt(coordinates)))
    if mechanism.spread < noise.LEAST_DEVIATION:
        finer = noise.LEAST_DEVIATION / mechanism.spread * mechanism.sensitivity
        fixed = mechanism.sensitivity - mechanism.bound
        mechanism = _at(promise, coordinates, math.ceil(finer - fixed) + 1)
    if mechanism.value_bits > MAX_VALUE_BITS:
        raise ConfigError(
            "encryption.value_bits",
            MAX_VALUE_BITS,
            f"a clip of {mechanism.bound} steps over {coordinates} coordinates, sums of"
            f" {promise.records:g} records and {promise.shares} secret shares of"
            f" noise_multiplier={promise.noise:g} take {mechanism.value_bits} bits",
            allowed=f"at most {MAX_VALUE_BITS}",
            hint="more clients a round or, for few clients, privacy=sample",
        )
    return mechanism


def _finest(promise: Promise, coordinates: int, value_bits: int) -> Mechanism:
    """The largest B that value bits hold, at least 1."""
    largest = largest_value(value_bits)
    low, high = 1, largest * largest + 1  # the signal alone would be too large
    while high - low > 1:
        middle = (low + high) // 2
        if _at(promise, coordinates, middle).largest_value <= largest:
            low = middle
        else:
            high = middle
    return _at(promise, coordinates, low)

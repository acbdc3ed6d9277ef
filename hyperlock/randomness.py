"""Every reproducible random choice, derived from one seed.

A generator is named by (seed, stream, ids): the same round of the same client draws the same
numbers whatever ran before it, in whatever order or process, so that a resumed run is the same run.
Keys and encryption noise never come from here; they come from the operating system.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


def generator(seed: int, stream: str, *ids: int) -> np.random.Generator:
    """The generator of one stream ("split", "cohort", "batches", ...) at the given ids (round,
    client)."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), *ids])


@dataclass(frozen=True)
class Streams:
    """The generators of one client.

    Attributes:
        seed: the run's.
        client: its number among the clients, from 0.
    """

    seed: int
    client: int

    def at(self, stream: str, round_number: int, attempt: int = 1) -> np.random.Generator:
        """The generator of one stream ("batches", "rounding") in an attempt of a round."""
        again = () if attempt == 1 else (attempt,)
        return generator(self.seed, stream, round_number, self.client, *again)


def integer_seed(seed: int, stream: str) -> int:
    """A 31-bit seed for a library that wants an integer."""
    return int(generator(seed, stream).integers(2**31))

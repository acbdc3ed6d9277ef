"""What can be done to a ciphertext: functions of a source of randomness and a good one, taken
apart."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from tests.security.damage import damaged, odd
from tests.security.forge import Forgery


def damaged_bytes(rng: random.Random, forgery: Forgery) -> bytes:
    """Damage anywhere that keeps the length."""
    data = forgery.write()
    start = rng.choice([0, 0, rng.randrange(len(data)), len(data) - 64])
    return damaged(rng, data, start)[: len(data)].ljust(len(data), b"\0")


def length(rng: random.Random, forgery: Forgery) -> bytes:
    """Cut, longer, or nothing but zeros, of any length but the right one."""
    data = forgery.write()
    size = len(data)
    other = size
    while other == size:
        other = rng.choice([odd(rng, size, 16), rng.randrange(2 * size), size - 64, size + 64])
    return rng.choice([(data * 3)[:other], data[-other:], bytes(other), rng.randbytes(other)])


def residues(rng: random.Random, forgery: Forgery) -> Forgery:
    """Other numbers, most often at the edges of their prime or of their bits."""
    for _ in range(rng.choice([1, 1, 10, 100])):
        place = rng.choice([0, forgery.size - 1, rng.randrange(forgery.size)])
        prime, width, dropped = forgery.about(place)
        edge = -(-prime >> dropped)
        value = rng.choice([edge - 1, edge, edge + 1, 2**width - 1, odd(rng, edge, width)])
        forgery = forgery.with_coefficient(place, value % 2**width)
    return forgery


def random_residues(rng: random.Random, forgery: Forgery) -> Forgery:
    """All numbers of some polynomials, below every prime and otherwise anything."""
    source = np.random.default_rng(rng.getrandbits(64))
    polynomials = forgery.polynomials.copy()
    for i in rng.sample(range(len(polynomials)), rng.randint(1, len(polynomials))):
        for row, prime in zip(polynomials[i], forgery.layout.primes, strict=True):
            top = prime >> (0 if i else forgery.dropped)
            row[:] = source.integers(0, top, row.size, np.uint64)
    return replace(forgery, polynomials=polynomials)


def transparent(rng: random.Random, forgery: Forgery) -> Forgery:
    """Whole, and its second polynomial zero modulo some primes or all."""
    layout = forgery.layout
    if forgery.seed:
        forgery = form(rng, forgery)
    second = forgery.polynomials[1].copy()
    second[rng.sample(range(len(second)), rng.randint(1, len(layout.primes)))] = 0
    return forgery.with_second(second)


def seed(rng: random.Random, forgery: Forgery) -> Forgery:
    """Another seed behind one polynomial or two, a part of one, or none."""
    data = forgery.seed or rng.randbytes(64)
    other = rng.choice(
        [b"", bytes(64), damaged(rng, data), rng.randbytes(64), b"\1" + data, data[:-1], data * 2]
    )
    count = rng.choice([1, 1, len(forgery.polynomials)])
    dropped = forgery.dropped
    if count == 1 and rng.random() < 0.5:
        dropped = forgery.layout.dropped_seeded
    first = forgery.residues[:1] >> np.uint64(dropped)
    polynomials = np.concatenate([first, forgery.polynomials[1:count]])
    return replace(forgery, dropped=dropped, polynomials=polynomials, seed=other)


def form(rng: random.Random, forgery: Forgery) -> Forgery:
    """The same first polynomial in another form: with a random second one, or with a random
    seed."""
    layout = forgery.layout
    if forgery.seed:
        first = forgery.residues[0] >> np.uint64(layout.dropped)
        source = np.random.default_rng(rng.getrandbits(64))
        n = layout.poly_modulus
        second = [source.integers(0, prime, n, np.uint64) for prime in layout.primes]
        return replace(
            forgery, dropped=layout.dropped, polynomials=np.stack([first, second]), seed=b""
        )
    dropped = layout.dropped_seeded
    first = forgery.residues[:1] >> np.uint64(dropped)
    return replace(forgery, dropped=dropped, polynomials=first, seed=rng.randbytes(64))

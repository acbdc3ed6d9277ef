"""What can be done to a ciphertext: functions of a source of randomness and a good one, taken
apart."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace

import numpy as np
import zstandard

from tests.security.damage import damaged, odd
from tests.security.forge import PLAIN, ZLIB, ZSTD, Forgery, Header


def maybe_compressed(rng: random.Random, forgery: Forgery | bytes) -> Forgery | bytes:
    """As clients send it, if it claims to be plain."""
    if isinstance(forgery, Forgery) and forgery.outer.compression == PLAIN and rng.random() < 0.3:
        return replace(
            forgery, outer=replace(forgery.outer, compression=ZSTD), compress=zstandard.compress
        )
    return forgery


def frame(rng: random.Random, forgery: Forgery) -> Forgery | bytes:
    data = forgery.write()
    match rng.randrange(4):
        case 0:
            return damaged(rng, data, 0, rng.choice([1, 4, 12]))
        case 1:
            return damaged(rng, data, len(data) - 12)
        case 2:
            return replace(
                forgery, slots=tuple(odd(rng, forgery.slots[0]) for _ in range(rng.randrange(4)))
            )
        case _:
            return data + rng.choice(
                [data, b"\x12\0", b"\x0a\0", b"\0", b"\x22\x01\0", forgery.suffix]
            )


def changed_header(rng: random.Random, header: Header) -> Header:
    name, bits = rng.choice(
        [
            ("magic", 16),
            ("size", 8),
            ("major", 8),
            ("minor", 8),
            ("compression", 8),
            ("reserved", 16),
            ("total", 64),
        ]
    )
    return replace(header, **{name: odd(rng, getattr(header, name) or 0, bits)})


def seal_header(rng: random.Random, forgery: Forgery) -> Forgery:
    return replace(forgery, outer=changed_header(rng, forgery.outer))


def nested_header(rng: random.Random, forgery: Forgery) -> Forgery:
    if forgery.seed is not None and rng.random() < 0.5:
        return replace(forgery, generator=changed_header(rng, forgery.generator))
    return replace(forgery, array=changed_header(rng, forgery.array))


def fields(rng: random.Random, forgery: Forgery) -> Forgery:
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice(
            ["ntt", "polynomials", "poly_modulus", "primes", "scale", "correction", "count"]
        )
        if name == "scale":
            (anything,) = struct.unpack("<d", rng.randbytes(8))
            scale = rng.choice(
                [0.0, -1.0, forgery.scale * 2, float("nan"), float("inf"), 5e-324, anything]
            )
            forgery = replace(forgery, scale=scale)
        else:
            near = forgery.coefficients.size if name == "count" else getattr(forgery, name)
            forgery = replace(forgery, **{name: odd(rng, near, 8 if name == "ntt" else 64)})
    return forgery


def parms_id(rng: random.Random, forgery: Forgery) -> Forgery:
    """Of nothing; of the other scheme's and of other levels' see `test_hostile_sums.py`."""
    other = rng.choice(
        [bytes(32), rng.randbytes(32), damaged(rng, forgery.parms_id)[:32].ljust(32, b"\0")]
    )
    return replace(forgery, parms_id=other)


def coefficients(rng: random.Random, forgery: Forgery) -> Forgery:
    """Other values; the ring's primes have 34 bits at least."""
    values = forgery.coefficients.copy()
    for _ in range(rng.choice([1, 1, 10, 1000])):
        values[rng.randrange(values.size)] = odd(rng, int(values[0]), rng.choice([33, 34, 64]))
    if rng.random() < 0.2:
        start = rng.choice([0, values.size // 2])
        values[start:] = rng.choice([0, 1, 2**33, 2**64 - 1])
    return replace(forgery, coefficients=values)


def coefficient_count(rng: random.Random, forgery: Forgery) -> Forgery:
    size = forgery.coefficients.size
    other = min(odd(rng, size, 16), 4 * size)
    count = rng.choice([None, size, other, size * 2, size // 2])
    return replace(forgery, coefficients=np.resize(forgery.coefficients, other), count=count)


def seed(rng: random.Random, forgery: Forgery) -> Forgery:
    """A seed, a part of one, or none, behind the coefficients or half of them."""
    data = forgery.seed or rng.randbytes(65)
    other = rng.choice(
        [
            None,
            b"",
            damaged(rng, data),
            bytes([rng.randrange(256)]) + rng.randbytes(64),
            data + b"\0",
        ]
    )
    half = forgery.poly_modulus * forgery.primes
    size = rng.choice([half, half, 2 * half])
    return replace(forgery, seed=other, coefficients=np.resize(forgery.coefficients, size))


def zstd_stream(rng: random.Random, forgery: Forgery) -> Forgery:
    """The zstd stream, and what might stand in its place."""
    content = forgery.content
    level = rng.randrange(-5, 12)
    declare = rng.random() < 0.7
    good = zstandard.ZstdCompressor(
        level=level, write_content_size=declare, write_checksum=rng.random() < 0.3
    ).compress(content)
    other = rng.choice(
        [
            good,
            damaged(rng, good),
            damaged(rng, good, 0, 12),
            good[: rng.randrange(len(good))],
            good + rng.choice([b"\0", good[:100], zstandard.compress(b"more")]),
            zstandard.compress(content + bytes(rng.choice([1, 8, 2**20]))),
            zstandard.compress(content[: rng.randrange(len(content))]),
            zstandard.compress(good),
            zstandard.compress(bytes(2**22)),
            zlib.compress(content, 1),
            struct.pack("<II", 0x184D2A50 + rng.randrange(16), rng.choice([0, 4, 2**32 - 1]))
            + good,
        ]
    )
    compression = rng.choice([ZSTD] * 6 + [ZLIB, PLAIN])
    return replace(
        forgery, outer=replace(forgery.outer, compression=compression), compress=lambda _: other
    )


def nested_stream(rng: random.Random, forgery: Forgery) -> Forgery:
    """Compressed objects within, which SEAL would inflate too."""
    kind, squeeze = rng.choice([(ZSTD, zstandard.compress), (ZLIB, zlib.compress)])
    if forgery.seed is not None and rng.random() < 0.5:
        return replace(
            forgery, generator=replace(forgery.generator, compression=kind), compress_seed=squeeze
        )
    return replace(forgery, array=replace(forgery.array, compression=kind), compress_array=squeeze)


def anywhere(rng: random.Random, forgery: Forgery) -> bytes:
    """Damage anywhere in an open ciphertext."""
    data = forgery.write()
    return damaged(rng, data, 0, rng.choice([None, 250]))


def content(rng: random.Random, forgery: Forgery) -> Forgery:
    """Damage anywhere in the content, of the right size if it can be, and compressed."""
    size = len(forgery.content)
    other = damaged(rng, forgery.content, 0, rng.choice([None, 120]))
    other = other[:size].ljust(size, b"\0")
    return replace(
        forgery,
        outer=replace(forgery.outer, compression=ZSTD),
        compress=lambda _: zstandard.compress(other),
    )

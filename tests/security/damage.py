"""Damage without a plan: odd numbers, odd values and altered bytes."""

from __future__ import annotations

import random
from typing import Any

ODD = [
    0,
    1,
    2,
    3,
    15,
    16,
    17,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**62,
    2**63,
    2**64 - 1,
]


def odd(rng: random.Random, near: int, bits: int = 64) -> int:
    """A number that is likely to lie at some edge: of its type, or next to the right one."""
    choices = [
        *ODD,
        near - 1,
        near + 1,
        near * 2,
        near // 2,
        rng.getrandbits(bits),
        near ^ 1 << rng.randrange(bits),
    ]
    return rng.choice(choices) & 2**bits - 1


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Anything that msgpack can hold."""
    simple = [
        None,
        True,
        False,
        -1,
        rng.getrandbits(63),
        1.5,
        float("nan"),
        "",
        "x" * rng.choice([1, 256, 257]),
        b"",
        b"x",
    ]
    if depth < 3 and rng.random() < 0.4:
        inner = [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {str(i): item for i, item in enumerate(inner)}
    return rng.choice(simple)


def damaged(rng: random.Random, data: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """Flipped bits, other bytes, and bytes cut out, doubled or overwritten, between start and
    stop."""
    stop = len(data) if stop is None else min(stop, len(data))
    body = bytearray(data[start:stop])
    while bytes(body) == data[start:stop]:
        for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
            _damage(rng, body)
    return data[:start] + bytes(body) + data[stop:]


def _damage(rng: random.Random, body: bytearray) -> None:
    if not body:
        body += rng.randbytes(9)
    a = rng.randrange(len(body))
    b = min(len(body), a + rng.choice([1, 2, 4, 8, 16, rng.randrange(1, len(body) + 1)]))
    match rng.randrange(7):
        case 0 | 1:
            body[a] ^= 1 << rng.randrange(8)
        case 2:
            body[a] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        case 3:
            del body[a:b]
        case 4:
            body[a:a] = body[a:b]
        case 5:
            body[a:b] = rng.randbytes(b - a)
        case 6:
            body[a:b] = bytes(b - a)

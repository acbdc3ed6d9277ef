"""What an enrolled client that turned hostile can put in a ciphertext's place, in messages that are
signed and whole.

A ciphertext is residues, and maybe a seed. It says nothing of its scheme, ring, level, scale or
slots, so that nothing of it can be a lie but its length, a residue that is none, and a second
polynomial of zeros. All of these are refused before SEAL sees anything.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import zstandard

from hyperlock.encryption import seal
from hyperlock.encryption.ciphertexts import public_context
from hyperlock.encryption.layout import Received
from tests.security.forge import Forgery, in_a_seal_object
from tests.security.scene import Forge, Scene

# Before any part is looked at.
TOO_LONG = r"a payload part is not of at most|\d bytes where at most"
LENGTH = rf"a ciphertext of \d+ bytes instead of \d+, or of \d+ with a seed|{TOO_LONG}"
RESIDUE = "a residue that is none of its prime's"
TRANSPARENT = "without its second polynomial, which anyone can read"


def first_prime(forgery: Forgery, more: int) -> Forgery:
    """The first number of the second polynomial, or the first of all, at its prime and so much
    more."""
    place = forgery.size // 2 if len(forgery.polynomials) == 2 else 0
    prime, _, dropped = forgery.about(place)
    return forgery.with_coefficient(place, -(-prime >> dropped) + more)


def largest(forgery: Forgery, place: int) -> Forgery:
    """The largest number that so many bits can say."""
    place %= forgery.size
    _, width, _ = forgery.about(place)
    return forgery.with_coefficient(place, 2**width - 1)


def transparent(forgery: Forgery, *rows: int) -> Forgery:
    """Without its second polynomial, modulo some primes or all."""
    second = np.ones_like(forgery.polynomials[0])
    second[list(rows or range(len(second)))] = 0
    whole = replace(forgery, dropped=forgery.layout.dropped)
    numbers = forgery.residues[0] >> np.uint64(whole.dropped)
    return replace(whole, polynomials=numbers[np.newaxis]).with_second(second)


# By name: what is forged, and what the reason must say.
FORGED: dict[str, tuple[Forge, str]] = {
    "a byte of a seed": (lambda f: replace(f, seed=f.seed + b"\0"), LENGTH),
    "65 bytes of seed, as SEAL has them": (lambda f: replace(f, polynomials=f.polynomials[:1],
        seed=b"\1" + bytes(64)), LENGTH),
    "63 bytes of seed": (lambda f: replace(f, polynomials=f.polynomials[:1], seed=bytes(63)),
        LENGTH),
    "half, and no seed": (lambda f: replace(f, polynomials=f.polynomials[:1], seed=b""), LENGTH),
    "all, and a seed": (lambda f: replace(f.with_second(f.polynomials[0]), seed=bytes(64)), LENGTH),
    "a product's three polynomials": (lambda f: replace(f,
        polynomials=f.polynomials[[0, 0, 0]], seed=b""), LENGTH),
    "no polynomial": (lambda f: replace(f, polynomials=f.polynomials[:0], seed=b""), LENGTH),
    "only a seed": (lambda f: replace(f, polynomials=f.polynomials[:0], seed=bytes(64)), LENGTH),
    "a bit less dropped": (lambda f: replace(f, dropped=f.dropped - 1), LENGTH),
    "a bit more dropped": (lambda f: replace(f, dropped=f.dropped + 1), LENGTH),
    "a residue that is its prime": (lambda f: first_prime(f, 0), RESIDUE),
    "a residue beyond its prime": (lambda f: first_prime(f, 1), RESIDUE),
    "the largest number in the first place": (lambda f: largest(f, 0), RESIDUE),
    "the largest number in the last place": (lambda f: largest(f, -1), RESIDUE),
    "no second polynomial": (transparent, TRANSPARENT),
    "no second polynomial modulo the first prime": (lambda f: transparent(f, 0), TRANSPARENT),
    "no second polynomial modulo the last prime": (lambda f: transparent(f, -1), TRANSPARENT),
}  # fmt: skip


def assert_refused(scene: Scene, place: int, chunk: bytes, reason: str, name: str) -> None:
    """For this reason, and SEAL was handed nothing but the good ciphertexts before it."""
    text = scene.offer(place, chunk)
    assert text is not None and re.search(reason, text), f"{name}: {text}"
    assert scene.only_good_handed(0 if re.search(TOO_LONG, text) else place), name
    assert scene.cast.server.refused == 1


@pytest.mark.parametrize("place", [0, 1])
def test_forged_ciphertexts_are_refused_by_reason_before_seal(scene: Scene, place: int) -> None:
    for name, (forge, reason) in FORGED.items():
        assert_refused(scene, place, scene.forged(place, forge), reason, name)
    scene.finish("client-1", "client-2", "client-3")


def seal_object(scene: Scene, place: int) -> bytes:
    """SEAL's own ciphertext of the same residues, as SEAL saves it."""
    context = public_context(scene.keys.public).seal_context().data
    forgery = scene.taken_apart(place)
    received = Received(forgery.residues, forgery.seed)
    with seal.scratch() as file:
        return file.raw(scene.cast.scheme.ciphertext(file, context, received))


def tenseal_vector(scene: Scene, place: int) -> bytes:
    """What TenSEAL serialises, and what a client sent before this format."""
    from hyperlock.encryption._tenseal import tenseal as ts

    context = public_context(scene.keys.public)
    if scene.cast.scheme.ntt:
        return ts.ckks_vector(context, [1.0, 2.0], scene.cast.scheme.scale).serialize()
    data = seal_object(scene, place)
    return b"\x0a\x01\x02\x12" + bytes([len(data) % 128]) + data


# By name: other ways to write the right ciphertext.
WRITTEN: dict[str, Callable[[Scene, int], bytes]] = {
    "SEAL's object": seal_object,
    "SEAL's object, not compressed": lambda scene, place: in_a_seal_object(
        scene.taken_apart(place).residues.tobytes()
    ),
    "TenSEAL's vector": tenseal_vector,
    "words of 64 bits": lambda scene, place: scene.taken_apart(place).residues.tobytes(),
    "compressed by zstd": lambda scene, place: zstandard.compress(scene.chunks[place]),
    "compressed by zlib": lambda scene, place: zlib.compress(scene.chunks[place]),
    "a quarter of a gigabyte, compressed": lambda scene, place: zstandard.compress(bytes(2**28)),
    "in hexadecimal": lambda scene, place: scene.chunks[place].hex().encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_other_ways_to_write_the_right_ciphertext_are_refused_by_their_length(
    scene: Scene, name: str
) -> None:
    """There is nothing in it that says how it is written: no header, and nothing to inflate."""
    assert_refused(scene, 1, WRITTEN[name](scene, 1), LENGTH, name)
    scene.finish("client-1", "client-2", "client-3")


def test_a_sum_is_no_update_and_an_update_no_sum_where_their_forms_differ(scene: Scene) -> None:
    whole = [Forgery.of(chunk, scene.layout) for chunk in scene.encrypted("whole", 3)]
    text = scene.offer(1, whole[1].as_sum().write())
    if scene.layout.dropped:
        assert re.search(LENGTH, str(text))
    else:
        assert text is None


def test_both_forms_may_stand_in_one_update(scene: Scene) -> None:
    for place, form in ((0, "whole"), (1, "seeded"), (0, "seeded"), (1, "whole")):
        assert scene.offer(place, scene.encrypted(form, 9)[place]) is None
        scene.finish("client-1", "client-2", of=(0, 1, 2, 9))

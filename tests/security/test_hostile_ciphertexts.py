"""What an enrolled client that turned hostile can put in a ciphertext's place, in messages that are
signed and whole.

Whatever our own check can tell is refused before SEAL's deserialiser sees it; what only SEAL can
tell (the parameters' id, coefficients below their primes) SEAL refuses.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.security.forge import ZLIB, ZSTD, Forgery, Header
from tests.security.scene import Forge, Scene


def head(**changes: Any) -> Forge:
    return lambda f: replace(f, outer=replace(f.outer, **changes))


def nested(**changes: Any) -> Forge:
    return lambda f: replace(f, array=replace(f.array, **changes))


def field(**changes: Any) -> Forge:
    return lambda f: replace(f, **changes)


def polynomials(forgery: Forgery, count: int, seed: bytes | None) -> Forgery:
    size = count * forgery.poly_modulus * forgery.primes
    return replace(forgery, coefficients=np.resize(forgery.coefficients, size), seed=seed)


def without_second_polynomial(forgery: Forgery) -> Forgery:
    """Transparent: everyone can read it. SEAL will not make one, but reads them."""
    half = forgery.poly_modulus * forgery.primes
    coefficients = np.append(forgery.coefficients[:half], np.zeros(half, np.uint64))
    return replace(forgery, coefficients=coefficients, seed=None)


HEADER, OTHER, NESTED, SIZE = (
    "wrong header", "of other parameters", "wrong nested header", r"bytes instead of|number of "
                                                                  r"coefficients",
)  # fmt: skip
SLOTS = r"not one ciphertext of \d+ slots"
FOLLOWS = "something lacks or follows"

# By name: what is forged, and what the reason must say. Our check comes first in all of them.
BEFORE_SEAL: dict[str, tuple[Forge, str]] = {
    "a slot more": (lambda f: replace(f, slots=(f.slots[0] + 1,)), SLOTS),
    "no slots": (field(slots=(0,)), SLOTS),
    "2^60 slots": (field(slots=(2**60,)), SLOTS),
    "no size": (field(slots=()), SLOTS),
    "two sizes": (lambda f: replace(f, slots=f.slots * 2), SLOTS),
    "nothing behind": (field(suffix=b"\x19"), FOLLOWS),
    "another scale behind": (field(suffix=b"\x19" + np.float64(2.0**29).tobytes()), FOLLOWS),
    "another field behind": (lambda f: replace(f, suffix=f.suffix + b"\x22\0"), FOLLOWS),
    "another magic": (head(magic=0xA15F), HEADER),
    "no magic": (head(magic=0), HEADER),
    "another header size": (head(size=15), HEADER),
    "something reserved": (head(reserved=1), HEADER),
    "a total of 0": (head(total=0), HEADER),
    "a total of 2^63": (head(total=2**63), HEADER),
    "a total that is one short": (lambda f: replace(f,
        outer=replace(f.outer, total=15 + len(f.content))), HEADER),
    "compressed by zlib": (head(compression=ZLIB), "unknown compression 1"),
    "compressed by what is not known": (head(compression=3), "unknown compression 3"),
    "compressed, it says": (head(compression=ZSTD), "does not inflate|inflates to"),
    "no polynomial": (field(polynomials=0), OTHER),
    "one polynomial": (field(polynomials=1), OTHER),
    "a product's three": (field(polynomials=3), OTHER),
    "2^63 polynomials": (field(polynomials=2**63), OTHER),
    "another ring": (lambda f: replace(f, poly_modulus=f.poly_modulus // 2), OTHER),
    "no ring": (field(poly_modulus=0), OTHER),
    "a ring of 2^64": (field(poly_modulus=2**64 - 1), OTHER),
    "a prime more": (lambda f: replace(f, primes=f.primes + 1), OTHER),
    "a prime less": (lambda f: replace(f, primes=f.primes - 1), OTHER),
    "another scale": (lambda f: replace(f, scale=f.scale * 2), OTHER),
    "a scale of 0": (field(scale=0.0), OTHER),
    "a scale of NaN": (field(scale=float("nan")), OTHER),
    "a scale of infinity": (field(scale=float("inf")), OTHER),
    "no correction": (field(correction=0), OTHER),
    "another correction": (field(correction=2), OTHER),
    "the other form": (lambda f: replace(f, ntt=1 - f.ntt), OTHER),
    "no form": (field(ntt=255), OTHER),
    "coefficients of another magic": (nested(magic=1), NESTED),
    "coefficients of another header": (nested(size=0), NESTED),
    "coefficients compressed by zstd": (nested(compression=ZSTD), NESTED),
    "coefficients compressed by zlib": (nested(compression=ZLIB), NESTED),
    "coefficients of 0 bytes": (nested(total=0), NESTED),
    "coefficients of 2^63 bytes": (nested(total=2**63), NESTED),
    "no coefficients": (lambda f: replace(f, coefficients=f.coefficients[:0]), SIZE),
    "a coefficient more": (lambda f: replace(f,
        coefficients=np.append(f.coefficients, np.uint64(0))), SIZE),
    "a coefficient less": (lambda f: replace(f, coefficients=f.coefficients[:-1]), SIZE),
    "a count that is one less": (lambda f: replace(f, count=f.coefficients.size - 1), SIZE),
    "a count of 2^61": (field(count=2**61), SIZE),
    "a count of half": (lambda f: replace(f, count=f.coefficients.size // 2), SIZE),
    "half, and no seed": (lambda f: polynomials(f, 1, None), SIZE),
    "all, and a seed": (lambda f: polynomials(f, 2, bytes(65)), SIZE),
    "no second polynomial": (without_second_polynomial, "without its second polynomial"),
    "a seed too short": (lambda f: replace(f, seed=bytes(64)), SIZE),
}  # fmt: skip
SEED_BEFORE_SEAL: dict[str, tuple[Forge, str]] = {
    "a seed of another magic": (field(generator=Header(magic=1)), NESTED),
    "a seed compressed by zstd": (field(generator=Header(compression=ZSTD)), NESTED),
    "a seed compressed by zlib": (field(generator=Header(compression=ZLIB)), NESTED),
    "a seed of 2^63 bytes": (field(generator=Header(total=2**63)), NESTED),
    "a seed of another header": (field(generator=Header(size=65)), NESTED),
    "a generator of no type": (lambda f: replace(f, seed=b"\0" + f.seed[1:]), "another generator"),
    "a generator of type 255": (
        lambda f: replace(f, seed=b"\xff" + f.seed[1:]),
        "another generator",
    ),
}
BY_SEAL: dict[str, tuple[Forge, str]] = {
    "parameters of no id": (field(parms_id=bytes(32)), "not a ciphertext of these parameters"),
    "parameters of another id": (
        field(parms_id=b"\x01" * 32),
        "not a ciphertext of these parameters",
    ),
    "the first coefficient at 2^64 - 1": (
        lambda f: f.with_coefficient(0, 2**64 - 1),
        "not a ciphertext of these",
    ),
    "the last coefficient at 2^64 - 1": (
        lambda f: f.with_coefficient(-1, 2**64 - 1),
        "not a ciphertext of these",
    ),
    "a coefficient at 2^40": (lambda f: f.with_coefficient(77, 2**40), "not a ciphertext of these"),
}


@pytest.mark.parametrize("place", [0, 1])
def test_what_our_check_can_tell_never_reaches_seal(scene: Scene, place: int) -> None:
    cases = BEFORE_SEAL | (SEED_BEFORE_SEAL if scene.form == "seeded" else {})
    for name, (forge, reason) in cases.items():
        text = scene.offer(place, scene.forged(place, forge))
        assert text is not None and re.search(reason, text), f"{name}: {text}"
        # The good ciphertext before it was parsed, to be added and taken away again; the forged one
        # was not.
        assert len(scene.reads) == 2 * place, name
        assert scene.cast.server.refused == 1
    scene.finish("client-1", "client-2", "client-3")


@pytest.mark.parametrize("place", [0, 1])
def test_what_only_seal_can_tell_seal_refuses(scene: Scene, place: int) -> None:
    for name, (forge, reason) in BY_SEAL.items():
        text = scene.offer(place, scene.forged(place, forge))
        assert text is not None and re.search(reason, text), f"{name}: {text}"
        assert scene.cast.server.refused == 1
    scene.finish("client-1", "client-2", "client-3")

"""Properties of what a hostile client can send: mutations of every kind, single fields, single
coefficients."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import compress

from tests.security.forge import ZSTD, Forgery
from tests.security.mutations import MUTATIONS
from tests.security.scene import Scene
from tests.security.stages import OUTCOMES, Stages


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", MUTATIONS)
def test_every_party_refuses_or_takes_and_its_round_goes_on(
    stages: Stages, name: str, seed: int
) -> None:
    rng = random.Random(seed)
    stage = stages.choose(rng, name.startswith("ciphertext"))
    assert stage.offer(MUTATIONS[name](rng, stage)) in OUTCOMES
    for server in stages.servers:
        if server is stage:
            server.finish()


FIELDS: dict[str, int] = {
    "polynomials": 64,
    "poly_modulus": 64,
    "primes": 64,
    "correction": 64,
    "ntt": 8,
    "count": 64,
}


@settings(max_examples=30)
@given(name=st.sampled_from(sorted(FIELDS)), place=st.sampled_from([0, 1]), data=st.data())
def test_no_other_value_of_a_field_reaches_seal(
    scene: Scene, name: str, place: int, data: st.DataObject
) -> None:
    forgery = scene.taken_apart(place)
    due = forgery.coefficients.size if name == "count" else getattr(forgery, name)
    near = st.sampled_from([0, due - 1, due + 1, 2 * due, 2**32 + due, 2**63 + due]).map(
        lambda n: n % 2 ** FIELDS[name]
    )
    value = data.draw(near | st.integers(0, 2 ** FIELDS[name] - 1))
    text = scene.offer(place, replace(forgery, **{name: value}).write())
    if value == due:
        assert text is None
    else:
        assert text is not None and len(scene.reads) == 2 * place


@settings(max_examples=30)
@given(scale=st.floats(width=64, allow_nan=True), place=st.sampled_from([0, 1]))
def test_no_other_scale_reaches_seal(scene: Scene, scale: float, place: int) -> None:
    forgery = scene.taken_apart(place)
    text = scene.offer(place, replace(forgery, scale=scale).write())
    assert (text is None) == (scale == forgery.scale)
    assert text is None or len(scene.reads) == 2 * place


HEADER = {"magic": 16, "size": 8, "major": 8, "compression": 8, "reserved": 16, "total": 64}


@settings(max_examples=30)
@given(
    where=st.sampled_from(["outer", "array", "generator"]),
    name=st.sampled_from(sorted(HEADER)),
    value=st.integers(0, 2**64 - 1),
)
def test_no_other_header_reaches_seal(scene: Scene, where: str, name: str, value: int) -> None:
    forgery = scene.taken_apart(0)
    header = getattr(forgery, where)
    value = value % 2 ** HEADER[name]
    nested_version = where != "outer" and name == "major"  # of which SEAL takes some
    if (
        value == getattr(header, name)
        or nested_version
        or (where == "generator" and forgery.seed is None)
    ):
        return
    text = scene.offer(0, replace(forgery, **{where: replace(header, **{name: value})}).write())
    assert text is not None and scene.reads == []


def primes(scene: Scene) -> list[int]:
    """The data primes."""
    from hyperlock.encryption._tenseal import tenseal as ts

    data = ts.context_from(scene.keys.public).seal_context().data.first_context_data()
    return [prime.value() for prime in data.parms().coeff_modulus()]


@settings(max_examples=25)
@given(place=st.sampled_from([0, 1]), at=st.integers(0, 2**40), data=st.data())
def test_a_coefficient_is_taken_exactly_if_it_lies_below_its_prime(
    scene: Scene, place: int, at: int, data: st.DataObject
) -> None:
    forgery = scene.taken_apart(place)
    moduli = primes(scene)
    at %= forgery.coefficients.size
    prime = moduli[at // forgery.poly_modulus % len(moduli)]
    value = data.draw(
        st.sampled_from([0, 1, prime - 1, prime, prime + 1, 2**63, 2**64 - 1])
        | st.integers(0, 2**64 - 1)
    )
    text = scene.offer(place, forgery.with_coefficient(at, value).write())
    assert (text is None) == (value < prime)


@settings(max_examples=30)
@given(
    damage=st.lists(st.tuples(st.integers(0, 2**30), st.integers(1, 255)), min_size=1, max_size=6),
    squeeze=st.booleans(),
)
def test_damage_anywhere_is_refused_or_hit_what_may_be_anything(
    scene: Scene, damage: list, squeeze: bool
) -> None:
    """That is coefficients, the seed, and the versions of nested objects."""
    forgery = scene.taken_apart(0)
    slots = scene.slots[0]
    content = bytearray(forgery.content)
    for at, mask in damage:
        content[at % len(content)] ^= mask
    bad = replace(forgery, compress=lambda _: bytes(content))
    sent = replace(
        forgery,
        outer=replace(forgery.outer, compression=ZSTD),
        compress=lambda _: compress(bytes(content)),
    )
    if scene.offer(0, (sent if squeeze else bad).write()) is None:
        taken = Forgery.of(bad.write(), scene.cast.scheme.layout, slots)
        rest = {
            name: getattr(forgery, name) for name in ("coefficients", "seed", "array", "generator")
        }
        assert replace(taken, **rest).write() == forgery.write()

"""Properties of what a hostile client can send: mutations of every kind, other lengths, single
numbers, damage."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.forge import Forgery
from tests.security.mutations import MUTATIONS
from tests.security.proved_stages import AllStages, ProvedStage
from tests.security.scene import Scene
from tests.security.stages import OUTCOMES, ServerStage


@pytest.fixture(scope="module")
def stages() -> AllStages:
    return AllStages()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", MUTATIONS)
def test_every_party_refuses_or_takes_and_its_round_goes_on(
    stages: AllStages, name: str, seed: int
) -> None:
    rng = random.Random(seed)
    stage = stages.choose(rng, name)
    assert stage.offer(MUTATIONS[name](rng, stage)) in OUTCOMES
    if isinstance(stage, ServerStage | ProvedStage):
        stage.finish()


@settings(max_examples=30)
@given(place=st.sampled_from([0, 1]), size=st.integers(0, 2**20))
def test_no_other_length_reaches_seal(scene: Scene, place: int, size: int) -> None:
    layout = scene.layout
    good = scene.chunks[place]
    size %= 2 * len(good)
    if size in (layout.whole_bytes, layout.seeded_bytes):
        return
    assert scene.offer(place, (good * 2)[:size]) is not None
    assert scene.handed == [] or scene.only_good_handed(place)


@settings(max_examples=50)
@given(place=st.sampled_from([0, 1]), at=st.integers(0, 2**40), data=st.data())
def test_a_number_is_taken_exactly_if_its_residue_lies_below_its_prime(
    scene: Scene, place: int, at: int, data: st.DataObject
) -> None:
    forgery = scene.taken_apart(place)
    at %= forgery.size
    prime, width, dropped = forgery.about(at)
    top = 2**width - 1
    edge = -(-prime >> dropped)
    near = st.sampled_from([0, 1, edge - 1, edge, min(edge + 1, top), top])
    value = data.draw(near | st.integers(0, top))
    text = scene.offer(place, forgery.with_coefficient(at, value).write())
    assert (text is None) == (value << dropped < prime)
    assert text is None or scene.only_good_handed(place)


@settings(max_examples=50)
@given(
    damage=st.lists(st.tuples(st.integers(0, 2**30), st.integers(1, 255)), min_size=1, max_size=6)
)
def test_damage_that_keeps_the_length_is_refused_exactly_if_a_residue_is_none(
    scene: Scene, damage: list[tuple[int, int]]
) -> None:
    """The rest may be anything: there is nothing but residues and seeds."""
    content = bytearray(scene.chunks[0])
    for at, mask in damage:
        content[at % len(content)] ^= mask
    taken = Forgery.of(bytes(content), scene.layout)
    primes = np.array(scene.layout.primes, np.uint64)[:, np.newaxis]
    text = scene.offer(0, bytes(content))
    assert (text is None) == bool((taken.residues < primes).all())
    assert taken.write() == content

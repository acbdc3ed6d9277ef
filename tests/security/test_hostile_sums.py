"""Good form and bad content: ciphertexts of other places, contexts and levels, sums that cancel,
and plain nonsense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.errors import ReleaseRefused
from tests.security.forge import Forgery
from tests.security.scene import SCHEMES, Forge, Scene, random_coefficients

OTHERS = ("client-0", "client-1", "client-2", "client-3")


def test_ciphertexts_in_each_others_places_are_refused(scene: Scene) -> None:
    scene.open()
    first, second = scene.chunks
    for chunks in ((second, first), (first, first), (second, second)):
        assert "not one ciphertext of" in str(scene.receive(*chunks))
    assert scene.cast.server.refused == 3
    scene.finish(*OTHERS)


def test_ciphertexts_of_another_context_are_refused(scene: Scene) -> None:
    """Of the other scheme, and of one with the same ring and other primes; and both dressed up as
    ours."""
    layout = scene.cast.scheme.layout
    others = [scheme for scheme in SCHEMES.values() if scheme is not scene.cast.scheme]
    for other in (*others, Ckks(ckks_parameters(8192, [50, 30, 40], 30, 8, 16, 128))):
        values = np.zeros(scene.slots[1] * other.parameters.packing.fields, np.int8)
        (chunk,) = other.encryptor(other.generate_keys().public).encrypt(values)
        assert scene.offer(1, chunk) is not None
        # The good one before it, twice, or none.
        assert len(scene.reads) in (0, 2) or layout == other.layout
        taken_apart = Forgery.of(chunk, other.layout, scene.slots[1])
        dressed = replace(
            taken_apart,
            suffix=layout.suffix,
            ntt=int(layout.ntt),
            scale=layout.scale,
            poly_modulus=layout.poly_modulus,
            coefficients=np.resize(
                taken_apart.coefficients, 2 * layout.poly_modulus * layout.primes
            ),
        )
        assert "not a ciphertext of these parameters" in str(scene.offer(1, dressed.write()))
    scene.finish(*OTHERS[1:])


def levels(scene: Scene) -> list[bytes]:
    """Ids of the same context's parameters that no fresh ciphertext has: with the special prime,
    and a prime less."""
    from hyperlock.encryption._tenseal import tenseal as ts

    context = ts.context_from(scene.keys.public).seal_context().data
    lower = context.first_context_data().next_context_data()  # BFV has none
    ids = [np.array(context.key_context_data().parms_id(), "<u8").tobytes()]
    return ids if lower is None else [*ids, np.array(lower.parms_id(), "<u8").tobytes()]


@pytest.mark.parametrize("primes", [1, 2, 3])
def test_ciphertexts_of_other_levels_are_refused(scene: Scene, primes: int) -> None:
    """With so many primes' coefficients: what the level has, and what it has not."""
    for parms_id in levels(scene):
        assert parms_id != scene.taken_apart(1).parms_id

        def forge(forgery: Forgery, parms_id: bytes = parms_id) -> Forgery:
            coefficients = np.resize(forgery.coefficients, 2 * forgery.poly_modulus * primes)
            return replace(
                forgery, parms_id=parms_id, primes=primes, seed=None, coefficients=coefficients
            )

        text = str(scene.offer(1, scene.forged(1, forge)))
        assert ("not a ciphertext of these parameters" in text) == (primes == 2)
    scene.finish(*OTHERS[1:])


def test_ciphertexts_that_cancel_the_sum_are_refused(scene: Scene) -> None:
    """Two colluding clients', one the other's negative. SEAL notices when it has added them."""
    from hyperlock.encryption._tenseal import sealapi
    from hyperlock.encryption._tenseal import tenseal as ts

    context = ts.context_from(scene.keys.public)
    negative = []
    evaluator = sealapi.Evaluator(context.seal_context().data)
    for place, chunk in enumerate(scene.chunks):
        (ciphertext,) = scene.cast.scheme.load(context, chunk, scene.slots[place]).ciphertext()
        evaluator.negate_inplace(ciphertext)
        negative.append(scene.framed(place, ciphertext))
    scene.open()
    assert scene.receive(*scene.chunks) is None
    for chunks in (negative, [negative[0], scene.chunks[1]], [scene.chunks[0], negative[1]]):
        assert "cannot be added" in str(scene.receive(*chunks, sender="client-2"))
    assert scene.cast.server.refused == 3
    scene.finish(*OTHERS[:3], of=(9, 0, 1, 2))


def test_a_client_that_cancels_its_own_update_cannot(scene: Scene) -> None:
    scene.open()
    assert scene.receive(*scene.chunks) is None
    assert "sent before" in str(scene.receive(*scene.chunks))
    scene.finish(*OTHERS[:3], of=(9, 0, 1, 2))


def one_coefficient(forgery: Forgery) -> Forgery:
    return forgery.with_coefficient(5, int(forgery.coefficients[5]) ^ 2**33)


@pytest.mark.parametrize("forge", [random_coefficients, one_coefficient])
def test_nonsense_of_good_form_is_taken_and_its_sum_not_released(
    scene: Scene, forge: Forge
) -> None:
    """Nobody can look inside: one client can spoil a round, and not its result."""
    assert scene.offer(0, scene.forged(0, forge)) is None
    for message in scene.good[1:3]:
        assert scene.cast.server.receive(message) is None
    with pytest.raises(ReleaseRefused, match=r"round 1: (the sum|the noise budget|a coordinate)"):
        scene.cast.another_keyholder(scene.keys).handle(scene.cast.server.close())

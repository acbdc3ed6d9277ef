"""Good form and bad content: ciphertexts of other places, keys and schemes, sums that cancel, and
plain nonsense.

Residues say nothing of where they come from, so most of this is taken, and the key holder finds it
in the sum.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hyperlock.encryption import seal
from hyperlock.encryption.ciphertexts import public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.seal import Residues
from hyperlock.errors import ReleaseRefused
from tests.security.forge import Forgery
from tests.security.scene import SCHEMES, Forge, Scene, random_residues

OTHERS = ("client-0", "client-1", "client-2", "client-3")


def assert_not_released(scene: Scene, *senders: str, match: str = "the sum|the noise") -> None:
    """These still send good updates, and the key holder refuses the sum."""
    for sender in senders:
        assert scene.cast.server.receive(scene.good[OTHERS.index(sender)]) is None
    with pytest.raises(ReleaseRefused, match=rf"round 1: .*({match})"):
        scene.closed()


def test_ciphertexts_in_each_others_places_are_not_released(scene: Scene) -> None:
    """A full one where the vector's end is: what is behind it is not zero."""
    first, second = scene.chunks
    for chunks in ((second, first), (first, first)):
        scene.open()
        assert scene.receive(*chunks) is None
        assert_not_released(scene, *OTHERS[:3])


def test_ciphertexts_of_other_schemes_are_refused_or_not_released(scene: Scene) -> None:
    """Those of the same ring and primes have the right form."""
    ours = scene.layout
    others = [scheme for scheme in SCHEMES.values() if scheme is not scene.cast.scheme]
    same = []
    for other in (*others, Ckks(ckks_parameters(8192, [50, 30, 40], 30, Extent(8), 16, 128))):
        values = np.full(other.parameters.slots, 100, np.int8)
        chunk = next(other.encryptor(other.generate_keys().public).encrypt(values))
        text = scene.offer(1, chunk)
        if other.layout == ours:
            same.append(other)
            assert text is None
            assert_not_released(scene, "client-1", "client-2")
        else:
            assert "instead of" in str(text) or "at most" in str(text)
    assert len(same) == (len(ours.primes) == 2)


def test_ciphertexts_under_another_key_are_not_released(scene: Scene) -> None:
    scheme = scene.cast.scheme
    encryptor = scheme.encryptor(scheme.generate_keys().public)
    scene.open()
    assert scene.receive(*encryptor.encrypt(scene.cast.vector(9))) is None
    assert_not_released(scene, *OTHERS[:3])


@pytest.mark.parametrize("primes", [1, 2, 3])
def test_ciphertexts_of_another_number_of_primes_are_refused(scene: Scene, primes: int) -> None:
    """As with the special prime, or a level further down."""
    layout = replace(scene.layout, primes=(scene.layout.primes * 3)[:primes])
    forgery = scene.taken_apart(1)
    n = layout.poly_modulus
    numbers = np.resize(forgery.polynomials, (len(forgery.polynomials), primes, n))
    text = scene.offer(1, replace(forgery, layout=layout, polynomials=numbers).write())
    assert (text is None) == (layout == scene.layout)
    if text is not None:
        assert "instead of" in text or "at most" in text
        scene.finish(*OTHERS[1:])


def residues(scene: Scene, chunk: bytes) -> Residues:
    """uint64[2, primes, N] of an Update's ciphertext, its seed grown."""
    context = public_context(scene.keys.public).seal_context().data
    with seal.scratch() as file:
        received = scene.layout.open_update(chunk)
        grown = scene.cast.scheme.ciphertext(file, context, received)
        return seal.residues(file, grown, len(scene.layout.primes)).copy()


def negative(scene: Scene, *both: Residues) -> bytes:
    """An Update's ciphertext that adds with these to zero."""
    primes = np.array(scene.layout.primes, np.uint64)[:, np.newaxis]
    total = sum(both[1:], both[0]) % primes
    return scene.layout.write_whole((primes - total) % primes)


def test_ciphertexts_that_cancel_the_sum_are_refused(scene: Scene) -> None:
    """Two colluding clients', one the other's negative: without the key, anyone could read their
    sum."""
    whole = scene.encrypted("whole", 9)
    negatives = [negative(scene, residues(scene, chunk)) for chunk in whole]
    scene.open()
    assert scene.receive(*whole) is None
    for chunks in (negatives, [negatives[0], whole[1]], [whole[0], negatives[1]]):
        assert "without its second polynomial" in str(scene.receive(*chunks, sender="client-2"))
    assert scene.cast.server.refused == 3
    scene.finish(*OTHERS[:3], of=(9, 0, 1, 2))


def test_ciphertexts_that_cancel_the_seeded_ones_are_not_released(scene: Scene) -> None:
    """The server grows seeds apart, so that no single update shows it; the key holder sees the
    sum."""
    seeded = scene.encrypted("seeded", 9)
    whole = scene.encrypted("whole", 8)
    negatives = [
        negative(scene, residues(scene, one), residues(scene, other))
        for one, other in zip(seeded, whole, strict=True)
    ]
    scene.open()
    for chunks, sender in ((seeded, "client-3"), (whole, "client-2"), (negatives, "client-1")):
        assert scene.receive(*chunks, sender=sender) is None
    assert_not_released(scene, match="without its second polynomial")


def test_a_client_that_cancels_its_own_update_cannot(scene: Scene) -> None:
    scene.open()
    assert scene.receive(*scene.chunks) is None
    assert "sent before" in str(scene.receive(*scene.chunks))
    scene.finish(*OTHERS[:3], of=(9, 0, 1, 2))


def test_a_copied_update_is_not_taken(scene: Scene) -> None:
    """What another client sent, in a message of one's own: twice in the sum, it would stand out."""
    scene.open()
    assert scene.receive(*scene.chunks) is None
    reason = str(scene.receive(*scene.chunks, sender="client-2"))
    assert reason == "client-2 sent what another client sent"
    scene.finish("client-0", "client-1", of=(9, 0, 1))


def one_coefficient(forgery: Forgery) -> Forgery:
    """Half its prime further."""
    prime, _, dropped = forgery.about(5)
    top = prime >> dropped
    return forgery.with_coefficient(5, (int(forgery.polynomials.flat[5]) + top // 2) % top)


@pytest.mark.parametrize("forge", [random_residues, one_coefficient])
def test_nonsense_of_good_form_is_taken_and_its_sum_not_released(
    scene: Scene, forge: Forge
) -> None:
    """Nobody can look inside: one client can spoil a round, and not its result."""
    assert scene.offer(0, scene.forged(0, forge)) is None
    assert_not_released(scene, "client-1", "client-2", match="the sum|the noise|a coordinate")

"""The key holder: it releases sums of enough updates, exactly; it decrypts once a round, and
nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from hyperlock.encryption import totals
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused, ReleaseRefused
from hyperlock.parties.messages import PublicKey, Release, key_id_of
from tests.parties.cast import ROUNDS, Cast


def vectors(cast: Cast, count: int) -> list[np.ndarray]:
    return [cast.vector(seed) for seed in range(count)]


def test_a_release_is_the_exact_sum(cast: Cast) -> None:
    for number, count in ((1, 3), (2, 16)):
        release = cast.keyholder.handle(cast.aggregate(vectors(cast, count), number))
        message = cast.read(Release, release)
        message.expect(
            run="run", round=number, sender="keyholder", key_id=cast.key_id, length=cast.length
        )
        assert (cast.sums(release) == sum(vectors(cast, count))).all()


def test_a_single_update_is_never_released(cast: Cast) -> None:
    with pytest.raises(ReleaseRefused, match=r"the sum holds 1 updates; .*keys\.min_clients=3"):
        cast.keyholder.handle(cast.aggregate(vectors(cast, 1)))


@pytest.mark.parametrize("min_clients", [2, 3, 5])
def test_sums_of_fewer_than_min_clients_are_not_released(cast: Cast, min_clients: int) -> None:
    few = Cast(cast.scheme, min_clients)
    for count in range(1, min_clients):
        with pytest.raises(ReleaseRefused, match=f"round {count}: the sum holds {count} updates"):
            few.keyholder.handle(few.aggregate(vectors(few, count), count))
    assert few.keyholder.handle(few.aggregate(vectors(few, min_clients), min_clients))


def test_the_count_is_read_from_inside_the_sum(cast: Cast) -> None:
    """Three ciphertexts, one of which says that it holds no client: two updates."""
    none = cast.vector(3)
    none[: totals.width(8)] = totals.encode(Totals(0, 0, 0.0, 0), 8)
    with pytest.raises(ReleaseRefused, match="holds 2 updates"):
        cast.keyholder.handle(cast.aggregate([*vectors(cast, 2), none]))


def test_sums_of_more_than_max_clients_are_not_released(cast: Cast) -> None:
    small = cast.vector()
    small[totals.width(8) :] = 1
    with pytest.raises(ReleaseRefused, match="holds 17 updates"):
        cast.keyholder.handle(cast.aggregate([small] * 17))
    assert cast.keyholder.handle(cast.aggregate([small] * 16, 2))


def test_a_round_is_decrypted_once(cast: Cast) -> None:
    cast.keyholder.handle(cast.aggregate(vectors(cast, 3), 4))
    for count in (3, 4):  # the same sum, and one that would give the fourth update away
        with pytest.raises(ReleaseRefused, match="round 4 was decrypted before"):
            cast.keyholder.handle(cast.aggregate(vectors(cast, count), 4))
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3), 5))


@pytest.mark.parametrize("number", [0, 1, 3, 4, ROUNDS + 1, 2**63])
def test_only_a_later_round_of_the_run_is_decrypted(
    cast: Cast, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast.keyholder.handle(cast.aggregate(vectors(cast, 3), 4))
    monkeypatch.setattr(cast.keyholder, "_decryptor", None)  # not even looked at
    with pytest.raises(
        ReleaseRefused,
        match=f"round {number} was decrypted before, or is none of this run's {ROUNDS}",
    ):
        cast.keyholder.handle(cast.aggregate(vectors(cast, 3), number))


def beyond(cast: Cast, by: int = 1) -> list[np.ndarray]:
    """Three updates, their last coordinate as low as it may be, and one that adds to it and counts
    itself as none."""
    most = vectors(cast, 3)
    for vector in most:
        vector[-1] = -127
    none = np.zeros_like(most[0])
    none[-1] = -by
    return [*most, none]


def test_a_coordinate_that_so_few_updates_cannot_make_is_not_released(cast: Cast) -> None:
    with pytest.raises(ReleaseRefused, match="larger than 3 updates can make it"):
        cast.keyholder.handle(cast.aggregate(beyond(cast)))
    assert cast.sums(cast.keyholder.handle(cast.aggregate(beyond(cast, 0), 2)))[-1] == -3 * 127


def test_a_refused_sum_uses_its_round_up(cast: Cast) -> None:
    """Whoever may try again with other ciphertexts learns from each refusal."""
    for number, bad in enumerate((vectors(cast, 1), vectors(cast, 2), beyond(cast)), 1):
        with pytest.raises(ReleaseRefused, match=f"round {number}: "):
            cast.keyholder.handle(cast.aggregate(bad, number))
        with pytest.raises(ReleaseRefused, match="was decrypted before"):
            cast.keyholder.handle(cast.aggregate(vectors(cast, 3), number))
    assert (
        cast.sums(cast.keyholder.handle(cast.aggregate(vectors(cast, 3), 4)))
        == sum(vectors(cast, 3))
    ).all()


def test_a_sum_under_another_key_is_refused(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    other = Cast(encrypted_cast.scheme, parties=encrypted_cast.parties)
    data = other.aggregate(vectors(cast, 3))
    with pytest.raises(MessageRefused, match="key_id"):
        cast.keyholder.handle(data)
    with pytest.raises(ReleaseRefused, match=r"round 1: .*another key"):
        cast.keyholder.handle(other.aggregate(vectors(cast, 3), key_id=cast.key_id))
    assert other.keyholder.handle(data)


@pytest.mark.parametrize(
    "change",
    [{"run": "other"}, {"key_id": "other"}, {"fingerprint": "other"}, {"length": 5}],
    ids=str,
)
def test_an_aggregate_of_another_run_key_scheme_or_length_is_refused(
    cast: Cast, change: dict
) -> None:
    (name,) = change
    with pytest.raises(MessageRefused, match=name):
        cast.keyholder.handle(cast.aggregate(vectors(cast, 3), **change))


def test_what_is_no_aggregate_is_refused(cast: Cast) -> None:
    good = cast.aggregate(vectors(cast, 3))
    for bad in (
        b"",
        b"garbage",
        good[:-1],
        cast.update("client-0", cast.vector()),
        cast.keyholder.public_key(),
    ):
        with pytest.raises(MessageRefused):
            cast.keyholder.handle(bad)


def test_ciphertexts_that_are_none_are_refused(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    for number, payload in enumerate(((), (b"",), (b"garbage", b"garbage"), (b"garbage",)), 1):
        of_another_number = len(payload) != cast.scheme.chunk_count(cast.length)
        error, text = (
            (MessageRefused, "ciphertexts instead of")
            if of_another_number
            else (ReleaseRefused, "round")
        )
        with pytest.raises(error, match=text):
            cast.keyholder.handle(cast.aggregate(vectors(cast, 3), number, payload=payload))


def test_the_public_key_message_names_its_key(cast: Cast) -> None:
    key = PublicKey.read(
        cast.keyholder.public_key(), cast.parties["client-0"], fingerprint=cast.scheme.fingerprint
    )
    assert key_id_of(key) == cast.key_id


def test_every_key_holder_has_keys_of_its_own(encrypted_cast: Cast) -> None:
    assert encrypted_cast.another_keyholder().public_key() != encrypted_cast.keyholder.public_key()


def test_its_repr_shows_nothing(encrypted_cast: Cast) -> None:
    for thing in (encrypted_cast.keyholder, encrypted_cast.keyholder._decryptor):
        assert len(repr(thing)) < 100

"""The key holder: it releases sums of enough updates, each proven, exactly; a key for an attempt, a
round once, and nothing else."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption import totals
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.scheme import KeyPair
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused, ReleaseRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import (
    Aggregate,
    Message,
    Open,
    PublicKey,
    Release,
    Train,
    Update,
    key_id_of,
)
from tests.parties.cast import NAMES, ROUNDS, SAMPLES, Cast, envelope_of
from tests.test_secrecy import secrets

MANY = [f"client-{i}" for i in range(17)]


@pytest.fixture
def crowd(cast: Cast) -> Cast:
    """One of more clients than a sum may have."""
    return Cast(cast.scheme, parties=enrol("run", dict.fromkeys(MANY, SAMPLES)))


def vectors(cast: Cast, count: int) -> list[np.ndarray]:
    return [cast.vector(seed) for seed in range(count)]


def updates(cast: Cast, count: int = 3) -> list[Update]:
    """What the first clients send in the open attempt."""
    return [cast.message(name, cast.vector(i)) for i, name in enumerate(NAMES[:count])]


def summed(cast: Cast, added: list[Update], named: list[Update] | list[bytes]) -> bytes:
    """An Aggregate of these ciphertexts that names these updates, or envelopes."""
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    for update in added:
        accumulator.add(update.parts)
    envelopes = [cast.envelope(one) if isinstance(one, Message) else one for one in named]
    payload = (*accumulator.total(), Aggregate.manifest(envelopes))
    return cast.sign(cast.of(Aggregate, SERVER, payload))


def refusal(cast: Cast, data: bytes) -> str:
    with pytest.raises(ReleaseRefused) as caught:
        cast.keyholder.handle(data)
    return str(caught.value)


def open_message(cast: Cast, round_number: int, attempt: int, **changes: object) -> bytes:
    """What the server sends to open an attempt, or a variation of it."""
    session = cast.session(SERVER).at(round_number, attempt)
    message = cast.read(Open, session.write(Open, (bytes(8),)))
    return cast.sign(replace(message, **changes))  # type: ignore[arg-type]


# A sum of enough updates


def test_a_release_is_the_exact_sum(crowd: Cast) -> None:
    for number, count in ((2, 3), (3, 16)):
        crowd.open(number)
        release = crowd.keyholder.handle(crowd.aggregate(vectors(crowd, count), MANY))
        message = crowd.read(Release, release)
        message.expect(run="run", round=number, attempt=1, sender=KEYHOLDER, length=crowd.length)
        message.expect(key_id=crowd.key_id, train=crowd.train)
        assert (crowd.sums(release) == sum(vectors(crowd, count))).all()


def test_a_single_update_is_never_released(cast: Cast) -> None:
    reason = refusal(cast, cast.aggregate(vectors(cast, 1)))
    assert reason == (
        "round 1: the sum is of 1 updates; of fewer than keys.min_clients=3 nothing is released"
    )


@pytest.mark.parametrize("min_clients", [2, 3, 5])
def test_sums_of_fewer_than_min_clients_are_not_released(cast: Cast, min_clients: int) -> None:
    few = Cast(cast.scheme, min_clients)
    for count in range(min_clients):
        few.open(1, count + 2)
        manifest = updates(few, count)
        reason = refusal(few, summed(few, updates(few, min_clients), manifest))
        assert f"the sum is of {count} updates; of fewer than keys.min_clients=" in reason
    few.open(1, 9)
    assert few.keyholder.handle(few.aggregate(vectors(few, min_clients)))


def test_the_sum_holds_as_many_updates_as_are_named(cast: Cast) -> None:
    """One of three says that it is of no client; two of three are named; one is there twice."""
    none = cast.vector(3)
    none[: totals.width(8)] = totals.encode(Totals(0, 0, 0.0, 0), 8)
    reason = refusal(cast, cast.aggregate([*vectors(cast, 2), none]))
    assert reason == "round 1: the sum does not hold the 3 updates that are named"
    cast.open(1, 2)
    four = updates(cast, 4)
    assert "not hold the 3 updates that are named" in refusal(cast, summed(cast, four, four[:3]))
    cast.open(1, 3)
    four = updates(cast, 4)
    assert "not hold the 4 updates that are named" in refusal(cast, summed(cast, four[:3], four))


def test_sums_of_more_than_max_clients_are_not_released(crowd: Cast) -> None:
    small = [vector // 2 for vector in vectors(crowd, 17)]
    for vector, whole in zip(small, vectors(crowd, 17), strict=True):
        vector[: totals.width(8)] = whole[: totals.width(8)]
    reason = refusal(crowd, crowd.aggregate(small, MANY))
    assert "the manifest is refused: not a manifest" in reason
    crowd.open(1, 2)
    assert crowd.keyholder.handle(crowd.aggregate(small[:16], MANY))


# Who is in it


Change = Callable[[Cast, Update], bytes]
WRONG: dict[str, tuple[Change, str]] = {
    "another run": (
        lambda c, u: c.envelope(replace(u, run="other")),
        "run 'other' instead of 'run'",
    ),
    "another round": (lambda c, u: c.envelope(replace(u, round=2)), "round 2 instead of 1"),
    "another attempt": (lambda c, u: c.envelope(replace(u, attempt=2)), "attempt 2 instead of 1"),
    "another key": (lambda c, u: c.envelope(replace(u, key_id="other")), "key_id 'other' instead"),
    "other terms": (
        lambda c, u: c.envelope(replace(u, terms=b"other")),
        "terms 6f74686572... instead",
    ),
    "another Train": (
        lambda c, u: c.envelope(replace(u, train=b"other")),
        "train 6f74686572",
    ),
    "another scheme": (
        lambda c, u: c.envelope(replace(u, fingerprint="other")),
        "fingerprint 'other' instead",
    ),
    "another length": (lambda c, u: c.envelope(replace(u, length=5)), "length 5 instead"),
    "another number of ciphertexts": (
        lambda c, u: c.envelope(replace(u, payload=u.parts[1:])),
        "payload parts instead of",
    ),
    "another kind": (
        lambda c, u: c.envelope(c.of(Aggregate, SERVER, u.parts)),
        "kind 'aggregate' instead of 'update'",
    ),
    "another's signature": (
        lambda c, u: envelope_of(c.sign(u, "client-1")),
        "the signature is not that of 'client-2'",
    ),
    "who is not enrolled": (
        lambda c, u: c.envelope(u).replace(b"client-2", b"client-9"),
        "sender 'client-9' is not enrolled",
    ),
    "garbage": (lambda c, u: b"garbage", "not a message"),
    "nothing": (lambda c, u: b"", "not a message"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_manifest_with_a_wrong_envelope_is_refused(cast: Cast, name: str) -> None:
    change, reason = WRONG[name]
    made = updates(cast)
    envelopes = [*map(cast.envelope, made[:2]), change(cast, made[2])]
    said = refusal(cast, summed(cast, made, envelopes))
    assert said.startswith("round 1: the manifest is refused: ") and reason in said


def test_a_manifest_that_is_none_is_refused(cast: Cast) -> None:
    made = updates(cast)
    for attempt, manifest in enumerate((b"", b"garbage", b"\xdd\xff\xff\xff\xff", b"\x91\x01"), 2):
        cast.open(1, attempt)
        good = cast.read(Aggregate, summed(cast, made, made))
        data = cast.sign(replace(good, payload=(*good.parts[:-1], manifest)))
        assert "the manifest is refused: not a manifest" in refusal(cast, data)


def test_only_enrolled_clients_count(cast: Cast) -> None:
    """Server and key holder can sign, and are none."""
    for attempt, name in enumerate((SERVER, KEYHOLDER), 2):
        cast.open(1, attempt)
        made = [*updates(cast, 2), cast.message(name, cast.vector(2))]
        reason = refusal(cast, summed(cast, made, made))
        assert reason == f"round 1: '{name}' is not enrolled as a client"


def test_a_client_counts_once(cast: Cast) -> None:
    """Named twice with one update, and with two of its own."""
    made = updates(cast)
    assert "a client is named twice" in refusal(cast, summed(cast, made, [*made[:2], made[1]]))
    cast.open(1, 2)
    made = [*updates(cast, 2), cast.message(NAMES[1], cast.vector(7))]
    assert "a client is named twice" in refusal(cast, summed(cast, made, made))


def test_one_clients_ciphertexts_under_anothers_name_are_refused(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    made = updates(cast, 2)
    made.append(replace(made[0], sender=NAMES[2]))
    reason = refusal(cast, summed(cast, made, made))
    assert reason == "round 1: two clients sent the same ciphertexts"


# What the sum says


def beyond(cast: Cast, by: int = 1) -> bytes:
    """Three updates, their last coordinate as low as it may be, and one that is not named, adds to
    it and counts itself as none."""
    most = vectors(cast, 3)
    for vector in most:
        vector[-1] = -127
    none = np.zeros_like(most[0])
    none[-1] = -by
    named = [cast.message(name, vector) for name, vector in zip(NAMES, most, strict=False)]
    return summed(cast, [*named, cast.message(NAMES[3], none)], named)


def test_a_coordinate_that_so_few_updates_cannot_make_is_not_released(cast: Cast) -> None:
    assert "a coordinate is larger than 3 updates can make it" in refusal(cast, beyond(cast))
    cast.open(1, 2)
    assert cast.sums(cast.keyholder.handle(beyond(cast, by=0)))[-1] == -3 * 127


@pytest.mark.parametrize("place", [1, 3, 6, 8, 13, 17])
def test_a_negative_digit_is_not_released(cast: Cast, place: int) -> None:
    """Of samples, loss or saturated coordinates: nobody has fewer than none."""
    three = vectors(cast, 3)
    for vector in three:
        vector[place] = 0
    three[0][place] = -1
    assert "or a digit of their totals is none" in refusal(cast, cast.aggregate(three))


@pytest.mark.parametrize(("samples", "good"), [(7, False), (8, True), (16, True), (17, False)])
def test_samples_are_those_that_the_clients_are_enrolled_with(
    cast: Cast, samples: int, good: bool
) -> None:
    """Each with ten, of which the key holder knows that they are 8 to 16."""
    data = cast.aggregate([cast.vector(i, samples=samples) for i in range(3)])
    if good:
        assert cast.keyholder.handle(data)
    else:
        due = "round 1: not as many samples as these clients are enrolled with, 24 to 48"
        assert refusal(cast, data) == due


def test_a_refusal_says_nothing_of_what_was_decrypted(cast: Cast) -> None:
    """A sum that is refused is not to be read from the refusal, one guess at a time."""
    none = cast.vector(3, samples=8191)
    for contributors, samples in ((0, 10), (77, 10), (1, 8191), (1, 77_777)):
        cast.open(1, cast.at[1] + 1)
        none[: totals.width(8)] = totals.encode(Totals(1, samples, 0.0, 77), 8)
        none[0] = contributors
        reason = refusal(cast, cast.aggregate([*vectors(cast, 2), none]))
        assert "8 to 16" not in reason
        numbers = {int(number) for number in re.findall(r"\d+", reason)}
        assert numbers <= {1, 3, 24, 48}, reason


def test_a_round_has_so_many_attempts(cast: Cast) -> None:
    for attempt in (10, 2**40):
        with pytest.raises(ReleaseRefused, match="a round has 9"):
            cast.keyholder.handle(cast.server.begin(1, attempt))
    cast.open(1, 9)
    with pytest.raises(ReleaseRefused, match="a round has 9"):
        cast.keyholder.handle(cast.server.begin(1, 1))
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_a_sum_under_another_key_is_refused(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    other = Cast(cast.scheme, parties=cast.parties)
    with pytest.raises(MessageRefused, match="key_id"):
        cast.keyholder.handle(other.aggregate(vectors(cast, 3)))
    # Also if every client says that it is under the key that was due.
    other_parts = [update.parts for update in updates(other)]
    made = [replace(u, payload=p) for u, p in zip(updates(cast), other_parts, strict=True)]
    assert "another key" in refusal(cast, summed(cast, made, made))


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"round": 2},
        {"attempt": 2},
        {"key_id": "other"},
        {"fingerprint": "other"},
        {"terms": b"other"},
        {"length": 5},
    ],
    ids=str,
)
def test_an_aggregate_of_another_run_attempt_key_scheme_or_length_is_refused(
    cast: Cast, change: dict
) -> None:
    """And is no reason to forget the key: the one that is due may come yet."""
    (name,) = change
    with pytest.raises(MessageRefused, match=name):
        cast.keyholder.handle(cast.aggregate(vectors(cast, 3), **change))
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_what_is_no_aggregate_is_refused(cast: Cast) -> None:
    good = cast.aggregate(vectors(cast, 3))
    update = cast.update("client-0", cast.vector())
    for bad in (b"", b"garbage", good[:-1], update, cast.key_message, cast.request):
        with pytest.raises(MessageRefused):
            cast.keyholder.handle(bad)
    assert cast.keyholder.handle(good)


def test_ciphertexts_that_are_none_are_refused(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    due = cast.scheme.chunk_count(cast.length)
    for chunks in ((), (b"",) * (due - 1), (b"garbage",) * (due + 1)):
        manifest = Aggregate.manifest([cast.envelope(update) for update in updates(cast)])
        with pytest.raises(MessageRefused, match="payload parts"):
            cast.keyholder.handle(cast.aggregate(vectors(cast, 3), payload=(*chunks, manifest)))
    for attempt, chunk in enumerate((b"", b"garbage"), 2):
        cast.open(1, attempt)
        manifest = Aggregate.manifest([cast.envelope(update) for update in updates(cast)])
        payload = (*[chunk] * due, manifest)
        assert refusal(cast, cast.aggregate(vectors(cast, 3), payload=payload))[:8] == "round 1:"


# A key for an attempt


def test_every_attempt_of_every_key_holder_has_a_key_of_its_own(encrypted_cast: Cast) -> None:
    cast = encrypted_cast
    seen = {cast.key_id}
    for at in ((1, 2), (2, 1), (2, 5)):
        cast.open(*at)
        message = cast.read(PublicKey, cast.key_message)
        message.expect(round=at[0], attempt=at[1], sender=KEYHOLDER, train=b"", length=0)
        assert message.key_id == key_id_of(cast.public)
        seen.add(cast.key_id)
    cast.keyholder = cast.another_keyholder()
    cast.open()
    assert len(seen | {cast.key_id}) == 5


def test_no_attempt_is_opened_twice_or_backwards(cast: Cast) -> None:
    """But the same request gets the same key as long as it is there."""
    cast.open(2, 3)
    for at in ((1, 9), (1, 1)):
        assert "comes after round 2" in refusal(cast, open_message(cast, *at))
    assert cast.keyholder.handle(cast.server.begin(2, 3)) == cast.key_message
    # What is open stays open.
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_a_server_that_was_restarted_gets_the_next_attempt(encrypted_cast: Cast) -> None:
    """With a key of its own: of those before it knows nothing."""
    cast = encrypted_cast
    keys = {cast.key_id}
    for asked, due in ((1, 2), (0, 3), (2, 4)):
        kept = int(asked).to_bytes(8, "little")
        begun = cast.session(SERVER).at(1, asked).write(Open, (kept,))
        message = cast.read(PublicKey, cast.keyholder.handle(begun))
        message.expect(round=1, attempt=due)
        keys.add(message.key_id)
    assert len(keys) == 4
    # The server takes the attempt that it is told.
    begun = cast.session(SERVER).at(1, 1).write(Open, (bytes(7) + b"\1",))
    cast.server.begin(1, 1)
    train = cast.server.open(cast.keyholder.handle(begun), NAMES)
    cast.read(Train, train).expect(attempt=5)


@pytest.mark.parametrize("number", [0, ROUNDS + 1, 2**63])
def test_only_rounds_of_the_run_are_opened(cast: Cast, number: int) -> None:
    reason = refusal(cast, open_message(cast, number, 1))
    assert f"round {number} was released before, or is none of this run's {ROUNDS}" in reason


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"key_id": "other"},
        {"train": b"other"},
        {"terms": b"other"},
        {"fingerprint": "other"},
        {"length": 5},
        {"sender": KEYHOLDER},
        {"sender": "client-0"},
        {"payload": (bytes(9),)},
        {"payload": (b"", b"")},
    ],
    ids=str,
)
def test_what_is_no_open_message_of_the_server_is_refused(cast: Cast, change: dict) -> None:
    with pytest.raises(MessageRefused):
        cast.keyholder.handle(open_message(cast, 1, 2, **change))
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_the_key_of_an_attempt_is_gone_when_the_next_is_opened(cast: Cast) -> None:
    old = cast.aggregate(vectors(cast, 3))
    cast.open(1, 2)
    with pytest.raises(MessageRefused, match="attempt 1 instead of 2"):
        cast.keyholder.handle(old)
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_a_refused_sum_uses_its_key_up(cast: Cast) -> None:
    """Whoever may try again with other ciphertexts learns from each refusal."""
    bad: list[Callable[[], bytes]] = [
        lambda: cast.aggregate(vectors(cast, 2)),
        lambda: beyond(cast),
        lambda: cast.aggregate([cast.vector(i, samples=99) for i in range(3)]),
    ]
    for attempt, make in enumerate(bad, 2):
        cast.open(1, attempt)
        assert refusal(cast, make()).startswith("round 1: ")
        reason = refusal(cast, cast.aggregate(vectors(cast, 3)))
        assert f"round 1, attempt {attempt}: its key is gone" in reason
    cast.open(1, 9)
    release = cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    assert (cast.sums(release) == sum(vectors(cast, 3))).all()


def test_a_key_holder_with_no_attempt_open_decrypts_nothing(cast: Cast) -> None:
    fresh = cast.another_keyholder()
    with pytest.raises(ReleaseRefused, match="round 1, attempt 1: its key is gone"):
        fresh.handle(cast.aggregate(vectors(cast, 3)))


@pytest.mark.parametrize("ends", ["released", "refused", "opened anew"])
def test_a_used_key_cannot_be_reached(
    ckks: Ckks, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its bytes nor what decrypts; while its attempt is open, it is found by the same
    walk."""
    pairs: list[KeyPair] = []
    generate = Ckks.generate_keys
    with monkeypatch.context() as patch:
        patch.setattr(Ckks, "generate_keys", lambda self: pairs.append(generate(self)) or pairs[-1])
        cast = Cast(ckks)
        cast.open(1, 2)
        cast.keyholder._next.result()  # type: ignore[union-attr]
    first, used, following = (pair.secret for pair in pairs)

    def found(secret: bytes) -> set[str]:
        gc.collect()
        return {*secrets(cast.keyholder, secret)} - {"KeyHolder", "KeyPair"}

    # Open: there is what decrypts, and the key that was made ahead is there in bytes.
    assert {"PackedDecryptor", "Decryptor"} <= found(used)
    assert "secret bytes" in found(following) and "secret bytes" not in found(first)

    if ends == "released":
        cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    elif ends == "refused":
        refusal(cast, cast.aggregate(vectors(cast, 2)))
    if ends == "opened anew":
        before = id(cast.keyholder._attempt.decryptor)  # type: ignore[union-attr]
        cast.open(1, 3)
        assert id(cast.keyholder._attempt.decryptor) != before  # type: ignore[union-attr]
        assert "secret bytes" not in found(used)
    else:
        assert found(used) == set()


# A round once


def test_the_same_request_gets_the_same_bytes(cast: Cast) -> None:
    request = cast.aggregate(vectors(cast, 3))
    release = cast.keyholder.handle(request)
    assert cast.keyholder.handle(request) == release
    assert cast.keyholder.handle(open_message(cast, 1, 2)) == release
    assert cast.keyholder.handle(open_message(cast, 1, 1)) == release
    cast.open(2)
    assert cast.keyholder.handle(request) == release
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))  # of round 2


def test_another_request_for_a_released_round_is_refused(cast: Cast) -> None:
    """Also one that would give the fourth update away, and in an attempt of the next round."""
    cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    others = [cast.aggregate(vectors(cast, 4)), cast.aggregate(vectors(cast, 4)[1:])]
    for _ in range(2):
        for other in others:
            assert "round 1 was released before" in refusal(cast, other)
        if cast.at == (1, 1):
            cast.open(2)


@pytest.mark.parametrize("number", [0, 1, 3, 4, ROUNDS + 1, 2**63])
def test_only_a_later_round_of_the_run_is_decrypted(
    cast: Cast, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast.open(4)
    cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    cast.open(5)
    with monkeypatch.context() as patch:
        patch.setattr(KeyHolder, "_spend", None)  # not even looked at
        reason = refusal(cast, cast.aggregate(vectors(cast, 3), round=number))
    assert f"round {number} was released before, or is none of this run's {ROUNDS}" in reason
    assert "the last was 4" in reason
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_a_key_holder_that_is_restarted_gives_what_it_gave(cast: Cast, tmp_path: Path) -> None:
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    cast.open()
    request = cast.aggregate(vectors(cast, 3))
    other = cast.aggregate(vectors(cast, 4))
    release = cast.keyholder.handle(request)

    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    assert cast.keyholder.handle(request) == release
    assert cast.keyholder.handle(open_message(cast, 1, 7)) == release
    assert "round 1 was released before" in refusal(cast, other)
    cast.open(2)
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


def test_where_all_parties_are_restarted_it_is_given_under_the_new_signature(
    cast: Cast, tmp_path: Path
) -> None:
    """In one process, signing keys end with it."""
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    cast.open()
    release = cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    before = cast.read(Release, release)

    cast.parties = enrol("run", dict.fromkeys(NAMES, SAMPLES))
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    with pytest.raises(MessageRefused, match="the signature is not"):
        cast.read(Release, release)
    again = cast.keyholder.handle(open_message(cast, 1, 1))
    assert cast.read(Release, again) == before


def test_what_could_not_be_written_down_is_not_released(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    cast.open()
    request = cast.aggregate(vectors(cast, 3))

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("hyperlock.parties.ledger.write_whole", fail)
        with pytest.raises(OSError, match="no space left"):
            cast.keyholder.handle(request)
    assert list(tmp_path.iterdir()) == []
    assert "its key is gone" in refusal(cast, request)
    cast.open(1, 2)
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    assert [path.name for path in tmp_path.iterdir()] == ["round-1"]


def test_a_release_that_the_server_has_kept_is_forgotten(cast: Cast) -> None:
    for number in (1, 2, 3):
        cast.open(number, 2)
        request = cast.aggregate(vectors(cast, 3))
        release = cast.keyholder.handle(request)
    cast.server.kept = 2
    cast.open(4)
    for number in (1, 2):
        assert "released before" in refusal(cast, open_message(cast, number, 9))
        assert cast.ledger.find(number).release == b""  # type: ignore[union-attr]
    assert cast.keyholder.handle(request) == release
    assert cast.keyholder.handle(open_message(cast, 3, 9)) == release


def test_no_server_can_have_the_release_forgotten_that_it_asks_for(cast: Cast) -> None:
    release = cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    everything = (2**64 - 1).to_bytes(8, "little")
    assert cast.keyholder.handle(open_message(cast, 1, 2, payload=(everything,))) == release
    assert cast.keyholder.handle(open_message(cast, 1, 3)) == release


def test_rounds_of_before_a_checkpoint_are_released(cast: Cast) -> None:
    """Also without a ledger of their own."""
    cast.keyholder = cast.another_keyholder(Ledger(last=4))
    for number in (1, 4):
        assert "the last was 4" in refusal(cast, open_message(cast, number, 1))
    cast.open(5)
    assert cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))


# A key that clients share


@pytest.fixture
def shared(cast: Cast) -> Cast:
    return Cast(cast.scheme, shared=True)


def test_a_shared_key_lives_for_the_run(shared: Cast) -> None:
    first = shared.key_id
    for number in (1, 2):
        shared.open(number)
        assert shared.key_id == first == key_id_of(shared.public)
        release = shared.keyholder.handle(shared.aggregate(vectors(shared, 3)))
        assert (shared.sums(release) == sum(vectors(shared, 3))).all()


def test_under_a_shared_key_a_round_is_decrypted_once(shared: Cast) -> None:
    request = shared.aggregate(vectors(shared, 3))
    other = shared.aggregate(vectors(shared, 4))
    release = shared.keyholder.handle(request)
    assert shared.keyholder.handle(request) == release
    assert "round 1 was released before" in refusal(shared, other)
    shared.open(1, 2)
    assert "round 1 was released before" in refusal(shared, shared.aggregate(vectors(shared, 4)))


def test_under_a_shared_key_a_refused_attempt_is_not_decrypted_again(shared: Cast) -> None:
    good = shared.aggregate(vectors(shared, 3))
    assert "the sum is of 2 updates" in refusal(shared, shared.aggregate(vectors(shared, 2)))
    assert refusal(shared, good) == "round 1 was decrypted before"
    shared.open(1, 2)
    assert shared.keyholder.handle(shared.aggregate(vectors(shared, 3)))


def test_under_a_shared_key_releases_are_forgotten_too(shared: Cast) -> None:
    for number in (1, 2):
        shared.open(number)
        shared.keyholder.handle(shared.aggregate(vectors(shared, 3)))
        shared.server.kept = number
    shared.open(3)
    entries = [shared.ledger.find(number) for number in (1, 2)]
    assert [entry.release for entry in entries if entry is not None] == [b"", b""]


def test_its_repr_shows_nothing(encrypted_cast: Cast) -> None:
    attempt = encrypted_cast.keyholder._attempt
    assert attempt is not None and "decryptor" not in repr(attempt)
    for thing in (encrypted_cast.keyholder, attempt.decryptor):
        assert len(repr(thing)) < 100

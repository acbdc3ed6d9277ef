"""A client: only ciphertexts leave it, a model that cannot be is refused, and what diverged is said
by name."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import pytest

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid
from hyperlock.errors import CiphertextRefused, ClientFailure, MessageRefused, ReleaseRefused
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER
from hyperlock.parties.keyholder import KeyHolder, Policy, SharedKeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import PublicKey, Train, Update, key_id_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.randomness import generator
from hyperlock.runtime.local import LocalRuntime
from tests.parties.cast import TERMS, Cast, Trainer

SIZES = (30, 10)


@pytest.fixture
def cast(cast: Cast) -> Cast:
    return Cast(cast.scheme, sizes=SIZES)


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, sum(SIZES)).astype(np.float32)


def vectors(cast: Cast, count: int) -> list[np.ndarray]:
    """Plaintexts of so many clients, each another one."""
    found = [cast.vector() for _ in range(count)]
    for i, vector in enumerate(found):
        vector[-1] = i
    return found


def train(cast: Cast, number: int = 7, attempt: int = 1, **changes: object) -> bytes:
    """What the server sends in this attempt, which is opened unless it is, or a variation of it."""
    if cast.at != (number, attempt):
        cast.open(number, attempt)
    message = cast.read(Train, cast.request, "client-0")
    return cast.sign(replace(message, **changes))  # type: ignore[arg-type]


def plaintext(cast: Cast, update: bytes) -> np.ndarray:
    """What a single update holds; only the tests look."""
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    accumulator.add(cast.read(Update, update).parts)
    decryptor = cast.keyholder._attempt.decryptor  # type: ignore[union-attr]
    return decryptor.decrypt(accumulator.total(), cast.length)


# What it sends


def test_an_update_names_attempt_sender_key_scheme_terms_and_train(cast: Cast) -> None:
    data = cast.client(Trainer(values())).handle(train(cast, 7, 2))
    message = cast.read(Update, data)
    message.expect(run="run", round=7, attempt=2, sender="client-3", key_id=cast.key_id)
    message.expect(fingerprint=cast.scheme.fingerprint, length=cast.length, terms=TERMS.digest)
    payload = b"".join(cast.read(Train, cast.request).parts)
    assert message.train == hashlib.sha256(payload).digest()


def test_an_update_holds_the_totals_and_the_weighted_update_on_the_grid(cast: Cast) -> None:
    trainer = Trainer(values(), loss=1.25)
    vector = plaintext(cast, cast.client(trainer, samples=8).handle(train(cast)))
    width = totals.width(8)
    assert totals.decode(vector[:width], 8) == totals.Totals(1, 8, 1.25, 0)
    step = 0.5 / 127
    assert np.abs(vector[width:] * step - values() * 0.8).max() < step
    assert np.abs(vector[width:] * step - values()).max() > step  # that is, weighted
    assert (trainer.seen[0] == cast.keeper.model.weights).all()


def test_saturated_coordinates_are_counted(cast: Cast) -> None:
    update = values()
    update[:4] = [0.6, -0.6, 3.0, 0.49]
    vector = plaintext(cast, cast.client(Trainer(update)).handle(train(cast)))
    assert totals.decode(vector[: totals.width(8)], 8).saturated == 3
    assert list(vector[totals.width(8) :][:3]) == [127, -127, 127]


def test_seed_round_attempt_and_client_decide_batches_and_rounding(cast: Cast) -> None:
    def sent(number: int, attempt: int = 1, index: int = 3, seed: int = 0) -> tuple[bytes, float]:
        trainer = Trainer(values())
        request = train(cast, number, attempt)
        vector = plaintext(cast, cast.client(trainer, index, seed=seed).handle(request))
        return vector.tobytes(), trainer.drawn[0]

    first = sent(7)
    assert sent(7) == first
    for other in (sent(7, index=4), sent(7, seed=1), sent(7, 2), sent(7, 3), sent(8)):
        assert other[0] != first[0] and other[1] != first[1]


@pytest.mark.parametrize(("attempt", "again"), [(1, ()), (2, (2,)), (5, (5,))])
def test_the_first_attempt_draws_what_a_round_always_drew(
    cast: Cast, attempt: int, again: tuple[int, ...]
) -> None:
    """By (seed, round, client), in an order that is fixed by now; only another attempt is named."""
    trainer = Trainer(values())
    request = train(cast, 7, attempt)
    vector = plaintext(cast, cast.client(trainer, index=3, seed=5).handle(request))
    assert trainer.drawn == [generator(5, "batches", 7, 3, *again).random()]
    rounding = generator(5, "rounding", 7, 3, *again)
    due, _ = Grid(SIZES, (0.5, 0.5), 8).quantise(values(), rounding)
    assert (vector[totals.width(8) :] == due).all()


def test_the_same_update_is_never_the_same_bytes(encrypted_cast: Cast) -> None:
    cast = Cast(encrypted_cast.scheme, sizes=SIZES)
    request = train(cast)
    sent = [cast.client(Trainer(values())).handle(request) for _ in range(2)]
    assert sent[0] != sent[1]
    assert (plaintext(cast, sent[0]) == plaintext(cast, sent[1])).all()


def test_what_it_sends_adds_up_at_the_server(cast: Cast) -> None:
    clients = [cast.client(Trainer(values(i)), i, samples=10 + i) for i in range(4)]
    updates = [c.handle(cast.request) for c in clients]
    assert [cast.server.receive(update) for update in updates] == [None] * 4
    due = sum(plaintext(cast, update) for update in updates)
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == due).all()


def test_clients_of_one_process_hold_one_copy_of_the_public_key(cast: Cast) -> None:
    """Each has read it from bytes of its own."""
    messages = [bytes(bytearray(cast.key_message)) for _ in range(2)]
    sessions = [cast.session(f"client-{i}").at(*cast.at) for i in range(2)]
    keys = [
        party.read_public_key(message) for party, message in zip(sessions, messages, strict=True)
    ]
    assert keys[0] == cast.public and keys[0] is keys[1]


# What it refuses


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_training_that_diverged_is_said_by_client_and_round(cast: Cast, bad: float) -> None:
    update = values()
    update[17] = bad
    for trainer in (Trainer(update), Trainer(values(), loss=bad)):
        with pytest.raises(ClientFailure, match=r"client-3, round 7: .*NaN or Inf") as caught:
            cast.client(trainer).handle(train(cast))
        assert "try: " in str(caught.value) and "federation.learning_rate" in str(caught.value)


def test_an_update_that_overflows_when_weighted_is_refused(cast: Cast) -> None:
    with pytest.raises(ClientFailure, match="client-3, round 7"), np.errstate(over="ignore"):
        cast.client(Trainer(np.full(sum(SIZES), 3e38, np.float32)), samples=100).handle(train(cast))


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"key_id": "other"},
        {"fingerprint": "other"},
        {"terms": b"other"},
        {"train": b"other"},
        {"length": 5},
    ],
    ids=str,
)
def test_a_request_of_another_run_key_scheme_or_terms_is_refused(cast: Cast, change: dict) -> None:
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match=next(iter(change))):
        cast.client(trainer).handle(train(cast, **change))
    assert trainer.seen == []


def test_a_request_of_an_earlier_attempt_is_refused(cast: Cast) -> None:
    """An answer to it would be a second update on the same data, or one under a key that was
    used."""
    trainer = Trainer(values())
    made = cast.client(trainer)
    at = [(6, 9), (7, 1), (7, 2), (8, 1)]
    requests = {each: cast.open(*each) for each in at}
    last = cast.read(Train, cast.request, "client-0")
    for none in ((0, 1), (1, 0)):
        requests[none] = cast.sign(replace(last, round=none[0], attempt=none[1]))
    at = [(0, 1), (1, 0), *at]
    for good in ((7, 1), (7, 2), (8, 1)):
        assert made.handle(requests[good])
        for bad in at[: at.index(good) + 1]:
            said = f"round {bad[0]}, attempt {bad[1]} after round {good[0]}, attempt {good[1]}"
            with pytest.raises(MessageRefused, match=said):
                made.handle(requests[bad])
    assert len(trainer.seen) == 3
    for bad in ((0, 1), (1, 0)):  # nor does it begin with what is no round, or no attempt
        with pytest.raises(MessageRefused, match="after round 0, attempt 0"):
            cast.client(trainer).handle(requests[bad])


def test_a_refused_request_is_not_an_attempt_that_was_seen(cast: Cast) -> None:
    trainer = Trainer(values())
    made = cast.client(trainer)
    for change in (model(cast, weights=np.nan), model(cast, ranges=1e9), {"key_id": "other"}):
        with pytest.raises(MessageRefused):
            made.handle(train(cast, **change))
    assert made.handle(train(cast)) and len(trainer.seen) == 1


def test_a_key_of_another_attempt_is_refused(cast: Cast) -> None:
    """A server that keeps an old one would have updates of two attempts under one key."""
    old = cast.key_message
    trainer = Trainer(values())
    for number, attempt, said in ((1, 2, "attempt 1 instead of 2"), (2, 1, "round 1 instead")):
        cast.open(number, attempt)
        key_id = cast.read(PublicKey, old).key_id
        change = {**model(cast, key=old), "key_id": key_id}
        with pytest.raises(MessageRefused, match=said):
            cast.client(trainer).handle(train(cast, number, attempt, **change))
    assert trainer.seen == []


@pytest.mark.parametrize(
    ("signer", "said"),
    [
        (SERVER, "the signature is not that of 'keyholder'"),
        ("client-0", "the signature is not that of 'keyholder'"),
        ("", "a public_key message from 'server' instead of 'keyholder'"),
    ],
)
def test_a_key_that_the_key_holder_did_not_sign_is_refused(
    cast: Cast, signer: str, said: str
) -> None:
    """Whose secret half the server has."""
    train(cast)
    public = cast.scheme.generate_keys().public
    mine = replace(
        cast.read(PublicKey, cast.key_message), key_id=key_id_of(public), payload=(public,)
    )
    key = cast.sign(mine if signer else replace(mine, sender=SERVER), signer)
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match=said):
        cast.client(trainer).handle(train(cast, **model(cast, key=key), key_id=mine.key_id))
    assert trainer.seen == []


@pytest.mark.parametrize(
    "change",
    [
        {"terms": b"other"},
        {"fingerprint": "other"},
        {"key_id": "other"},
        {"train": b"x"},
        {"payload": ()},
    ],
    ids=str,
)
def test_a_key_message_that_cannot_be_is_refused(cast: Cast, change: dict) -> None:
    train(cast)
    key = cast.sign(replace(cast.read(PublicKey, cast.key_message), **change))
    trainer = Trainer(values())
    for data in (key, cast.key_message[:-1], b"", b"garbage"):
        with pytest.raises(MessageRefused):
            cast.client(trainer).handle(train(cast, **model(cast, key=data)))
    assert trainer.seen == []


def test_a_request_that_the_server_did_not_sign_is_refused(cast: Cast) -> None:
    trainer = Trainer(values())
    message = cast.read(Train, train(cast), "client-0")
    for name, reason in (
        ("server", "the signature is not that of 'server'"),
        ("client-1", "instead of 'server'"),
    ):
        with pytest.raises(MessageRefused, match=reason):
            cast.client(trainer).handle(cast.sign(replace(message, sender=name), "client-1"))
    assert trainer.seen == []


def model(
    cast: Cast,
    *,
    weights: float = 0.0,
    ranges: float = 0.5,
    count: int = sum(SIZES),
    tensors: int = 2,
    key: bytes | None = None,
) -> dict[str, object]:
    """A payload whose last weight and last range are these."""
    w = np.zeros(count, "<f4")
    r = np.full(tensors, 0.5, "<f4")
    w[-1], r[-1] = weights, ranges
    return {"payload": (cast.key_message if key is None else key, w.tobytes(), r.tobytes())}


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.nan},
        {"weights": np.inf},
        {"ranges": np.nan},
        {"ranges": np.inf},
        {"ranges": 0},
        {"ranges": -1},
        {"count": sum(SIZES) - 1},
        {"tensors": 1},
        {"payload": ()},
        {"payload": (b"",)},
        {"payload": (b"", b"")},
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_refused(cast: Cast, change: dict) -> None:
    trainer = Trainer(values())
    train(cast)
    payload = change if "payload" in change else model(cast, **change)
    with pytest.raises(MessageRefused, match="model"):
        cast.client(trainer).handle(train(cast, **payload))
    assert trainer.seen == []
    assert cast.client(trainer).handle(train(cast, **model(cast)))


def test_a_larger_model_is_refused(cast: Cast) -> None:
    for count in (sum(SIZES) + 1, 10**6):
        with pytest.raises(MessageRefused):
            cast.client(Trainer(values())).handle(train(cast, **model(cast, count=count)))


# Ranges that can have come about


def ranged(cast: Cast, number: int, factor: float, attempt: int = 1) -> bytes:
    """A Train whose last range is so many times that of the beginning."""
    train(cast, number, attempt)
    return train(cast, number, attempt, **model(cast, ranges=0.5 * factor))


@pytest.mark.parametrize(
    ("number", "factor"),
    [(1, 1.001), (1, 0.999), (2, 16.1), (2, 1 / 16.1), (3, 257.0), (3, 1 / 257), (9, 1e30)],
)
def test_ranges_that_jump_are_refused(cast: Cast, number: int, factor: float) -> None:
    """Those before the first round are among the terms."""
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match=f"cannot have come about in {number - 1} rounds"):
        cast.client(trainer).handle(ranged(cast, number, factor, 2))
    assert trainer.seen == []


@pytest.mark.parametrize(
    ("number", "factor"),
    [(1, 1.0), (2, 16.0), (2, 1 / 16), (3, 256.0), (3, 1 / 256), (5, 16.0**4), (9, 1e-9)],
)
def test_ranges_may_move_by_a_step_in_every_round_that_was_missed(
    cast: Cast, number: int, factor: float
) -> None:
    assert cast.client(Trainer(values())).handle(ranged(cast, number, factor, 2))


def test_ranges_are_held_against_those_that_it_saw_last(cast: Cast) -> None:
    made = cast.client(Trainer(values()))
    assert made.handle(ranged(cast, 2, 16.0))
    # In another attempt of the round they are the same.
    with pytest.raises(MessageRefused, match="cannot have come about in 0 rounds"):
        made.handle(ranged(cast, 2, 15.0, 2))
    assert made.handle(ranged(cast, 2, 16.0, 3))
    with pytest.raises(MessageRefused, match="cannot have come about in 2 rounds"):
        made.handle(ranged(cast, 4, 16.0**3 * 1.1))
    assert made.handle(ranged(cast, 4, 16.0**3, 2))


def test_a_client_that_missed_hundreds_of_rounds_goes_on(cast: Cast) -> None:
    """16 to that power is no float64."""
    session = cast.session(KEYHOLDER)
    cast.keyholder = KeyHolder(session, policy=Policy(3, 2**63, 9), ledger=Ledger())
    for number in (10**3, 2**62):
        assert cast.client(Trainer(values())).handle(cast.open(number))


def test_kinds_that_are_not_for_clients_are_refused(cast: Cast) -> None:
    made = cast.client(Trainer(values()))
    release = cast.keyholder.handle(cast.aggregate(vectors(cast, 3)))
    others = (cast.key_message, cast.server.begin(2, 1), b"garbage", b"")
    for data in (release, cast.update("client-1", cast.vector()), *others):
        with pytest.raises(MessageRefused, match="client-3 does not take messages of kind"):
            made.handle(data)


def test_without_the_secret_key_no_aggregate_is_taken(cast: Cast) -> None:
    with pytest.raises(MessageRefused, match="client-3 holds no key"):
        cast.client(Trainer(values())).handle(cast.aggregate([cast.vector()] * 3))


def test_a_secret_key_is_not_taken_for_a_public_one(encrypted_cast: Cast) -> None:
    cast = Cast(encrypted_cast.scheme, sizes=SIZES)
    secret = cast.scheme.generate_keys().secret
    session = cast.session(KEYHOLDER).at(*cast.at).under(secret)
    change = model(cast, key=session.write(PublicKey, (secret,)))
    with pytest.raises(CiphertextRefused, match="secret"):
        cast.client(Trainer(values())).handle(
            train(cast, *cast.at, **change, key_id=session.key_id)
        )


# Under keys=clients


@pytest.fixture
def shared(cast: Cast) -> tuple[Cast, Replica]:
    """A server without the model, and what the clients share."""
    cast = Cast(cast.scheme, sizes=SIZES, shared=True)
    assert isinstance(cast.keyholder, SharedKeyHolder)
    cast.server = cast.another_server(keeper=None)
    return cast, Replica(cast.session("client-0"), cast.keyholder, cast.keeper)


def play(cast: Cast, clients: list[Client], number: int, attempt: int = 1) -> bytes:
    request = cast.open(number, attempt, cohort=[c.name for c in clients])
    assert cast.read(Train, request, "client-0").parts == ()
    for c in clients:
        assert cast.server.receive(c.handle(request)) is None
    return cast.server.close()


def test_clients_that_hold_the_model_step_it_themselves(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    trainers = [Trainer(values(i)) for i in range(3)]
    clients = [cast.client(t, i, replica=replica) for i, t in enumerate(trainers)]
    before = cast.keeper.model.weights
    mean = np.mean([values(i) for i in range(3)], axis=0)
    for number in (1, 2):
        aggregate = play(cast, clients, number)
        for c in clients:  # all clients are told; the model steps once
            assert c.handle(aggregate) == b""
        assert cast.keeper.round == number
    assert cast.keeper.model.weights == pytest.approx(before - 2 * mean, abs=2 * 0.5 / 127)
    for trainer in trainers:
        assert (trainer.seen[0] == before).all()
        assert trainer.seen[1] == pytest.approx(before - mean, abs=0.5 / 127)
    assert cast.server.keeper is None


def test_clients_that_hold_the_model_say_which_it_is(shared: tuple[Cast, Replica]) -> None:
    """With a header of their own: the server has no Train payload to sign."""
    cast, replica = shared
    made = cast.client(Trainer(values()), replica=replica)
    message = cast.read(Update, made.handle(cast.open(1, 2)))
    message.expect(train=cast.keeper.model.digest, round=1, attempt=2, key_id=cast.key_id)


def test_clients_that_hold_another_model_are_not_summed(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    grid = replace(cast.keeper.model.grid, ranges=(0.5, 0.25))
    other = ModelKeeper(replace(cast.keeper.model, grid=grid))
    theirs = Replica(cast.session("client-0"), cast.keyholder, other)  # type: ignore[arg-type]
    request = cast.open(1, 2)
    clients = [cast.client(Trainer(values(i)), i, replica=replica) for i in range(3)]
    stranger = cast.client(Trainer(values(3)), 3, replica=theirs)
    assert cast.server.receive(clients[0].handle(request)) is None
    assert "train" in (cast.server.receive(stranger.handle(request)) or "")
    assert [cast.server.receive(c.handle(request)) for c in clients[1:]] == [None] * 2
    clients[0].handle(cast.server.close())
    assert cast.keeper.round == 1


def test_clients_do_not_decrypt_sums_of_too_few(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    made = cast.client(Trainer(values()), replica=replica)
    before = cast.keeper.model
    with pytest.raises(ReleaseRefused, match="the sum is of 1 updates"):
        made.handle(cast.aggregate([cast.vector()]))
    assert cast.keeper.model is before


def test_clients_decrypt_a_round_once(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    made = cast.client(Trainer(values()), replica=replica)
    made.handle(cast.aggregate(vectors(cast, 3)))
    with pytest.raises(ReleaseRefused, match="round 1 was released before"):
        made.handle(cast.aggregate(vectors(cast, 4)))


def test_clients_that_hold_the_model_take_none_from_the_server(
    shared: tuple[Cast, Replica],
) -> None:
    cast, replica = shared
    trainer = Trainer(values())
    made = cast.client(trainer, replica=replica)
    with pytest.raises(MessageRefused, match="payload"):
        made.handle(train(cast, **model(cast)))
    assert trainer.seen == []


@pytest.mark.parametrize("change", [{"key_id": "other"}, {"terms": b"other"}], ids=str)
def test_clients_that_share_a_key_train_under_no_other(
    shared: tuple[Cast, Replica], change: dict
) -> None:
    cast, replica = shared
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match=next(iter(change))):
        cast.client(trainer, replica=replica).handle(train(cast, **change))
    assert trainer.seen == []


def test_clients_that_answer_at_once_step_the_model_once(
    shared: tuple[Cast, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with runtime.workers=3."""
    cast, replica = shared
    handle = KeyHolder.handle
    monkeypatch.setattr(
        KeyHolder, "handle", lambda self, data: [time.sleep(0.05), handle(self, data)][1]
    )
    clients = [cast.client(Trainer(values()), i, replica=replica) for i in range(3)]
    runtime = LocalRuntime({c.name: c.handle for c in clients}, workers=3)
    aggregate = cast.aggregate(vectors(cast, 3))
    assert dict(runtime.exchange(dict.fromkeys([c.name for c in clients], aggregate))) == {
        c.name: b"" for c in clients
    }
    assert cast.keeper.round == 1

"""A client: only ciphertexts leave it, a model that cannot be is refused, and what diverged is said
by name."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from hyperlock.encryption import totals
from hyperlock.errors import CiphertextRefused, ClientFailure, MessageRefused, ReleaseRefused
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import PublicKey, Train, Update, key_id_of
from hyperlock.runtime.local import LocalRuntime
from tests.parties.cast import Cast, Trainer

SIZES = (30, 10)


@pytest.fixture
def cast(cast: Cast) -> Cast:
    return Cast(cast.scheme, sizes=SIZES)


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, sum(SIZES)).astype(np.float32)


def train(cast: Cast, number: int = 7, **changes: object) -> bytes:
    """What the server sends, or a variation of it."""
    message = cast.read(Train, cast.server.open(number, []), "client-0")
    return cast.sign(replace(message, **changes))  # type: ignore[arg-type]


def plaintext(cast: Cast, update: bytes) -> np.ndarray:
    """What a single update holds; only the tests look."""
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    accumulator.add(cast.read(Update, update).parts)
    return cast.keyholder._decryptor.decrypt(accumulator.total(), cast.length)


# What it sends


def test_an_update_names_run_round_sender_key_and_scheme(cast: Cast) -> None:
    data = cast.client(Trainer(values())).handle(train(cast))
    message = cast.read(Update, data)
    message.expect(run="run", round=7, sender="client-3", key_id=cast.key_id)
    message.expect(fingerprint=cast.scheme.fingerprint, length=cast.length)


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


def test_seed_round_and_client_decide_batches_and_rounding(cast: Cast) -> None:
    def sent(index: int = 3, seed: int = 0, number: int = 7) -> tuple[bytes, float]:
        trainer = Trainer(values())
        vector = plaintext(cast, cast.client(trainer, index, seed=seed).handle(train(cast, number)))
        return vector.tobytes(), trainer.drawn[0]

    first = sent()
    assert sent() == first
    for other in (sent(index=4), sent(seed=1), sent(number=8)):
        assert other[0] != first[0] and other[1] != first[1]


def test_the_same_update_is_never_the_same_bytes(encrypted_cast: Cast) -> None:
    cast = Cast(encrypted_cast.scheme, sizes=SIZES)
    made = cast.client(Trainer(values()))
    assert made.handle(train(cast)) != made.handle(train(cast))


def test_what_it_sends_adds_up_at_the_server(cast: Cast) -> None:
    clients = [cast.client(Trainer(values(i)), i, samples=10 + i) for i in range(4)]
    request = cast.server.open(1, [c.name for c in clients])
    updates = [c.handle(request) for c in clients]
    assert [cast.server.receive(update) for update in updates] == [None] * 4
    sums = cast.sums(cast.keyholder.handle(cast.server.close()))
    assert (sums == sum(plaintext(cast, update) for update in updates)).all()


def test_clients_of_one_process_hold_one_copy_of_the_public_key(cast: Cast) -> None:
    """Each has read it from bytes of its own."""
    messages = [bytes(bytearray(cast.keyholder.public_key())) for _ in range(2)]
    clients = [cast.client(Trainer(values()), index) for index in range(2)]
    for client, message in zip(clients, messages, strict=True):
        client.handle(message)
    assert clients[0]._public == cast.public
    assert clients[0]._public is clients[1]._public


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


def test_a_client_without_a_key_does_not_train(cast: Cast) -> None:
    trainer = Trainer(values())
    made = cast.client(trainer, index=0, samples=5, keyed=False)
    with pytest.raises(MessageRefused, match="no public key"):
        made.handle(train(cast))
    assert trainer.seen == []


@pytest.mark.parametrize(
    "change", [{"run": "other"}, {"key_id": "other"}, {"fingerprint": "other"}], ids=str
)
def test_a_request_of_another_run_key_or_scheme_is_refused(cast: Cast, change: dict) -> None:
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match=next(iter(change))):
        cast.client(trainer).handle(train(cast, **change))
    assert trainer.seen == []


def test_a_request_of_an_earlier_round_is_refused(cast: Cast) -> None:
    trainer = Trainer(values())
    made = cast.client(trainer)
    requests = {number: train(cast, number) for number in (0, 6, 7, 8)}
    assert made.handle(requests[7]) and made.handle(requests[8])
    for number in (7, 6, 0):
        with pytest.raises(MessageRefused, match=f"round {number} after round 8"):
            made.handle(requests[number])
    assert len(trainer.seen) == 2
    with pytest.raises(MessageRefused, match="round 0 after round 0"):
        cast.client(trainer).handle(requests[0])


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
    weights: object = 0.0, ranges: object = 1.0, count: int = sum(SIZES), tensors: int = 2
) -> dict:
    w = np.zeros(count, "<f4")
    r = np.ones(tensors, "<f4")
    w[-1], r[-1] = weights, ranges
    return {"payload": (w.tobytes(), r.tobytes())}


@pytest.mark.parametrize(
    "change",
    [
        model(weights=np.nan), model(weights=np.inf), model(ranges=np.nan), model(ranges=np.inf),
        model(ranges=0),
        model(ranges=-1), model(count=sum(SIZES) - 1), model(tensors=1), {"payload": ()},
        {"payload": (b"",)},
        {"payload": (b"", b"")},
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_is_refused(cast: Cast, change: dict) -> None:
    trainer = Trainer(values())
    with pytest.raises(MessageRefused, match="model"):
        cast.client(trainer).handle(train(cast, **change))
    assert trainer.seen == []
    assert cast.client(trainer).handle(train(cast, **model()))


def test_a_larger_model_is_refused(cast: Cast) -> None:
    with pytest.raises(MessageRefused):
        cast.client(Trainer(values())).handle(train(cast, **model(count=10**6)))


def test_kinds_that_are_not_for_clients_are_refused(cast: Cast) -> None:
    made = cast.client(Trainer(values()))
    release = cast.keyholder.handle(cast.aggregate([cast.vector()] * 3))
    for data in (release, cast.update("client-1", cast.vector()), b"garbage", b""):
        with pytest.raises(MessageRefused, match="client-3 does not take messages of kind"):
            made.handle(data)


def test_without_the_secret_key_no_aggregate_is_taken(cast: Cast) -> None:
    with pytest.raises(MessageRefused, match="client-3 holds no key"):
        cast.client(Trainer(values())).handle(cast.aggregate([cast.vector()] * 3))


def test_a_secret_key_is_not_taken_for_a_public_one(encrypted_cast: Cast) -> None:
    cast = Cast(encrypted_cast.scheme, sizes=SIZES)
    secret = cast.scheme.generate_keys().secret
    made = cast.client(Trainer(values()))
    key_id = key_id_of(secret)
    made.handle(
        cast.sign(PublicKey("run", 0, KEYHOLDER, key_id, cast.scheme.fingerprint, 0, (secret,)))
    )
    with pytest.raises(CiphertextRefused, match="secret"):
        made.handle(train(cast, key_id=key_id))


# Under keys=clients


@pytest.fixture
def shared(cast: Cast) -> tuple[Cast, Replica]:
    """A server without the model, and what the clients share."""
    cast.server = cast.another_server(keeper=None)
    return cast, Replica(cast.session("client-0"), cast.keyholder, cast.keeper)


def play(cast: Cast, clients: list[Client], number: int) -> bytes:
    request = cast.server.open(number, [c.name for c in clients])
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


def test_clients_do_not_decrypt_sums_of_too_few(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    made = cast.client(Trainer(values()), replica=replica)
    before = cast.keeper.model
    with pytest.raises(ReleaseRefused, match="holds 1 updates"):
        made.handle(cast.aggregate([cast.vector()]))
    assert cast.keeper.model is before


def test_clients_decrypt_a_round_once(shared: tuple[Cast, Replica]) -> None:
    cast, replica = shared
    made = cast.client(Trainer(values()), replica=replica)
    made.handle(cast.aggregate([cast.vector(i) for i in range(3)]))
    with pytest.raises(ReleaseRefused, match="decrypted before"):
        made.handle(cast.aggregate([cast.vector(i) for i in range(4)]))


def test_clients_that_hold_the_model_take_none_from_the_server(
    shared: tuple[Cast, Replica],
) -> None:
    cast, replica = shared
    trainer = Trainer(values())
    made = cast.client(trainer, replica=replica)
    with pytest.raises(MessageRefused, match="payload"):
        made.handle(train(cast, **model()))
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
    aggregate = cast.aggregate([cast.vector(i) for i in range(3)])
    assert dict(runtime.exchange(dict.fromkeys([c.name for c in clients], aggregate))) == {
        c.name: b"" for c in clients
    }
    assert cast.keeper.round == 1

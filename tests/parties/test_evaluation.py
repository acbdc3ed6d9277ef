"""Evaluation by the clients: right answers as totals inside the ciphertext, in rounds in which they
train and in one in which nobody does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused, ReleaseRefused
from hyperlock.learning.types import Answers, Evaluator
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import SharedKeyHolder
from hyperlock.parties.messages import train_of
from tests.parties.cast import NAMES, ROUNDS, SAMPLES, Cast, Trainer
from tests.parties.verified_cast import VerifiedCast

ZEROS = np.zeros(12_400, np.float32)


@dataclass
class Asked:
    """A client's test set: eight of its ten samples are answered rightly."""

    seen: list[np.ndarray] = field(default_factory=list)

    def __call__(self, weights: np.ndarray) -> Answers:
        """The same of any model."""
        self.seen.append(weights)
        return Answers(10, 8)


@pytest.fixture(params=["ckks", "bfv", "none"])
def cast(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Cast:
    return Cast(schemes[request.param], evaluated=True)


def vectors(cast: Cast, share: Totals, update: int = 0) -> list[np.ndarray]:
    """Three clients' plaintexts, one of which has this share."""
    nothing = np.full(sum(cast.sizes), update)
    honest = Totals(1, share.samples, 0.0, 0, 10, 8)
    return [cast.layout.join(one, nothing) for one in (share, honest, honest)]


def released(cast: Cast, share: Totals, update: int = 0) -> Totals:
    """What the key holder says of three such clients."""
    release = cast.keyholder.handle(cast.aggregate(vectors(cast, share, update)))
    return cast.layout.split(cast.sums(release))[0]


def test_clients_say_how_the_model_does_that_their_round_began_with(cast: Cast) -> None:
    asked = Asked()
    for number in (1, 2, 3, 4, 5):
        request = cast.open(number)
        for index in range(3):
            client = cast.client(Trainer(ZEROS), index, evaluator=Evaluator(asked, every=2))
            assert cast.server.receive(client.handle(request)) is None
        before = cast.keeper.model.weights
        cast.server.take(cast.keyholder.handle(cast.server.close()))
        found = cast.keeper.totals
        assert found is not None and found.samples == 3 * SAMPLES
        due = number in (3, 5)  # the models after the rounds 2 and 4
        assert (found.tested, found.right) == ((30, 24) if due else (0, 0))
        assert not due or (asked.seen[-1] == before).all()
    assert len(asked.seen) == 6


def test_in_an_evaluation_nobody_trains_and_nothing_moves(cast: Cast) -> None:
    digest = cast.keeper.model.digest
    trainer = Trainer(ZEROS + 0.25)
    request = cast.open(ROUNDS + 1, evaluates=True)
    for index in range(3):
        client = cast.client(trainer, index, evaluator=Evaluator(Asked(), every=1))
        assert cast.server.receive(client.handle(request)) is None
    cast.keeper.round = ROUNDS
    cast.server.take(cast.keyholder.handle(cast.server.close()))
    assert cast.keeper.totals == Totals(3, 0, 0.0, 0, 30, 24)
    assert cast.keeper.model.digest == digest and not trainer.seen


def test_nobody_evaluates_in_a_run_without(schemes: dict[str, Scheme]) -> None:
    evaluated = Cast(schemes["none"], evaluated=True)
    request = evaluated.open(1, 2, evaluates=True)
    with pytest.raises(MessageRefused, match="asked to evaluate"):
        evaluated.client(Trainer(ZEROS)).handle(request)
    cast = Cast(schemes["none"])
    with pytest.raises(MessageRefused, match="4 payload parts"):
        cast.client(Trainer(ZEROS)).handle(request)
    with pytest.raises(ReleaseRefused, match="not as many samples"):
        cast.keyholder.handle(cast.aggregate([cast.vector(i, samples=0) for i in range(3)]))


def test_who_trains_and_who_evaluates_are_never_in_one_sum(cast: Cast) -> None:
    """Or a server that has all but one client evaluate would be left with that one's update."""
    trained = cast.client(Trainer(ZEROS), 0, evaluator=Evaluator(Asked(), 1)).handle(cast.request)
    train = cast.train
    public = cast.key_message
    server = cast.another_server(cast.keeper)
    server.begin(1, 1)
    other = server.open(public, NAMES, evaluates=True)
    tested = cast.client(Trainer(ZEROS), 1, evaluator=Evaluator(Asked(), 1)).handle(other)
    assert cast.server.receive(trained) is None  # the control
    assert "train " in str(cast.server.receive(tested))
    assert "train " in str(server.receive(trained)) and server.receive(tested) is None

    # Nor does the key holder take both for one.
    cast.train = train
    mixed = [cast.envelope(cast.message(name, vector)) for name, vector in
             zip(NAMES, vectors(cast, Totals(1, 0, 0.0, 0)), strict=False)]  # fmt: skip
    assert all(cast.here(KEYHOLDER).read_envelope(one) for one in mixed)
    cast.train = bytes(32)
    stranger = cast.envelope(cast.message("client-0", vectors(cast, Totals(1, 0, 0.0, 0))[0]))
    cast.train = train
    with pytest.raises(MessageRefused, match="train "):
        cast.here(KEYHOLDER).read_envelope(stranger)


def test_nor_are_they_where_clients_hold_the_model(schemes: dict[str, Scheme]) -> None:
    cast = Cast(schemes["bfv"], shared=True, evaluated=True)
    keyholder = cast.keyholder
    assert isinstance(keyholder, SharedKeyHolder)
    server = cast.another_server(None)
    cast.open(1, 2, server, evaluates=True)
    cast.train = train_of(cast.keeper.model.digest, evaluates=True)
    replica = Replica(cast.session("client-0"), keyholder, cast.keeper)
    clients = [cast.client(Trainer(ZEROS), i, replica=replica, evaluator=Evaluator(Asked(), 1))
               for i in range(4)]  # fmt: skip
    for client in clients[:3]:
        assert server.receive(client.handle(cast.request)) is None
    train = cast.another_server(None)
    train.begin(1, 2)
    trained = clients[3].handle(train.open(cast.key_message, NAMES))
    assert "train " in str(server.receive(trained))
    replica.take(server.close())
    assert cast.keeper.totals == Totals(3, 0, 0.0, 0, 30, 24)


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        (Totals(1, 10, 0.0, 0, 10, 8), ""),
        (Totals(1, 10, 0.0, 0, 28, 28), ""),
        (Totals(1, 10, 0.0, 0, 29, 28), "more test samples than these clients can have"),
        (Totals(1, 10, 0.0, 0, 10, 15), "or more right answers than samples"),
        (Totals(1, 0, 0.0, 0, 10, 8), ""),
    ],
)
def test_no_client_outweighs_the_others_by_what_it_says(
    cast: Cast, share: Totals, reason: str
) -> None:
    """These three may have 24 to 48 samples, to train as to test on."""
    if not reason:
        found = released(cast, share)
        assert found.tested == 20 + share.tested and found.right == 16 + share.right
        return
    with pytest.raises(ReleaseRefused, match=reason):
        released(cast, share)


def test_a_sum_of_no_samples_is_of_no_update(cast: Cast) -> None:
    with pytest.raises(ReleaseRefused, match="not as many samples"):
        released(cast, Totals(1, 0, 0.0, 0, 10, 8), update=1)


def test_after_the_last_round_nothing_is_trained(cast: Cast) -> None:
    cast.open(ROUNDS + 1)
    with pytest.raises(ReleaseRefused, match=f"round {ROUNDS + 1}"):
        released(cast, Totals(1, 10, 0.0, 0, 10, 8))
    cast.open(ROUNDS + 1, 2)
    assert released(cast, Totals(1, 0, 0.0, 0, 10, 8)).tested == 30
    with pytest.raises(ReleaseRefused, match=f"round {ROUNDS + 2}"):
        cast.open(ROUNDS + 2)


def test_at_trust_malicious_all_keep_the_model(schemes: dict[str, Scheme]) -> None:
    cast = VerifiedCast(schemes["bfv"], evaluator=Evaluator(Asked(), every=1))
    cast.play(1)
    before = set(cast.digests("server", "keyholder"))
    cast.play(2, evaluates=True)
    assert cast.keepers["server"].totals == Totals(6, 0, 0.0, 0, 60, 48)
    assert set(cast.digests("server", "keyholder")) == before and len(before) == 1
    cast.play(3)
    after = set(cast.digests("server", "keyholder"))
    assert len(after) == 1 and after != before
    assert cast.keepers["server"].totals == Totals(6, 60, 9.0, 0, 60, 48)

"""The server: whatever is wrong with an update, it is counted, and the sum is that of the
others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.totals import width
from hyperlock.encryption.vector import Vector
from hyperlock.errors import MessageRefused, RoundFailed
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.messages import Aggregate, PublicKey, Release, Train, Update, key_id_of
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from tests.parties.cast import NAMES, Cast

COHORT = NAMES[:4]

# By name: an update of client-3 with this wrong about it, and what the reason must say.
Wrong = Callable[[Cast, np.ndarray], bytes]


def flipped(data: bytes, place: int) -> bytes:
    """With one bit the other way round."""
    altered = bytearray(data)
    altered[place] ^= 1
    return bytes(altered)


REFUSED: dict[str, tuple[Wrong, str]] = {
    "another run": (
        lambda c, v: c.update("client-3", v, run="other"),
        "run 'other' instead of 'run'",
    ),
    "the round before": (lambda c, v: c.update("client-3", v, 6), "round 6 instead of 7"),
    "the round after": (lambda c, v: c.update("client-3", v, 8), "round 8 instead of 7"),
    "another key": (
        lambda c, v: c.update("client-3", v, 7, key_id="other"),
        "key_id 'other' instead of",
    ),
    "another scheme": (
        lambda c, v: c.update("client-3", v, 7, fingerprint="other"),
        "fingerprint 'other' instead",
    ),
    "another length": (lambda c, v: c.update("client-3", v, 7, length=v.size - 1), "length"),
    "outside the cohort": (
        lambda c, v: c.update("client-5", v, 7),
        "'client-5' is not in this round's cohort",
    ),
    "no client at all": (
        lambda c, v: c.update(SERVER, v, 7),
        "'server' is not in this round's cohort",
    ),
    "no ciphertexts": (
        lambda c, v: c.update("client-3", v, 7, payload=()),
        "0 ciphertexts instead of",
    ),
    "too many ciphertexts": (
        lambda c, v: c.sign(replace(m := c.message("client-3", v, 7), payload=m.parts * 2)),
        "",
    ),
    "a ciphertext too large": (
        lambda c, v: c.sign(
            replace(
                m := c.message("client-3", v, 7),
                payload=(bytes(c.scheme.max_chunk_bytes + 1), *m.parts[1:]),
            )
        ),
        "",
    ),
    "another kind": (lambda c, v: c.aggregate([v], 7), "kind 'aggregate' instead of 'update'"),
    "garbage": (lambda c, v: b"garbage", "not a message"),
    "nothing": (lambda c, v: b"", "not a message"),
    "a truncation": (lambda c, v: c.update("client-3", v, 7)[:-1], "not a message"),
    "an altered byte": (
        lambda c, v: flipped(c.update("client-3", v, 7), 5000),
        "altered on the way",
    ),
    "an altered header": (
        lambda c, v: flipped(c.update("client-3", v, 7), -90),
        "signature is not that of 'client-3'",
    ),
    "another's signature": (
        lambda c, v: c.sign(c.message("client-3", v, 7), "client-2"),
        "not that of 'client-3'",
    ),
    "a sender not enrolled": (
        lambda c, v: c.sign(replace(c.message("client-3", v, 7), sender="client-9"), "client-3"),
        "sender 'client-9' is not enrolled",
    ),
    "far too many bytes": (lambda c, v: bytes(10**7), "bytes where at most"),
}


def refusal(cast: Cast, data: bytes) -> str:
    reason = cast.server.receive(data)
    assert reason, "it was taken"
    return reason


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_update_is_counted_and_the_sum_is_that_of_the_others(cast: Cast, name: str) -> None:
    wrong, reason = REFUSED[name]
    vectors = [cast.vector(seed) for seed in range(4)]
    data = wrong(cast, cast.vector(99))
    cast.server.open(7, COHORT)
    assert reason in refusal(cast, data)
    for i, sender in enumerate(COHORT):  # client-3 too: a refused update does not use up its turn
        assert cast.server.receive(cast.update(sender, vectors[i], 7)) is None
        if i == 1:
            assert reason in refusal(cast, data)
    assert cast.server.refused == 2
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_every_ciphertext_counts_toward_the_number_due(encrypted_cast: Cast) -> None:
    message = encrypted_cast.message("client-0", encrypted_cast.vector())
    due = len(message.parts)
    assert due > 1
    encrypted_cast.server.open(1, COHORT)
    reason = encrypted_cast.server.receive(
        encrypted_cast.sign(replace(message, payload=message.parts[:-1]))
    )
    assert f"{due - 1} ciphertexts instead of {due}" in reason
    assert encrypted_cast.server.refused == 1


def test_a_second_update_of_one_sender_is_refused(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(3)]
    cast.server.open(1, COHORT)
    for sender, vector in zip(COHORT, vectors, strict=False):
        data = cast.update(sender, vector)
        assert cast.server.receive(data) is None
        assert "sent before" in cast.server.receive(data)
        assert "sent before" in cast.server.receive(cast.update(sender, cast.vector(9)))
    assert cast.server.refused == 6
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_bytes_that_are_no_ciphertext_are_refused_whole(encrypted_cast: Cast) -> None:
    """The first ciphertext of the bad updates is good: not even that may enter the sum."""
    cast = encrypted_cast
    vectors = [encrypted_cast.vector(seed) for seed in range(3)]
    cast.server.open(1, COHORT)
    good = cast.message("client-3", cast.vector(9))
    for i, sender in enumerate(COHORT[:3]):
        for bad in (b"garbage", b"", good.parts[-1][:-1]):
            assert cast.server.receive(cast.sign(replace(good, payload=(*good.parts[:-1], bad))))
        assert cast.server.receive(cast.update(sender, vectors[i])) is None
    assert cast.server.refused == 9
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_a_vector_shorter_than_it_says_is_refused(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(3)]
    short = cast.update("client-3", cast.vector(9)[:-7000], length=cast.length)
    cast.server.open(1, COHORT)
    for sender, vector in zip(COHORT, vectors, strict=False):
        assert cast.server.receive(cast.update(sender, vector)) is None
        assert cast.server.receive(short)
    assert cast.server.refused == 3
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_a_vector_shorter_than_it_says_is_refused_also_when_it_comes_first(cast: Cast) -> None:
    """Else one bad client, answering first, has all the good ones refused."""
    cast.server.open(1, COHORT)
    cast.server.receive(cast.update("client-3", cast.vector(9)[:-7000], length=cast.length))
    reasons = [cast.server.receive(cast.update(sender, cast.vector())) for sender in COHORT[:3]]
    assert reasons == [None] * 3


def test_the_order_of_arrival_does_not_matter(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(4)]
    sums = []
    for number, order in ((1, (0, 1, 2, 3)), (2, (3, 1, 0, 2))):
        cast.server.open(number, COHORT)
        for i in order:
            cast.server.receive(cast.update(COHORT[i], vectors[i], number))
        sums.append(cast.sums(cast.keyholder.handle(cast.server.close())))
    assert (sums[0] == sums[1]).all() and (sums[0] == sum(vectors)).all()


# Rounds that end well, and those that do not


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_a_round_of_too_few_updates_fails(cast: Cast, accepted: int) -> None:
    cast.server.open(1, COHORT)
    for sender in COHORT[:accepted]:
        cast.server.receive(cast.update(sender, cast.vector()))
    cast.server.receive(b"garbage")
    with pytest.raises(
        RoundFailed, match=rf"round 1: {accepted} updates .* 1 refused.*keys\.min_clients=3"
    ):
        cast.server.close()


def test_a_failed_round_can_be_tried_again_from_nothing(cast: Cast) -> None:
    cast.server.open(1, COHORT)
    cast.server.receive(cast.update("client-0", cast.vector(9)))
    cast.server.receive(b"garbage")
    with pytest.raises(RoundFailed):
        cast.server.close()
    cast.server.open(1, COHORT)
    assert cast.server.refused == 0
    vectors = [cast.vector(seed) for seed in range(3)]
    for sender, vector in zip(COHORT, vectors, strict=False):
        assert cast.server.receive(cast.update(sender, vector)) is None
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_an_update_while_no_round_is_open_is_an_error(cast: Cast) -> None:
    data = cast.update("client-0", cast.vector())
    with pytest.raises(RoundFailed, match="no round was open"):
        cast.server.receive(data)
    cast.server.open(1, COHORT)
    for sender in COHORT[:3]:
        cast.server.receive(cast.update(sender, cast.vector()))
    cast.server.close()
    with pytest.raises(RoundFailed):
        cast.server.receive(cast.update("client-3", cast.vector()))
    with pytest.raises(RoundFailed):
        cast.server.close()


# What it sends, and what it takes back


def test_a_round_opens_with_the_model_and_the_ranges(cast: Cast) -> None:
    message = cast.read(Train, cast.server.open(5, COHORT), "client-0")
    message.expect(
        run="run", round=5, sender="server", key_id=cast.key_id, fingerprint=cast.scheme.fingerprint
    )
    assert (np.frombuffer(message.parts[0], "<f4") == cast.keeper.model.weights).all()
    assert (np.frombuffer(message.parts[1], "<f4") == [0.5, 0.5]).all()


def test_a_round_closes_with_the_sum(cast: Cast) -> None:
    cast.server.open(5, COHORT)
    for sender in COHORT[:3]:
        cast.server.receive(cast.update(sender, cast.vector(), 5))
    message = cast.read(Aggregate, cast.server.close(), KEYHOLDER)
    message.expect(
        run="run", round=5, sender="server", key_id=cast.key_id, fingerprint=cast.scheme.fingerprint
    )
    message.expect(length=cast.length)
    assert len(message.parts) == cast.scheme.chunk_count(cast.length)


def released(cast: Cast, number: int = 1) -> bytes:
    return cast.keyholder.handle(
        cast.aggregate([cast.vector(seed, samples=20) for seed in range(3)], number)
    )


def test_a_release_steps_the_model_by_the_weighted_mean(cast: Cast) -> None:
    before = cast.keeper.model
    updates = sum(cast.vector(seed) for seed in range(3))[-sum(cast.sizes) :]
    cast.server.take(released(cast))
    mean = updates * (0.5 / 127) * (before.weight_unit / 60)
    assert cast.keeper.model.weights == pytest.approx(before.weights - mean, abs=1e-6)
    assert np.abs(mean).max() > 0.1
    totals = cast.keeper.totals
    assert (totals.contributors, totals.samples, totals.loss, totals.saturated) == (3, 60, 4.5, 6)
    # The next range follows the largest mean of each tensor.
    largest = [np.abs(mean[: cast.sizes[0]]).max(), np.abs(mean[cast.sizes[0] :]).max()]
    assert cast.keeper.model.grid.ranges == pytest.approx([4 * value for value in largest])


@pytest.mark.parametrize(
    "change",
    [{"run": "other"}, {"round": 2}, {"round": 0}, {"length": 5}, {"payload": ()}],
    ids=str,
)
def test_a_wrong_release_leaves_the_model_as_it_was(cast: Cast, change: dict) -> None:
    message = cast.read(Release, released(cast))
    before = cast.keeper.model
    for data in (cast.sign(replace(message, **change)), b"", cast.sign(message)[:-1]):
        with pytest.raises(MessageRefused):
            cast.server.take(data)
    assert cast.keeper.model is before and cast.keeper.round == 0


def test_a_release_is_taken_once(cast: Cast) -> None:
    release = released(cast)
    cast.server.take(release)
    after = cast.keeper.model
    with pytest.raises(MessageRefused, match="round 1 instead of 2"):
        cast.server.take(release)
    assert cast.keeper.model is after


def test_a_server_without_the_model_sends_none_and_takes_no_release(cast: Cast) -> None:
    server = cast.another_server(keeper=None)
    assert cast.read(Train, server.open(1, COHORT), "client-0").parts == ()
    with pytest.raises(MessageRefused, match="the clients hold the model"):
        server.take(released(cast))


def test_a_key_of_another_run_or_scheme_is_refused(cast: Cast) -> None:
    data = cast.keyholder.public_key()
    with pytest.raises(MessageRefused, match="run"):
        session = replace(cast.session(SERVER), identity=replace(cast.parties[SERVER], run="other"))
        Server(session, min_clients=3, keeper=None).install_key(data)
    with pytest.raises(MessageRefused):
        cast.server.install_key(data[:-1])


def resident_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's account of memory"
)
def test_memory_does_not_grow_with_the_cohort() -> None:
    """Updates are folded as they arrive: thirty of them cost no more than three."""
    scheme = Bfv(bfv_parameters("auto", "auto", "auto", 8, 64, 128))
    length = 600_000
    key = scheme.generate_keys().public
    names = [f"client-{i}" for i in range(33)]
    parties = enrol("run", [SERVER, KEYHOLDER, *names])
    vector = Vector(8, (length - width(8),))
    session = Session(parties[SERVER], scheme, vector, Monitor())
    server = Server(session, min_clients=2, keeper=None)
    key_id = key_id_of(key)
    fingerprint = scheme.fingerprint
    public_key = PublicKey("run", 0, KEYHOLDER, key_id, fingerprint, 0, (key,))
    server.install_key(public_key.encode(parties[KEYHOLDER]))
    server.open(1, names)
    chunks = tuple(scheme.encryptor(key).encrypt(np.ones(length, np.int8)))

    def receive(name: str) -> None:
        update = Update("run", 1, name, key_id, fingerprint, length, chunks)
        assert server.receive(update.encode(parties[name])) is None

    for name in names[:3]:
        receive(name)
    before = resident_kilobytes()
    for name in names[3:]:
        receive(name)
    one_update = sum(map(len, chunks)) / 1024
    assert resident_kilobytes() - before < 3 * one_update

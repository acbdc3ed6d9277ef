"""The server: whatever is wrong with an update, it is counted, and the sum is that of the
others."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.totals import width
from hyperlock.encryption.vector import Vector
from hyperlock.errors import MessageRefused, RoundFailed
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.messages import Aggregate, Open, PublicKey, Release, Train, Update
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from tests.parties.cast import NAMES, SAMPLES, TERMS, Cast, envelope_of

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
    "the round before": (lambda c, v: c.update("client-3", v, round=6), "round 6 instead of 7"),
    "the round after": (lambda c, v: c.update("client-3", v, round=8), "round 8 instead of 7"),
    "the attempt before": (
        lambda c, v: c.update("client-3", v, attempt=1),
        "attempt 1 instead of 2",
    ),
    "the attempt after": (
        lambda c, v: c.update("client-3", v, attempt=3),
        "attempt 3 instead of 2",
    ),
    "another key": (
        lambda c, v: c.update("client-3", v, key_id="other"),
        "key_id 'other' instead of",
    ),
    "other terms": (
        lambda c, v: c.update("client-3", v, terms=bytes(32)),
        "terms 00000000",
    ),
    "another Train": (
        lambda c, v: c.update("client-3", v, train=bytes(32)),
        "train 00000000",
    ),
    "no Train": (lambda c, v: c.update("client-3", v, train=b""), "train none instead of"),
    "another scheme": (
        lambda c, v: c.update("client-3", v, fingerprint="other"),
        "fingerprint 'other' instead",
    ),
    "another length": (lambda c, v: c.update("client-3", v, length=v.size - 1), "length"),
    "outside the cohort": (
        lambda c, v: c.update("client-5", v),
        "'client-5' is not in this round's cohort",
    ),
    "no client at all": (
        lambda c, v: c.update(SERVER, v),
        "'server' is not in this round's cohort",
    ),
    "no ciphertexts": (
        lambda c, v: c.update("client-3", v, payload=()),
        "0 payload parts instead of",
    ),
    "too many ciphertexts": (
        lambda c, v: c.sign(replace(m := c.message("client-3", v), payload=m.parts * 2)),
        "",
    ),
    "a ciphertext too large": (
        lambda c, v: c.sign(
            replace(
                m := c.message("client-3", v),
                payload=(bytes(c.scheme.max_chunk_bytes + 1), *m.parts[1:]),
            )
        ),
        "",
    ),
    "another kind": (lambda c, v: c.aggregate([v]), "kind 'aggregate' instead of 'update'"),
    "garbage": (lambda c, v: b"garbage", "not a message"),
    "nothing": (lambda c, v: b"", "not a message"),
    "a truncation": (lambda c, v: c.update("client-3", v)[:-1], "not a message"),
    "an altered byte": (
        lambda c, v: flipped(c.update("client-3", v), 5000),
        "altered on the way",
    ),
    "an altered header": (
        lambda c, v: flipped(c.update("client-3", v), -90),
        "signature is not that of 'client-3'",
    ),
    "another's signature": (
        lambda c, v: c.sign(c.message("client-3", v), "client-2"),
        "not that of 'client-3'",
    ),
    "a sender not enrolled": (
        lambda c, v: c.sign(replace(c.message("client-3", v), sender="client-9"), "client-3"),
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
    cast.open(7, 2, cohort=COHORT)
    data = wrong(cast, cast.vector(99))
    assert reason in refusal(cast, data)
    for i, sender in enumerate(COHORT):  # client-3 too: a refused update does not use up its turn
        assert cast.server.receive(cast.update(sender, vectors[i])) is None
        if i == 1:
            assert reason in refusal(cast, data)
    assert cast.server.refused == 2
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_every_ciphertext_counts_toward_the_number_due(encrypted_cast: Cast) -> None:
    message = encrypted_cast.message("client-0", encrypted_cast.vector())
    due = len(message.parts)
    assert due > 1
    reason = encrypted_cast.server.receive(
        encrypted_cast.sign(replace(message, payload=message.parts[:-1]))
    )
    assert f"{due - 1} payload parts instead of {due}" in reason
    assert encrypted_cast.server.refused == 1


def test_a_second_update_of_one_sender_is_refused(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(3)]
    cast.open(1, 2, cohort=COHORT)
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
    cast.open(1, 2, cohort=COHORT)
    good = cast.message("client-3", cast.vector(9))
    for i, sender in enumerate(COHORT[:3]):
        for bad in (b"garbage", b"", good.parts[-1][:-1]):
            assert cast.server.receive(cast.sign(replace(good, payload=(*good.parts[:-1], bad))))
        assert cast.server.receive(cast.update(sender, vectors[i])) is None
    assert cast.server.refused == 9
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_a_vector_shorter_than_it_says_is_refused(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(3)]
    cast.open(1, 2, cohort=COHORT)
    short = cast.update("client-3", cast.vector(9)[:-7000], length=cast.length)
    for sender, vector in zip(COHORT, vectors, strict=False):
        assert cast.server.receive(cast.update(sender, vector)) is None
        assert cast.server.receive(short)
    assert cast.server.refused == 3
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_a_vector_shorter_than_it_says_is_refused_also_when_it_comes_first(cast: Cast) -> None:
    """Else one bad client, answering first, has all the good ones refused."""
    cast.open(1, 2, cohort=COHORT)
    cast.server.receive(cast.update("client-3", cast.vector(9)[:-7000], length=cast.length))
    reasons = [cast.server.receive(cast.update(sender, cast.vector())) for sender in COHORT[:3]]
    assert reasons == [None] * 3


def test_the_order_of_arrival_does_not_matter(cast: Cast) -> None:
    vectors = [cast.vector(seed) for seed in range(4)]
    sums = []
    for number, order in ((2, (0, 1, 2, 3)), (3, (3, 1, 0, 2))):
        cast.open(number, cohort=COHORT)
        for i in order:
            cast.server.receive(cast.update(COHORT[i], vectors[i]))
        sums.append(cast.sums(cast.keyholder.handle(cast.server.close())))
    assert (sums[0] == sums[1]).all() and (sums[0] == sum(vectors)).all()


# Rounds that end well, and those that do not


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_a_round_of_too_few_updates_fails(cast: Cast, accepted: int) -> None:
    cast.open(1, 2, cohort=COHORT)
    for sender in COHORT[:accepted]:
        cast.server.receive(cast.update(sender, cast.vector()))
    cast.server.receive(b"garbage")
    with pytest.raises(
        RoundFailed, match=rf"round 1: {accepted} updates .* 1 refused.*keys\.min_clients=3"
    ):
        cast.server.close()


def test_a_failed_round_can_be_tried_again_from_nothing(cast: Cast) -> None:
    cast.open(1, 2, cohort=COHORT)
    cast.server.receive(cast.update("client-0", cast.vector(9)))
    cast.server.receive(b"garbage")
    with pytest.raises(RoundFailed):
        cast.server.close()
    cast.open(1, 3, cohort=COHORT)
    assert cast.server.refused == 0
    vectors = [cast.vector(seed) for seed in range(3)]
    for sender, vector in zip(COHORT, vectors, strict=False):
        assert cast.server.receive(cast.update(sender, vector)) is None
    assert (cast.sums(cast.keyholder.handle(cast.server.close())) == sum(vectors)).all()


def test_an_update_while_no_round_is_open_is_an_error(cast: Cast) -> None:
    fresh = cast.another_server(cast.keeper)
    for server in (fresh, cast.server):
        if server is cast.server:
            for sender in COHORT[:3]:
                server.receive(cast.update(sender, cast.vector()))
            server.close()
        with pytest.raises(RoundFailed, match="no round was open"):
            server.receive(cast.update("client-3", cast.vector()))
        with pytest.raises(RoundFailed):
            server.close()


def test_an_update_of_a_failed_attempt_is_refused_in_the_next(cast: Cast) -> None:
    """Its key is gone, and so it would spoil the sum."""
    late = cast.update("client-0", cast.vector())
    cast.open(1, 2, cohort=COHORT)
    assert "attempt 1 instead of 2" in refusal(cast, late)
    cast.open(2, 1, cohort=COHORT)
    assert "round 1 instead of 2" in refusal(cast, late)


# What it sends, and what it takes back


def test_an_attempt_begins_with_the_request_for_its_key(cast: Cast) -> None:
    for kept in (0, 4, 2**40):
        cast.server.kept = kept
        message = cast.read(Open, cast.server.begin(5, 3), KEYHOLDER)
        message.expect(run="run", round=5, attempt=3, sender=SERVER, length=0)
        message.expect(key_id="", train=b"", terms=TERMS.digest)
        message.expect(fingerprint=cast.scheme.fingerprint)
        assert [int.from_bytes(part, "little") for part in message.parts] == [kept]


def test_what_it_keeps_at_first_is_what_its_model_is_of(cast: Cast) -> None:
    keeper = ModelKeeper(cast.keeper.model, 6)
    assert cast.another_server(keeper).kept == 6
    assert cast.another_server(None).kept == 0


def test_a_round_opens_with_the_key_the_model_and_the_ranges(cast: Cast) -> None:
    message = cast.read(Train, cast.open(5, 2), "client-0")
    message.expect(run="run", round=5, attempt=2, sender=SERVER, key_id=cast.key_id, length=0)
    message.expect(fingerprint=cast.scheme.fingerprint, terms=TERMS.digest, train=b"")
    key, weights, ranges = message.parts
    assert key == cast.key_message
    assert (np.frombuffer(weights, "<f4") == cast.keeper.model.weights).all()
    assert (np.frombuffer(ranges, "<f4") == [0.5, 0.5]).all()


KEY_CHANGES = [
    {"run": "other"},
    {"round": 4},
    {"fingerprint": "other"},
    {"terms": b"other"},
    {"train": b"other"},
    {"key_id": "other"},
    {"length": 5},
    {"payload": (b"other",)},
    {"payload": ()},
    {"sender": SERVER},
    {"sender": "client-0"},
]


@pytest.mark.parametrize("change", KEY_CHANGES, ids=str)
def test_a_key_of_another_run_attempt_or_scheme_is_refused(cast: Cast, change: dict) -> None:
    good = cast.keyholder.handle(cast.server.begin(5, 2))
    message = cast.read(PublicKey, good)
    for bad in (cast.sign(replace(message, **change)), good[:-1], b"", cast.key_message):
        with pytest.raises(MessageRefused):
            cast.server.open(bad, COHORT)
    assert cast.server.open(good, COHORT)


def accepted(cast: Cast, count: int = 3) -> list[bytes]:
    """Updates of the open attempt that the server has taken."""
    updates = [cast.update(sender, cast.vector(i)) for i, sender in enumerate(COHORT[:count])]
    assert [cast.server.receive(update) for update in updates] == [None] * count
    return updates


def test_a_round_closes_with_the_sum_and_who_is_in_it(cast: Cast) -> None:
    cast.open(5, 2, cohort=COHORT)
    taken = [cast.update(sender, cast.vector(i)) for i, sender in enumerate(COHORT[:3])]
    late = cast.update("client-3", cast.vector())
    for data in (taken[2], b"garbage", taken[0], taken[0], flipped(late, 5000), taken[1]):
        cast.server.receive(data)
    assert cast.server.refused == 3
    message = cast.read(Aggregate, cast.server.close(), KEYHOLDER)
    message.expect(run="run", round=5, attempt=2, sender=SERVER, key_id=cast.key_id)
    message.expect(fingerprint=cast.scheme.fingerprint, length=cast.length, train=cast.train)
    assert len(message.parts) == cast.scheme.chunk_count(cast.length) + 1
    # Exactly those that were accepted, in the order in which they came.
    order = [taken[2], taken[0], taken[1]]
    assert Aggregate.envelopes(message.parts[-1], 16) == list(map(envelope_of, order))


def test_the_sum_is_in_the_outbox_before_it_is_given_out(cast: Cast, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "server")
    cast.server = cast.another_server(cast.keeper, outbox)
    cast.open(1, 2, cohort=COHORT)
    accepted(cast)
    assert cast.server.waiting(1) == b""
    aggregate = cast.server.close()
    for found in (outbox, Outbox(tmp_path / "server")):
        assert found.find(1) == aggregate and found.find(2) == found.find(0) == b""
    [path] = (tmp_path / "server").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700


def test_a_sum_that_could_not_be_written_down_is_not_given_out(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path)
    outbox.keep(1, b"the one before")
    cast.server = cast.another_server(cast.keeper, outbox)
    cast.open(2, cohort=COHORT)
    accepted(cast)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("hyperlock.files.os.replace", fail)
        with pytest.raises(OSError, match="no space left"):
            cast.server.close()
    assert outbox.find(1) == b"the one before" and outbox.find(2) == b""
    assert [path.name for path in tmp_path.iterdir()] == ["aggregate"]


def test_the_outbox_holds_the_last_sum_alone(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.keep(1, b"one")
    outbox.keep(2, b"two")
    assert outbox.find(2) == b"two" and outbox.find(1) == b""
    nowhere = Outbox()
    nowhere.keep(1, b"one")
    assert nowhere.find(1) == b""


def test_a_server_that_is_restarted_has_the_sum_to_send_again(cast: Cast, tmp_path: Path) -> None:
    cast.server = cast.another_server(cast.keeper, Outbox(tmp_path))
    cast.open(1, 2, cohort=COHORT)
    accepted(cast)
    aggregate = cast.server.close()

    keeper = ModelKeeper(cast.keeper.model)
    restarted = cast.another_server(keeper, Outbox(tmp_path))
    assert restarted.waiting(1) == aggregate and restarted.waiting(2) == b""
    restarted.take(cast.keyholder.handle(restarted.waiting(1)))
    cast.server.take(cast.keyholder.handle(aggregate))
    assert keeper.round == 1
    assert keeper.model.weights.tobytes() == cast.keeper.model.weights.tobytes()


def test_what_in_the_outbox_is_no_sum_of_this_run_is_not_sent(cast: Cast, tmp_path: Path) -> None:
    """As where all parties of a run in one process were restarted, with other signing keys."""
    outbox = Outbox(tmp_path)
    cast.server = cast.another_server(cast.keeper, outbox)
    cast.open(1, 2, cohort=COHORT)
    accepted(cast)
    aggregate = cast.server.close()
    message = cast.read(Aggregate, aggregate)
    for bad in (aggregate[:-1], b"", b"garbage", cast.sign(replace(message, run="other"))):
        outbox.keep(1, bad)
        assert cast.server.waiting(1) == b""
    outbox.keep(1, aggregate)
    assert cast.server.waiting(1) == aggregate
    cast.parties = enrol("run", dict.fromkeys(NAMES, SAMPLES))
    assert cast.another_server(cast.keeper, outbox).waiting(1) == b""


def released(cast: Cast) -> bytes:
    """Of the attempt that is open."""
    return cast.keyholder.handle(
        cast.aggregate([cast.vector(seed, samples=16) for seed in range(3)])
    )


def test_a_release_steps_the_model_by_the_weighted_mean(cast: Cast) -> None:
    before = cast.keeper.model
    updates = sum(cast.vector(seed) for seed in range(3))[-sum(cast.sizes) :]
    cast.server.take(released(cast))
    mean = updates * (0.5 / 127) * (before.weight_unit / 48)
    assert cast.keeper.model.weights == pytest.approx(before.weights - mean, abs=1e-6)
    assert np.abs(mean).max() > 0.1
    totals = cast.keeper.totals
    assert (totals.contributors, totals.samples, totals.loss, totals.saturated) == (3, 48, 4.5, 6)
    # The next range follows the largest mean of each tensor.
    largest = [np.abs(mean[: cast.sizes[0]]).max(), np.abs(mean[cast.sizes[0] :]).max()]
    assert cast.keeper.model.grid.ranges == pytest.approx([4 * value for value in largest])


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"round": 2},
        {"round": 0},
        {"length": 5},
        {"terms": b"other"},
        {"payload": ()},
    ],
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


def test_a_release_of_another_attempt_of_the_round_is_taken(cast: Cast) -> None:
    """The key holder's ledger has it, and a server that was restarted is in an attempt of its
    own."""
    release = released(cast)
    restarted = cast.another_server(cast.keeper)
    answer = cast.keyholder.handle(restarted.begin(1, 1))
    assert answer == release
    restarted.take(answer)
    assert cast.keeper.round == 1


# Where the clients hold the model


def test_a_server_without_the_model_sends_none_and_takes_no_release(cast: Cast) -> None:
    server = cast.another_server(keeper=None)
    message = cast.read(Train, cast.open(1, 2, server), "client-0")
    assert message.parts == () and message.key_id == cast.key_id
    with pytest.raises(MessageRefused, match="the clients hold the model"):
        server.take(released(cast))


def test_without_the_model_the_clients_key_says_which_it_is_of(cast: Cast) -> None:
    """And not the first update, whose sender may lie."""
    cast = Cast(cast.scheme, shared=True)
    cast.server = cast.another_server(keeper=None)
    cast.open(1, 2)
    digest = cast.keeper.model.digest
    sent = [cast.update(name, cast.vector(i), train=digest) for i, name in enumerate(COHORT)]
    for lie in (bytes(32), b""):
        assert "train " in refusal(cast, cast.update("client-0", cast.vector(1), train=lie))
    assert [cast.server.receive(update) for update in sent] == [None] * 4
    assert cast.read(Aggregate, cast.server.close()).train == digest


def test_without_the_model_an_update_of_another_attempt_is_refused(cast: Cast) -> None:
    cast.server = cast.another_server(keeper=None)
    cast.open(1, 2)
    for change in ({"round": 2}, {"attempt": 1}, {"key_id": "other"}, {"terms": b"other"}):
        data = cast.update("client-0", cast.vector(), **change)
        assert next(iter(change)) in refusal(cast, data)


def resident_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's account of memory"
)
def test_memory_does_not_grow_with_the_cohort() -> None:
    """Updates are folded as they arrive: thirty of them cost no more than three."""
    scheme = Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 64, 128))
    length = 600_000
    key = scheme.generate_keys().public
    names = [f"client-{i}" for i in range(33)]
    parties = enrol("run", dict.fromkeys(names, SAMPLES))
    vector = Vector(Extent(8), (length - width(8),))
    sessions = {
        name: Session(identity, scheme, vector, TERMS, Monitor()).at(1, 1).under(key)
        for name, identity in parties.items()
    }
    server = Server(sessions[SERVER], min_clients=2, keeper=None, outbox=Outbox())
    server.begin(1, 1)
    server.open(sessions[KEYHOLDER].write(PublicKey, (key,)), names)
    chunks = tuple(scheme.encryptor(key).encrypt(np.ones(length, np.int8)))

    def receive(name: str) -> None:
        another = next(iter(scheme.encryptor(key).encrypt(np.ones(length, np.int8))))
        assert server.receive(sessions[name].write(Update, (another, *chunks[1:]))) is None

    for name in names[:3]:
        receive(name)
    before = resident_kilobytes()
    for name in names[3:]:
        receive(name)
    one_update = sum(map(len, chunks)) / 1024
    assert resident_kilobytes() - before < 3 * one_update

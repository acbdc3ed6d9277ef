"""keys=clients between processes: what the server takes of its clients, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.learning.types import LocalData
from hyperlock.parties.archive import Archive
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER
from hyperlock.parties.keyholder import Policy, SharedKeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.sharing_client import Sharing, SharingClient
from hyperlock.parties.sharing_server import SharingServer
from hyperlock.randomness import Streams
from tests.parties.cast import NAMES, ROUNDS, SAMPLES, Cast, Trainer
from tests.security.forge import opened, parts_of, resealed, with_parts
from tests.test_secrecy import secrets

CLIENTS = NAMES[:3]


@dataclass
class Shared:
    """A server and three clients, which hold no key yet.

    Attributes:
        cast: whose sessions they speak with.
        server, clients: the roles.
        archive: the server's.
    """

    cast: Cast
    server: SharingServer
    clients: dict[str, SharingClient]
    archive: Archive

    def give_keys(self) -> None:
        self.server.take_boxes(self.clients[CLIENTS[0]].handle(self.server.share()))
        for name in CLIENTS:
            self.server.joined(name, 0)
            if box := self.server.lacking(name):
                self.server.answered(name, box, self.clients[name].handle(box))

    def play(self, number: int) -> None:
        """A round up to its Aggregate, which clients lack then."""
        self.server.begin(number, 1)
        request = self.server.open(b"", CLIENTS)
        for client in self.clients.values():
            assert self.server.receive(client.handle(request)) is None
        assert self.server.send(self.server.close()) == number

    def stepped(self, name: str) -> bytes:
        """What a client says of the sum that it lacks."""
        return self.clients[name].handle(self.server.lacking(name))

    def answer(self, name: str, answer: bytes) -> None:
        self.server.answered(name, self.server.lacking(name), answer)


@pytest.fixture
def shared(schemes: dict[str, Scheme], tmp_path: Path) -> Shared:
    cast = Cast(schemes["bfv"])
    model = cast.keeper.model
    readers = {name: X25519PrivateKey.generate() for name in CLIENTS}
    public = {name: key.public_key().public_bytes_raw() for name, key in readers.items()}

    def client(index: int, name: str) -> SharingClient:
        session = cast.session(name)
        inside = replace(session, identity=session.identity.standing_in(KEYHOLDER))
        keeper = ModelKeeper(model)

        def replica(keys: KeyPair) -> Replica:
            policy = Policy(2, ROUNDS, attempts=9)
            keyholder = SharedKeyHolder(inside, policy=policy, ledger=Ledger(), keys=keys)
            return Replica(inside, keyholder, keeper)

        return SharingClient(
            session,
            sharing=Sharing(public, readers[name], bytes(32), tmp_path / name, ROUNDS),
            keeper=keeper,
            replica=replica,
            streams=Streams(0, index),
            data=LocalData(np.zeros((SAMPLES, 2)), np.zeros(SAMPLES, np.int32)),
            trainer=Trainer(np.full(sum(cast.sizes), 0.1 * (index + 1))),
            encryptor=cast.scheme.encryptor,
        )

    archive = Archive()
    server = SharingServer(
        cast.session(SERVER), min_clients=2, clients=CLIENTS, initial=model.digest, archive=archive
    )
    return Shared(cast, server, {n: client(i, n) for i, n in enumerate(CLIENTS)}, archive)


def test_a_round_and_what_is_told_of_it(shared: Shared) -> None:
    shared.give_keys()
    shared.play(1)
    told = [shared.stepped(name) for name in CLIENTS]
    for name, answer in zip(CLIENTS, told, strict=True):
        shared.answer(name, answer)
    shared.server.refuse_differences()
    totals = shared.server.totals
    assert totals is not None
    assert (totals.contributors, totals.samples) == (3, 3 * SAMPLES)
    assert totals.loss == pytest.approx(4.5, abs=1e-3)
    assert {parts_of(answer)[1] for answer in told} == {parts_of(told[0])[1]}
    assert all(not shared.server.lacking(name) for name in CLIENTS)
    shared.play(2)


def test_nothing_leads_from_the_server_to_the_key(shared: Shared) -> None:
    pairs: list[KeyPair] = []
    generate = Bfv.generate_keys
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bfv, "generate_keys", lambda self: pairs.append(generate(self)) or pairs[-1])
        shared.give_keys()
    shared.play(1)
    for name in CLIENTS:
        shared.answer(name, shared.stepped(name))
    [pair] = pairs
    assert secrets(shared.server, pair.secret) == []
    for client in shared.clients.values():  # the control
        assert "secret bytes" in secrets(client, pair.secret)


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda data, voices: resealed(data, voices["client-1"], sender="client-1"), "sender"),
        (lambda data, voices: with_parts(data, voices["client-0"]), "0 boxes for 2 clients"),
        (lambda data, voices: with_parts(data, voices["client-0"], b"x", b"y"), "not a message"),
        (
            lambda data, voices: with_parts(
                data,
                voices["client-0"],
                *[with_parts(box, voices["client-0"]) for box in parts_of(data)],
            ),
            "without the one key",
        ),
        (
            lambda data, voices: with_parts(data, voices["client-0"], *parts_of(data)[:1]),
            "1 boxes for 2 clients",
        ),
        (lambda data, voices: data[:-1], "not a message"),
    ],
)
def test_what_are_no_boxes_are_refused(shared: Shared, alter: Callable, said: str) -> None:
    good = shared.clients[CLIENTS[0]].handle(shared.server.share())
    with pytest.raises(MessageRefused, match=said):
        shared.server.take_boxes(alter(good, shared.cast.parties))
    assert shared.server.needed == {CLIENTS[0]}
    shared.server.take_boxes(good)
    assert not shared.server.needed


@pytest.mark.parametrize(
    ("changes", "parts", "said"),
    [
        ({"round": 2}, None, "round 2 instead of 1"),
        ({"sender": "client-2"}, None, "sender 'client-2'"),
        ({"run": "another"}, None, "run 'another'"),
        ({"terms": bytes(32)}, None, "terms"),
        ({}, (), "without totals and a model's digest"),
        ({}, (b"", bytes(32)), "totals of another length"),
        ({}, (None, bytes(31)), "without totals and a model's digest"),
        ({}, (bytes, bytes(32)), "totals of no updates"),
        ({}, (None, bytes(32), b""), "3 payload parts"),
    ],
    ids=str,
)
def test_what_a_client_cannot_say_is_refused(
    shared: Shared, changes: dict, parts: tuple | None, said: str
) -> None:
    shared.give_keys()
    shared.play(1)
    name = CLIENTS[1]
    good = shared.stepped(name)
    sender = shared.cast.parties[changes.get("sender", name)]
    digits = parts_of(good)[0]
    if parts is None:
        bad = resealed(good, sender, **changes)
    else:
        given = {None: digits, bytes: bytes(len(digits))}
        bad = with_parts(good, sender, *[given.get(part, part) for part in parts])
    with pytest.raises(MessageRefused, match=said):
        shared.answer(name, bad)
    assert not shared.server.stepped
    shared.answer(name, good)
    assert shared.server.stepped


@pytest.mark.parametrize("kind", ["share", "boxes", "box", "stepped"])
def test_whatever_is_altered_in_a_message_is_refused(shared: Shared, kind: str) -> None:
    """On the way, and by its own sender with a good signature; then the right one is taken."""
    first, second = (shared.clients[name] for name in CLIENTS[:2])
    good = share = shared.server.share()
    take: Callable[[bytes], object] = first.handle
    if kind != "share":
        good = first.handle(share)
        take = shared.server.take_boxes
    if kind == "box":
        good = parts_of(good)[0]
        take = second.handle
    if kind == "stepped":
        shared.give_keys()
        shared.play(1)
        good = shared.stepped(CLIENTS[1])
        take = partial(shared.answer, CLIENTS[1])
    _, header, _ = opened(good)
    signer = shared.cast.parties[str(header["sender"])]
    changes: dict[str, object] = {
        "run": "another", "sender": "client-5", "fingerprint": "another", "length": 1,
        "terms": bytes(32), "version": 99, "kind": "close", "key_id": 5, "digest": bytes(32),
        "sizes": [1, 1], "round": -1, "more": 1,
    }  # fmt: skip
    bad = [resealed(good, signer, **{name: value}) for name, value in changes.items()]
    bad += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            for at in range(0, len(good), 1 + len(good) // 25)]  # fmt: skip
    bad += [b"", good[:-1], good[1:], good + good]
    for message in bad:
        with pytest.raises(HyperLockError):
            take(message)
    take(good)


def test_clients_that_say_different_things_are_named(shared: Shared) -> None:
    shared.give_keys()
    shared.play(1)
    for name in CLIENTS[:2]:
        shared.answer(name, shared.stepped(name))
    last = shared.stepped(CLIENTS[2])
    digits, _ = parts_of(last)
    lie = with_parts(last, shared.cast.parties[CLIENTS[2]], digits, bytes(32))
    shared.answer(CLIENTS[2], lie)
    with pytest.raises(HyperLockError, match=r"round 1.*client-0, client-1 [0-9a-f]{16}; client-2"):
        shared.server.refuse_differences()


def test_a_sum_out_of_turn_is_refused_and_the_right_one_taken(shared: Shared) -> None:
    """Whoever took it would be stuck: the round before is released no more."""
    shared.give_keys()
    late = CLIENTS[2]
    for number in (1, 2):
        shared.play(number)
        for name in CLIENTS:
            if name != late or number == 1:
                shared.answer(name, shared.stepped(name))
    first, second = shared.archive.find(1), shared.archive.find(2)
    assert shared.server.lacking(late) == second
    shared.server.joined(late, 0)  # as it would be after a disk was put back
    assert shared.server.lacking(late) not in (first, second)  # its box, before all
    client = shared.clients[late]
    voice = shared.cast.parties[SERVER]
    with pytest.raises(MessageRefused, match="the sum of round 3, where 2 is due"):
        client.handle(resealed(second, voice, round=3))
    client.handle(second)


def test_before_there_is_a_key_nothing_is_trained_or_taken(shared: Shared) -> None:
    first = shared.clients[CLIENTS[0]]
    shared.server.take_boxes(first.handle(shared.server.share()))
    shared.server.begin(1, 1)
    request = shared.server.open(b"", CLIENTS)
    with pytest.raises(MessageRefused, match="has not been given the run's key yet"):
        shared.clients[CLIENTS[1]].handle(request)
    assert opened(first.handle(request))[1]["kind"] == "update"


@pytest.mark.parametrize("folder", [True, False])
def test_an_archive_keeps_sums_until_nobody_needs_them(tmp_path: Path, folder: bool) -> None:
    archive = Archive(tmp_path if folder else None)
    for number in range(1, 5):
        archive.keep(number, b"sum %d" % number)
        archive.note(number, b"told %d" % number)
    archive.keep(4, b"another attempt's")
    archive.forget(2)
    again = Archive(tmp_path) if folder else archive
    assert [again.find(n) for n in range(6)] == [b"", b"", b"", b"sum 3", b"another attempt's", b""]
    assert [again.told(n) for n in (0, 1, 4)] == [b"", b"told 1", b"told 4"]

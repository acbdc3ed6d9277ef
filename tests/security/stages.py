"""Parties in the middle of a round, for inputs by the thousand: each is offered one and says what
became of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from hyperlock.encryption import seal
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import HyperLockError, ReleaseRefused
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER
from hyperlock.parties.keyholder import KeyHolder, SharedKeyHolder
from hyperlock.parties.ledger import Entry, Ledger
from hyperlock.parties.messages import Aggregate
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server
from tests.parties.cast import TERMS, Cast, Trainer, envelope_of
from tests.security.forge import Forgery, enclosed, in_a_seal_object, opened, parts_of
from tests.security.keys import in_the_attempt, known_keys

BEFORE = "refused before SEAL"
NOT_RELEASED = "read, not released"
ACCEPTED = "accepted"
OUTCOMES = (BEFORE, NOT_RELEASED, ACCEPTED)
COHORT = [f"client-{i}" for i in range(4)]
BY_SEAL = "refused by SEAL"  # which nothing should be: residues are checked before
_SEAL = re.compile("not a ciphertext of these parameters")
_DECRYPTED = re.compile(
    r"the sum (is not|is out|has|holds|goes)|noise budget|a coordinate is larger|\d samples, where"
)


@dataclass
class Stage:
    """One party that waits for one message.

    Attributes:
        name: the party, and the message or scheme.
        cast: all parties.
        sender: who is to send it.
        good: good messages of this kind.
        handle: hands bytes to the party; raises, or returns a reason, if they are refused.
        ready: brings the party to where it waits, before each message.
        accepted: what is done after a message was taken.
        earlier: good messages of this kind, of other attempts, rounds and keys.
        chunks: good ciphertexts by form, for messages that have some.
        foreign: those of other messages, by form.
        written: the same vector's as SEAL and TenSEAL write them.
        envelopes: of the Updates in a sum, for messages that have a manifest.
        strays: of other Updates, of this attempt and of others.
        behind: what stands behind the manifest.
        said: all messages of the run, for those that hold messages.
        keys: what is no public key of this scheme, for messages that bear one.
    """

    name: str
    cast: Cast
    sender: str
    good: list[bytes]
    handle: Callable[[bytes], object]
    ready: Callable[[], None] = lambda: None
    accepted: Callable[[], None] = lambda: None
    earlier: list[bytes] = field(default_factory=list)
    chunks: dict[str, list[bytes]] = field(default_factory=dict)

    foreign: dict[str, list[bytes]] = field(default_factory=dict)
    written: list[list[bytes]] = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)
    strays: list[bytes] = field(default_factory=list)
    behind: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Ciphertexts of a good message."""
        return len(next(iter(self.chunks.values())))

    @property
    def tail(self) -> list[bytes]:
        """What stands behind the ciphertexts of a good message."""
        return [Aggregate.manifest(self.envelopes), *self.behind] if self.envelopes else []

    def takes(self, mutation: str) -> bool:
        """Whether messages to this party have what a mutation alters."""
        able: dict[str, object] = {
            "proof": False,
            "ciphertext": self.chunks,
            "ciphertexts": self.chunks,
            "manifest": self.envelopes,
            "train": self.keys and opened(self.good[0])[1]["kind"] == "train",
            "key": self.keys,
        }
        return bool(able.get(mutation.split(":")[0], True))

    def chunk(self, rng: random.Random, place: int) -> bytes:
        """A good ciphertext at this place, in any form that may stand there."""
        return self.chunks[rng.choice(sorted(self.chunks))][place]

    def forgery(self, rng: random.Random, place: int) -> Forgery:
        """The same, taken apart."""
        layout = self.cast.scheme.layout  # type: ignore[attr-defined]
        read = Forgery.of_sum if "sum" in self.chunks else Forgery.of
        return read(self.chunk(rng, place), layout)

    def offer(self, data: bytes) -> str:
        """What became of it: one of `OUTCOMES`, `BY_SEAL`, or the name of an error that no party
        should raise."""
        self.ready()
        try:
            reason = self.handle(data)
            if not isinstance(reason, str):
                self.accepted()
                return ACCEPTED
        except HyperLockError as error:
            reason = error
        except Exception as error:
            return type(error).__name__
        return (
            BY_SEAL
            if _SEAL.search(str(reason))
            else NOT_RELEASED
            if _DECRYPTED.search(str(reason))
            else BEFORE
        )


@dataclass
class ServerStage(Stage):
    """A server in a round of four, one of which has sent its update.

    Attributes:
        server: the same, under keys=clients without the model.
        release: what the sum's receiver makes of it.
    """

    server: Server = None  # type: ignore[assignment]
    release: Callable[[bytes], bytes] = bytes

    def __post_init__(self) -> None:
        self.handle = self.server.receive
        self.accepted = self._and_then
        self.open()

    def open(self) -> None:
        """Begin the attempt anew."""
        self.server.begin(*self.cast.at)
        self.server.open(self.cast.key_message, COHORT)
        assert self.server.receive(self.good[0]) is None

    def finish(self) -> None:
        """The round ends with the exact sum of the good updates, whatever was refused between
        them."""
        assert self._release() == sum(self.cast.vector(i).astype(int) for i in range(4)).tolist()
        self.open()

    def _and_then(self) -> None:
        """Nobody can look inside of what was taken: the round goes on, and its sum is released or
        refused."""
        with suppress(ReleaseRefused):
            self._release()
        self.open()

    def _release(self) -> list[int]:
        for message in self.good[1:]:
            self.server.receive(message)
        return self.cast.sums(self.release(self.server.close())).tolist()


@dataclass
class Sent:
    """What honest parties say in one attempt, three of four clients being in its sum."""

    begun: bytes
    key: bytes
    train: bytes
    updates: list[bytes]
    aggregate: bytes

    @classmethod
    def by(cls, cast: Cast) -> Sent:
        """In the attempt that is open."""
        vectors = [cast.vector(i) for i in range(4)]
        return cls(
            cast.server.begin(*cast.at),
            cast.key_message,
            cast.request,
            [cast.update(name, vector) for name, vector in zip(COHORT, vectors, strict=True)],
            cast.aggregate(vectors[:3]),
        )

    @property
    def envelopes(self) -> list[bytes]:
        """Of those in the sum."""
        return Aggregate.envelopes(self.parts[-1], len(COHORT))

    @property
    def parts(self) -> list[bytes]:
        """Of the Aggregate."""
        return parts_of(self.aggregate)

    @property
    def others(self) -> list[bytes]:
        """Envelopes that are of this attempt too, and not in the sum."""
        return [envelope_of(update) for update in self.updates]


def elsewhere(cast: Cast, round_number: int, attempt: int) -> Sent:
    """What the same parties say in another attempt, under another key."""
    other = copy(cast)
    other.keyholder = other.another_keyholder(Ledger())
    other.server = other.another_server(cast.keeper)
    other.open(round_number, attempt)
    return Sent.by(other)


def silent(handle: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """What answers with bytes, and refuses by raising."""

    def handled(data: bytes) -> None:
        handle(data)

    return handled


def in_libraries(scheme: PackedScheme, public: bytes, chunks: list[bytes]) -> list[list[bytes]]:
    """Whole ciphertexts of an Update as SEAL saves them, compressed and not, and in TenSEAL's
    message."""
    context = public_context(public).seal_context().data
    saved = []
    plain = []
    with seal.scratch() as file:
        for chunk in chunks:
            ciphertext = scheme.ciphertext(file, context, scheme.layout.open_update(chunk))
            saved.append(file.raw(ciphertext))
            plain.append(in_a_seal_object(file.read(ciphertext)))
    # Fields 1 and 2 of a protobuf message: the vector's size, and the ciphertext.
    return [saved, plain, [b"\x0a\x02\x80\x08\x12" + varint(len(s)) + s for s in saved]]


def varint(number: int) -> bytes:
    """Protobuf's."""
    low = number & 127
    return bytes([low | 128]) + varint(number >> 7) if number > 127 else bytes([low])


class Stages:
    """The parties of small rounds, under CKKS and BFV, and in either with the key held by a party
    of its own and by the clients; updates take two ciphertexts."""

    def __init__(self) -> None:
        self.servers: list[ServerStage] = []
        self.others: list[Stage] = []
        ckks = Ckks(ckks_parameters(2048, "auto", "auto", Extent(8), 16, 128))
        bfv = Bfv(bfv_parameters(2048, "auto", "auto", Extent(8), 16, 128))
        other = Bfv(bfv_parameters(4096, "auto", "auto", Extent(8), 16, 128)).generate_keys().public
        for scheme, another in ((ckks, bfv), (bfv, ckks)):
            made = Made(scheme, [other, another.generate_keys().public])
            self.servers += [made.server(), made.server_without_the_model()]
            self.others += made.others()

    def choose(self, rng: random.Random, mutation: str) -> Stage:
        """Mostly a server, which has the most senders; only parties that are sent what the mutation
        alters."""
        able: list[list[Stage]] = [
            [stage for stage in stages if stage.takes(mutation)]
            for stages in (self.servers, self.others)
        ]
        servers, others = able
        if not others or (servers and rng.random() < 0.6):
            return rng.choice(servers)
        return rng.choice(others)


class Made:
    """The stages of one scheme.

    Args:
        scheme: theirs.
        foreign_keys: public keys of other schemes and rings.
    """

    def __init__(self, scheme: PackedScheme, foreign_keys: list[bytes]) -> None:
        size = scheme.parameters.slots * scheme.parameters.packing.fields
        cast = Cast(scheme, sizes=(size,))
        self.cast = cast
        self.keys = known_keys(cast)
        self.foreign_keys = [*foreign_keys, self.keys.secret, b""]
        self.sent = Sent.by(cast)
        self.elsewhere = [elsewhere(cast, *at) for at in ((1, 1), (1, 2), (2, 1))]
        self.release = in_the_attempt(cast, self.keys).handle(self.sent.aggregate)

        # The same run under keys=clients, but for the sums, which are under another key.
        shared = Cast(scheme, sizes=(size,), parties=cast.parties, shared=True)
        shared.open(server=shared.another_server(None))
        shared.train = shared.keeper.model.digest
        self.shared = shared
        self.shared_sent = Sent.by(shared)

    def server(self) -> ServerStage:
        """One that holds the model."""
        return self._server(
            "server", self.cast, self.sent, self.keys, self._in_the_attempt, self.cast.server
        )

    def server_without_the_model(self) -> ServerStage:
        """Under keys=clients."""
        keyholder = self.shared.keyholder
        assert isinstance(keyholder, SharedKeyHolder)

        def release(aggregate: bytes) -> bytes:
            not_released_yet(keyholder)
            return keyholder.handle(aggregate)

        return self._server(
            "server without the model",
            self.shared,
            self.shared_sent,
            KeyPair(keyholder.public, keyholder._secret),
            release,
            self.shared.another_server(None),
        )

    def others(self) -> list[Stage]:
        """Everybody else."""
        return [
            self._keyholder_asked_for_a_key(),
            self._keyholder(),
            self._keyholder_that_released(),
            self._server_that_asked_for_a_key(),
            self._client(),
            self._model_keeper(),
            *self._client_with_the_key(),
        ]

    def _in_the_attempt(self, aggregate: bytes) -> bytes:
        return in_the_attempt(self.cast, self.keys).handle(aggregate)

    def _server(
        self,
        name: str,
        cast: Cast,
        sent: Sent,
        keys: KeyPair,
        release: Callable[[bytes], bytes],
        server: Server,
    ) -> ServerStage:
        scheme = cast.scheme
        vector = cast.vector(9)
        whole = list(scheme.encryptor(keys.public).encrypt(vector))
        seeded = list(scheme.symmetric_encryptor(keys.secret).encrypt(vector))
        return ServerStage(
            f"{name}, {scheme.name}",
            cast,
            "client-3",
            sent.updates,
            print,
            earlier=[update for other in self.elsewhere for update in other.updates],
            chunks={"whole": whole, "seeded": seeded},
            foreign={"sum": self.sent.parts[:-1]},
            written=in_libraries(scheme, keys.public, whole),
            server=server,
            release=release,
        )

    def _of_a_sum(
        self,
        name: str,
        cast: Cast,
        sent: Sent,
        handle: Callable[[bytes], object],
        ready: Callable[[], None],
    ) -> Stage:
        """Whoever waits for an Aggregate."""
        updates = [parts_of(update) for update in sent.updates]
        return Stage(
            f"{name}, {cast.scheme.name}",
            cast,
            SERVER,
            [sent.aggregate],
            handle,
            ready,
            earlier=[other.aggregate for other in self.elsewhere],
            chunks={"sum": sent.parts[:-1]},
            foreign={"whole": updates[0]},
            written=in_libraries(cast.scheme, cast.public, updates[0]),
            envelopes=sent.envelopes,
            strays=[
                *sent.others,
                *self.sent.envelopes,
                *self.shared_sent.envelopes,
                *(envelope for other in self.elsewhere for envelope in other.envelopes),
            ],
        )

    def _keyholder(self) -> Stage:
        keyholder = in_the_attempt(self.cast, self.keys)
        attempt = keyholder._attempt

        def ready() -> None:
            not_released_yet(keyholder)
            keyholder._attempt = attempt
            keyholder._memory.seen = self.cast.at

        def handle(data: bytes) -> None:
            assert_of_updates(self.cast, data, keyholder.handle(data))

        return self._of_a_sum("key holder, sum", self.cast, self.sent, handle, ready)

    def _keyholder_that_released(self) -> Stage:
        """It says the same again, or nothing."""
        keyholder = in_the_attempt(self.cast, self.keys)
        assert keyholder.handle(self.sent.aggregate) == self.release

        def again(data: bytes) -> None:
            assert keyholder.handle(data) == self.release

        return self._of_a_sum("key holder, sum again", self.cast, self.sent, again, lambda: None)

    def _keyholder_asked_for_a_key(self) -> Stage:
        """Of round 1, which was released, or of another."""
        keyholder = self.cast.another_keyholder(Ledger())

        def ready() -> None:
            not_released_yet(keyholder)
            keyholder._ledger.keep(1, Entry(bytes(32), self.release))

        good = [self.sent.begun, *(other.begun for other in self.elsewhere)]
        return Stage(
            f"key holder, asked for a key, {self.cast.scheme.name}",
            self.cast,
            SERVER,
            good,
            silent(keyholder.handle),
            ready,
            earlier=good,
        )

    def _server_that_asked_for_a_key(self) -> Stage:
        server = self.cast.another_server(self.cast.keeper)

        def ready() -> None:
            server.begin(*self.cast.at)

        return Stage(
            f"server, public key, {self.cast.scheme.name}",
            self.cast,
            KEYHOLDER,
            [self.sent.key],
            silent(lambda data: server.open(data, COHORT)),
            ready,
            earlier=[self.shared_sent.key, *(other.key for other in self.elsewhere)],
            keys=self.foreign_keys,
        )

    def _client(self) -> Stage:
        trainer = Trainer(np.zeros(self.cast.sizes, np.float32))
        client = self.cast.client(trainer)
        ranges = client._memory.ranges

        def ready() -> None:
            trainer.seen.clear()  # weights, and with them the message that they lie in
            client._memory.seen = (0, 0)
            client._memory.ranges = ranges

        trains = [other.train for other in self.elsewhere]
        return Stage(
            f"client, request, {self.cast.scheme.name}",
            self.cast,
            SERVER,
            [self.sent.train, *trains],
            silent(client.handle),
            ready,
            earlier=trains,
            keys=self.foreign_keys,
        )

    def _model_keeper(self) -> Stage:
        model = self.cast.keeper.model
        keeper = ModelKeeper(model)
        server = self.cast.another_server(keeper)

        def ready() -> None:
            keeper.model = model
            keeper.round = 0

        return Stage(
            f"model keeper, {self.cast.scheme.name}",
            self.cast,
            KEYHOLDER,
            [self.release],
            silent(server.take),
            ready,
            earlier=[self.release],
        )

    def _client_with_the_key(self) -> list[Stage]:
        """Under keys=clients, asked for an update and sent a sum."""
        cast = self.shared
        keyholder = cast.keyholder
        assert isinstance(keyholder, SharedKeyHolder)
        model = cast.keeper.model
        keeper = ModelKeeper(model)
        replica = Replica(cast.session("client-3"), keyholder, keeper, seeded=True)
        trainer = Trainer(np.zeros(cast.sizes, np.float32))
        client = cast.client(trainer, replica=replica)

        def ready() -> None:
            trainer.seen.clear()
            not_released_yet(keyholder)
            client._memory.seen = (0, 0)
            keeper.model = model
            keeper.round = 0
            replica._last = b""

        handle = silent(client.handle)
        request = Stage(
            f"client with the key, request, {cast.scheme.name}",
            cast,
            SERVER,
            [self.shared_sent.train],
            handle,
            ready,
            earlier=[other.train for other in self.elsewhere],
        )
        return [
            request,
            self._of_a_sum("client with the key, sum", cast, self.shared_sent, handle, ready),
        ]


def assert_of_updates(cast: Cast, aggregate: bytes, release: bytes) -> None:
    """What was released is of as many updates as are named, enough of them, each of a client of its
    own and of this attempt."""
    manifest = parts_of(aggregate)[-1]
    headers = [opened(enclosed(b"", one))[1] for one in Aggregate.envelopes(manifest, 99)]
    senders = {header["sender"] for header in headers}
    totals, _ = cast.layout.split(cast.sums(release))
    assert cast.min_clients <= len(headers) == len(senders) == totals.contributors
    assert senders <= cast.parties[SERVER].clients.keys()
    due = {"kind": "update", "run": "run", "round": 1, "attempt": 1, "train": cast.train}
    due |= {"key_id": cast.key_id, "terms": TERMS.digest}
    assert all({**header, **due} == header for header in headers)


def not_released_yet(keyholder: KeyHolder) -> None:
    """Have it forget what it opened and released."""
    keyholder._memory.seen = (0, 0)
    keyholder._ledger = Ledger()

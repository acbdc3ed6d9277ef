"""Parties in the middle of a round, for inputs by the thousand: each is offered one and says what
became of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from hyperlock.encryption import seal
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import HyperLockError, ReleaseRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER
from tests.parties.cast import Cast, Trainer
from tests.security.forge import Forgery, in_a_seal_object

BEFORE = "refused before SEAL"
NOT_RELEASED = "read, not released"
ACCEPTED = "accepted"
OUTCOMES = (BEFORE, NOT_RELEASED, ACCEPTED)
COHORT = [f"client-{i}" for i in range(4)]
BY_SEAL = "refused by SEAL"  # which nothing should be: residues are checked before
_SEAL = re.compile("not a ciphertext of these parameters")
_DECRYPTED = re.compile("the sum (is|holds)|noise budget|a coordinate is larger|updates on")


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
        chunks: good ciphertexts by form, for messages that have some.
        foreign: those of other messages, by form.
        written: the same vector's as SEAL and TenSEAL write them.
    """

    name: str
    cast: Cast
    sender: str
    good: list[bytes]
    handle: Callable[[bytes], object]
    ready: Callable[[], None] = lambda: None
    accepted: Callable[[], None] = lambda: None
    chunks: dict[str, list[bytes]] = field(default_factory=dict)

    foreign: dict[str, list[bytes]] = field(default_factory=dict)
    written: list[list[bytes]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Ciphertexts of a good message."""
        return len(next(iter(self.chunks.values())))

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
            if not reason:
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
    """A server in a round of four, one of which has sent its update."""

    def __post_init__(self) -> None:
        self.handle = self.cast.server.receive
        self.accepted = self._and_then
        self.open()

    def open(self) -> None:
        """Begin the round anew."""
        self.cast.server.open(1, COHORT)
        assert self.cast.server.receive(self.good[0]) is None

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
            self.cast.server.receive(message)
        release = self.cast.another_keyholder(keys_of(self.cast)).handle(self.cast.server.close())
        return self.cast.sums(release).tolist()


def keys_of(cast: Cast) -> KeyPair:
    """The keys of its key holder."""
    return KeyPair(cast.keyholder.public, cast.keyholder._secret)


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
    """The parties of two small rounds, under CKKS and BFV; updates take two ciphertexts."""

    def __init__(self) -> None:
        self.servers: list[ServerStage] = []
        self.others: list[Stage] = []
        self._add(Ckks(ckks_parameters(2048, "auto", "auto", 8, 16, 128)))
        self._add(Bfv(bfv_parameters(2048, "auto", "auto", 8, 16, 128)))

    def choose(self, rng: random.Random, ciphertexts: bool) -> Stage:
        """Mostly a server, which has the most senders; only parties that read ciphertexts, if they
        matter."""
        stages = self.servers if rng.random() < 0.6 else self.others
        return rng.choice([stage for stage in stages if stage.chunks or not ciphertexts])

    def _add(self, scheme: PackedScheme) -> None:
        size = scheme.parameters.slots * scheme.parameters.packing.fields
        cast = Cast(scheme, sizes=(size,))
        vectors = [cast.vector(i) for i in range(4)]
        vector = cast.vector(9)
        symmetric = scheme.symmetric_encryptor(cast.keyholder._secret)
        whole = list(scheme.encryptor(cast.public).encrypt(vector))
        chunks = {"whole": whole, "seeded": list(symmetric.encrypt(vector))}
        sums = {"sum": [Forgery.of(c, scheme.layout).as_sum().write() for c in whole]}
        written = in_libraries(scheme, cast.public, whole)
        updates = [cast.update(name, vector) for name, vector in zip(COHORT, vectors, strict=True)]
        aggregate = cast.aggregate(vectors[:3])
        train = cast.server.open(1, COHORT)
        release = cast.keyholder.handle(aggregate)

        keyholder = cast.another_keyholder(keys_of(cast))
        keeper = cast.keeper
        model = cast.keeper.model
        client = cast.client(Trainer(np.zeros(size, np.float32)))

        def decrypt(data: bytes) -> None:
            keyholder.handle(data)

        def take(data: bytes) -> None:
            client.handle(data)

        def not_decrypted_yet() -> None:
            keyholder._decrypted = 0

        def not_trained_yet() -> None:
            client._round = 0
            client._public = cast.public

        def not_stepped_yet() -> None:
            keeper.model = model
            keeper.round = 0

        self.servers.append(
            ServerStage(
                f"server, {scheme.name}",
                cast,
                "client-3",
                updates,
                print,
                chunks=chunks,
                foreign=sums,
                written=written,
            )
        )
        self.others += [
            Stage(
                f"key holder, {scheme.name}",
                cast,
                SERVER,
                [aggregate],
                decrypt,
                not_decrypted_yet,
                chunks=sums,
                foreign=chunks,
                written=written,
            ),
            Stage(
                "client, public key",
                cast,
                KEYHOLDER,
                [cast.keyholder.public_key()],
                take,
                not_trained_yet,
            ),
            Stage("client, request", cast, SERVER, [train], take, not_trained_yet),
            Stage("model keeper", cast, KEYHOLDER, [release], cast.server.take, not_stepped_yet),
        ]

"""Parties in the middle of a round, for inputs by the thousand: each is offered one and says what
became of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import HyperLockError, ReleaseRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER
from tests.parties.cast import Cast, Trainer
from tests.security.forge import Forgery

BEFORE = "refused before SEAL"
BY_SEAL = "refused by SEAL"
NOT_RELEASED = "read, not released"
ACCEPTED = "accepted"
OUTCOMES = (BEFORE, BY_SEAL, NOT_RELEASED, ACCEPTED)
COHORT = [f"client-{i}" for i in range(4)]
_SEAL = re.compile("not a ciphertext of these parameters|cannot be added")
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
    """

    name: str
    cast: Cast
    sender: str
    good: list[bytes]
    handle: Callable[[bytes], object]
    ready: Callable[[], None] = lambda: None
    accepted: Callable[[], None] = lambda: None
    chunks: dict[str, list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = [stop - start for start, stop in self.cast.scheme.blocks(self.cast.length)]  # type: ignore[attr-defined]

    def forgery(self, rng: random.Random, place: int) -> Forgery:
        """A good ciphertext at this place, in either form."""
        chunk = self.chunks[rng.choice(sorted(self.chunks))][place]
        return Forgery.of(chunk, self.cast.scheme.layout, self.slots[place])

    def offer(self, data: bytes) -> str:
        """What became of it: one of `OUTCOMES`, or the name of an error that no party should
        raise."""
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


class ServerStage(Stage):
    """A server in a round of four, one of which has sent its update."""

    def __post_init__(self) -> None:
        super().__post_init__()
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


class Stages:
    """The parties of two small rounds, under CKKS and BFV; updates take two ciphertexts."""

    def __init__(self) -> None:
        self.servers: list[ServerStage] = []
        self.others: list[Stage] = []
        self._add(Ckks(ckks_parameters(2048, "auto", "auto", 8, 16, 128)))
        self._add(Bfv(bfv_parameters(2048, [34, 20], "auto", 8, 16, 128)))

    def choose(self, rng: random.Random, ciphertexts: bool) -> Stage:
        """Mostly a server, which has the most senders; only parties that read ciphertexts, if they
        matter."""
        stages = self.servers if rng.random() < 0.6 else self.others
        return rng.choice([stage for stage in stages if stage.chunks or not ciphertexts])

    def _add(self, scheme: PackedScheme) -> None:
        size = scheme.parameters.slots * scheme.parameters.packing.fields
        cast = Cast(scheme, sizes=(size,))
        vectors = [cast.vector(i) for i in range(4)]
        chunks = {"whole": list(scheme.encryptor(cast.public).encrypt(cast.vector(9)))}
        if (symmetric := cast.keyholder.symmetric_encryptor()) is not None:
            chunks["seeded"] = list(symmetric.encrypt(cast.vector(9)))
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
            ServerStage(f"server, {scheme.name}", cast, "client-3", updates, print, chunks=chunks)
        )
        self.others += [
            Stage(
                f"key holder, {scheme.name}",
                cast,
                SERVER,
                [aggregate],
                decrypt,
                not_decrypted_yet,
                chunks=chunks,
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

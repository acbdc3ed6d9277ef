"""Parties in the middle of a round at trust=malicious, for inputs by the thousand: what is refused
is forgotten, and at any time the round ends with the same bytes as without it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.errors import MessageRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS
from hyperlock.parties.messages import Aggregate, Update
from hyperlock.parties.proofs import Tallied, digest, sum_digest
from tests.parties.cast import envelope_of
from tests.security.forge import opened, parts_of, with_parts
from tests.security.proof_mutations import able
from tests.security.proved import PLACES, Promise, Proved
from tests.security.stages import Stage, Stages, in_libraries

SHARE = 0.4  # of the inputs that any party can be offered
SUM = "aggregate to verifying key holder"


class Place(Protocol):
    """Where a party waits."""

    def handle(self, data: bytes) -> object:
        """Hand it a message; raises, or returns a reason, if it is refused."""
        ...

    def finish(self) -> None:
        """Good messages, and what comes of them, byte for byte."""
        ...

    def go_on(self) -> None:
        """The good messages that are still taken after another was."""
        ...


class Colluding:
    """A key holder that waits for a sum, and a witness that signs whatever the server sends.

    Args:
        proved: the round.
    """

    def __init__(self, proved: Proved) -> None:
        self._proved = proved
        self._here = proved.wait(SUM)

    def handle(self, data: bytes) -> object:
        """With a tally that fits, if there is one in it."""
        with suppress(MessageRefused):
            data = self._signed(data)
        return self._here.handle(data)

    def finish(self) -> None:
        """The good sum, whose tally is what an honest witness signs."""
        assert self.handle(self._here.good[0]) == self._here.due

    def go_on(self) -> None:
        """There is one sum for a key."""

    def _signed(self, data: bytes) -> bytes:
        said = self._proved.said
        parties = self._proved.parties
        message = self._proved.session(KEYHOLDER).hear(Aggregate, data)
        *total, manifest, _ = map(bytes, message.parts)
        senders = [
            Update.header(one, parties[KEYHOLDER], max_parts=9, max_part_bytes=2**20)[0].sender
            for one in Aggregate.envelopes(manifest, self._proved.scheme.max_clients)
        ]
        roster = digest(parts_of(said.roster)[0])
        tallied = Tallied(roster, sum_digest(total), tuple(senders))
        tally = with_parts(said.tally, parties[WITNESS], tallied.write())
        return with_parts(data, parties[SERVER], *total, manifest, tally)


@dataclass
class ProvedStage(Stage):
    """One party of a round at trust=malicious.

    Attributes:
        begin: brings it anew to where it waits, which is done when it has taken a message.
        once: whether a message that is looked at is the last, taken or not.
    """

    begin: Callable[[], Place] = None  # type: ignore[assignment]
    once: bool = False

    def __post_init__(self) -> None:
        self.accepted = self._and_then
        if self.once:
            self.ready = self.open
        self.open()

    def open(self) -> None:
        """Bring it to where it waits."""
        self._place = self.begin()
        self.handle = self._place.handle

    def takes(self, mutation: str) -> bool:
        """As any stage, and what alters proofs."""
        if mutation.startswith("proof"):
            return able(mutation, self.good[0])
        # These are for requests that hold a model, and keys of which nothing is announced.
        return mutation.split(":")[0] not in ("train", "key") and super().takes(mutation)

    def finish(self) -> None:
        """The round ends as if nothing had been refused."""
        self.ready()
        self._place.finish()
        self.open()

    def _and_then(self) -> None:
        self._place.go_on()
        self.open()


class AllStages(Stages):
    """The parties of small rounds, and those of such at trust=malicious.

    Attributes:
        proved: the latter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.proved: list[ProvedStage] = []
        schemes: list[PackedScheme] = [
            Ckks(ckks_parameters(2048, "auto", "auto", Extent(8), 16, 128)),
            Bfv(bfv_parameters(2048, "auto", "auto", Extent(8), 16, 128)),
        ]
        other = Bfv(bfv_parameters(4096, "auto", "auto", Extent(8), 16, 128)).generate_keys().public
        for scheme, another in zip(schemes, schemes[::-1], strict=True):
            self.proved += proved_stages(scheme, [other, another.generate_keys().public])

    def choose(self, rng: random.Random, mutation: str) -> Stage:
        """One that is sent what the mutation alters."""
        able = [stage for stage in self.proved if stage.takes(mutation)]
        if mutation.startswith("proof") or (able and rng.random() < SHARE):
            return rng.choice(able)
        return super().choose(rng, mutation)

    def finish(self) -> None:
        """All rounds end as they should."""
        for stage in (*self.servers, *self.proved):
            stage.finish()


def proved_stages(scheme: PackedScheme, foreign_keys: list[bytes]) -> list[ProvedStage]:
    """Each party in each place; and who turned hostile together with another."""
    proved = Proved(scheme)
    updates = {name: begin_at(proved, name) for name in PLACES}
    updates["update that was promised"] = lambda: Promise(proved)
    updates["aggregate that the witness signs"] = lambda: Colluding(proved)
    return [
        ProvedStage(
            f"{name}, {scheme.name}",
            proved.wait(place).cast,  # type: ignore[arg-type]
            str(opened(proved.good(place)[-1])[1]["sender"]),
            proved.good(place),
            print,
            earlier=proved.earlier(place) or proved.all,
            said=proved.all,
            begin=begin,
            once=name.startswith("aggregate"),
            **ciphertexts(proved, place, foreign_keys),
        )
        for name, begin in updates.items()
        for place in [same_as(name)]
    ]


def begin_at(proved: Proved, place: str) -> Callable[[], Place]:
    """Brings a party there."""
    return lambda: proved.wait(place)


def same_as(name: str) -> str:
    """Whose good messages are due there."""
    if name in PLACES:
        return name
    return SUM if name.startswith("aggregate") else "update to verified server"


def ciphertexts(proved: Proved, place: str, foreign_keys: list[bytes]) -> dict[str, Any]:
    """What a stage has of them, and of keys."""
    kind, _ = PLACES[place]
    said = proved.said
    if kind in ("public_key", "train"):
        return {"keys": [*foreign_keys, said.keys.secret]}
    *total, _, tally = parts_of(said.aggregate)
    whole = parts_of(said.updates[-1])
    written = in_libraries(proved.scheme, said.keys.public, whole)  # type: ignore[arg-type]
    if kind == "update":
        return {"chunks": {"whole": whole}, "foreign": {"sum": total}, "written": written}
    if kind == "aggregate":
        others = [*proved.again.updates, *proved.next.updates]
        return {
            "chunks": {"sum": total},
            "foreign": {"whole": whole},
            "written": written,
            "envelopes": [envelope_of(update) for update in said.updates],
            "strays": [envelope_of(update) for update in [*said.updates, *others]],
            "behind": [tally],
        }
    return {}

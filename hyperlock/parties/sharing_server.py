"""The server under keys=clients where clients are processes of their own: it passes on the boxes
with the run's key and the sums, and holds neither the key nor the model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np

from hyperlock.encryption.totals import Totals
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.parties.archive import Archive
from hyperlock.parties.messages import (
    DIGEST_BYTES,
    Aggregate,
    Box,
    Boxes,
    Share,
    Stepped,
    Train,
    key_id_of,
    train_of,
)
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session

log = logging.getLogger(__name__)

_SHOWN = 8  # bytes of a model's digest, in an error


class SharingServer(Server):
    """Knows of each client whether it has the key, and after which round it has the model.

    Attributes:
        first: the client that makes the key.
        needed: who must be there for anything to go on: the first client until it gave the key.
        present: who has joined.
        reached: the last round whose sum was sent; 0 before the first.

    Args:
        session, min_clients: as any server's.
        clients: all of them, in order.
        initial: SHA-256 of the model that they begin with.
        archive: the sums of the rounds before, and what clients said of them.
        start: the last round that is done.
    """

    def __init__(
        self,
        session: Session,
        *,
        min_clients: int,
        clients: Collection[str],
        initial: bytes,
        archive: Archive,
        start: int = 0,
    ) -> None:
        super().__init__(session, min_clients=min_clients, keeper=None, outbox=archive)
        self.first, *self._others = clients
        self.needed = {self.first}
        self.present: set[str] = set()
        self.reached = start
        self.kept = start
        self._archive = archive
        self._initial = initial
        self._public = b""
        self._boxes: dict[str, bytes] = {}
        self._keyed: set[str] = set()
        self._holds = dict.fromkeys(clients, 0)
        self._said: dict[int, dict[str, bytes]] = {}  # by round and client

    @property
    def totals(self) -> Totals | None:
        """Of the last round, as clients say; None before the first."""
        told = self._archive.told(self.reached)
        return self._totals(told[DIGEST_BYTES:]) if told else None

    # The key.

    def share(self) -> bytes:
        """The Share message for the first client."""
        return self._session.at(0, 0).write(Share, ())

    def take_boxes(self, data: bytes) -> None:
        """Take its answer; MessageRefused if it is not a box for each of the others."""
        message = self._session.hear(Boxes, data)
        message.expect(sender=self.first)
        if len(message.parts) != len(self._others):
            raise MessageRefused(f"{len(message.parts)} boxes for {len(self._others)} clients")
        boxes = [bytes(part) for part in message.parts]
        publics = set()
        for box in boxes:
            read = self._session.hear(Box, box)
            read.expect(sender=self.first, key_id=message.key_id)
            publics.add(bytes(read.parts[0]) if read.parts else b"")
        if len(publics) != 1 or key_id_of(*publics) != message.key_id:
            raise MessageRefused("boxes without the one key that they name")
        self._public = publics.pop()
        self._boxes = dict(zip(self._others, boxes, strict=True))
        self._keyed = {self.first}
        self.needed.clear()

    def joined(self, client: str, round_number: int) -> None:
        """A client has joined, with the model after this round; it may have been restarted, and
        then has no key."""
        self.present.add(client)
        self._holds[client] = round_number
        if client != self.first:
            self._keyed.discard(client)

    # What each client lacks.

    def lacking(self, client: str) -> bytes:
        """The next message that it lacks: its box, or a sum; empty if it has everything."""
        if client not in self._keyed:
            return self._boxes[client]
        number = self._due(client)
        if not number:
            return b""
        missed = self._archive.find(number)
        if not missed:
            log.warning("%s lacks the sum of round %d, which is not kept any more", client, number)
        return missed

    def _due(self, client: str) -> int:
        """The round whose sum it is sent; 0 for none."""
        held = self._holds[client]
        if held < self.reached:
            return held + 1
        # It has stepped, and what it said of that was lost with a server that was killed.
        return held if held == self.reached and held and not self.stepped else 0

    def answered(self, client: str, request: bytes, answer: bytes) -> None:
        """Take a client's answer to what it lacked; MessageRefused if it is none."""
        if client not in self._keyed:
            if answer:
                raise MessageRefused(f"{client} answers a box with something")
            if request == self._boxes[client]:
                self._keyed.add(client)
            return
        message = self._session.hear(Stepped, answer)
        number = self._due(client)
        message.expect(sender=client, round=number)
        digits, model = map(bytes, message.parts) if len(message.parts) == 2 else (b"", b"")
        if len(model) != DIGEST_BYTES:
            raise MessageRefused("a Stepped message without totals and a model's digest")
        self._totals(digits)
        self._holds[client] = number
        self._said.setdefault(number, {})[client] = model + digits
        if not self._archive.told(number):
            self._archive.note(number, model + digits)

    def refuse_differences(self) -> None:
        """HyperLockError if clients do not say the same of the rounds that they stepped by now."""
        for number, said in self._said.items():
            due = self._archive.told(number)
            if any(told != due for told in said.values()):
                known = {} if due in said.values() else {"who took it before": due}
                raise HyperLockError(
                    f"round {number}: clients have stepped to different models by the same sum: "
                    f"{_versions({**said, **known})}\n"
                    "  try: the same versions of HyperLock, NumPy and Python at all of them, and "
                    "another run; this one cannot go on"
                )
        self._said.clear()

    def send(self, aggregate: bytes) -> int:
        """Every client lacks this sum from now on; its round."""
        self.reached = self._session.hear(Aggregate, aggregate).round
        return self.reached

    @property
    def stepped(self) -> bool:
        """Whether anybody has stepped by the last sum."""
        return bool(self._archive.told(self.reached))

    def forget(self) -> None:
        """Drop the sums that nobody lacks, also after a restart."""
        self._archive.forget(min(self.kept, *self._holds.values()))

    # Rounds.

    def open(self, public_key: bytes, cohort: Collection[str], evaluates: bool = False) -> bytes:
        """The Train message of an attempt, under the run's key; `public_key` is none's."""
        before = self.round - 1
        held = self._archive.told(before)[:DIGEST_BYTES] if before else self._initial
        if not held:
            raise HyperLockError(
                f"what clients have stepped to in round {before} is not known: the run's folder "
                "lacks what its server kept\n  try: the folder as it was, or another run"
            )
        self._begin_sum(self._session, self._public, cohort)
        train = self._session.write(Train, (Train.mark,) if evaluates else ())
        self._session = self._session.after(train_of(held, evaluates))
        return train

    def _totals(self, digits: bytes) -> Totals:
        """What a Stepped message says; MessageRefused if that is no sum of a client's."""
        vector = self._session.vector
        kind = vector.sum_type(self._session.scheme.max_clients)
        if len(digits) != vector.head * kind.itemsize:
            raise MessageRefused("totals of another length than the run's")
        totals, _ = vector.split(np.frombuffer(digits, kind))
        told = totals.samples or vector.evaluated or vector.counted
        if totals.contributors < 1 or not told:
            raise MessageRefused("totals of no updates")
        return totals


def _versions(said: Mapping[str, bytes]) -> str:
    """Who says what."""
    by_model: dict[bytes, list[str]] = {}
    for client, told in said.items():
        by_model.setdefault(told, []).append(client)
    return "; ".join(
        f"{', '.join(sorted(names))} {told[:_SHOWN].hex()}"
        for told, names in sorted(by_model.items(), key=lambda item: sorted(item[1]))
    )

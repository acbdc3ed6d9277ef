"""A client under trust=malicious (`proofs.py`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import Grid
from hyperlock.errors import MessageRefused
from hyperlock.metrics import Stage
from hyperlock.parties.client import Client
from hyperlock.parties.messages import Commitment, Roster, State, Train, kind_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.proofs import digest
from hyperlock.parties.session import Session
from hyperlock.parties.spool import Spool


@lru_cache(maxsize=1)
def _one_copy(model: bytes) -> bytes:
    """The first of equal models: a simulation's clients are all sent the same."""
    return model


class CommittingClient(Client):
    """Steps the model itself, and commits to its Update before it sends it.

    Args:
        keeper: of the model; a simulation's clients share one.
        spool: where its Update waits; a simulation's clients share one.
        min_clients: a roster of fewer is refused.
        others: as any client's.
    """

    def __init__(
        self,
        session: Session,
        *,
        keeper: ModelKeeper,
        spool: Spool,
        min_clients: int,
        **others: Any,
    ) -> None:
        super().__init__(session, **others)
        self._keeper = keeper
        self._spool = spool
        self._min_clients = min_clients
        self._candidate = b""
        self._here: Session | None = None  # once it has committed, until it has sent
        self._committed = b""

    def handle(self, data: bytes) -> bytes:
        """As any client, but Train with a Commitment, Roster with the Update; State with nothing.

        Raises:
            MessageRefused: besides what any client refuses: a model that is not what it holds, a
                cohort or a roster without it, a second roster.
        """
        match kind_of(data):
            case State.kind:
                return self._catch_up(data)
            case Roster.kind:
                return self._upload(data)
        return super().handle(data)

    def _catch_up(self, data: bytes) -> bytes:
        """Step by the Releases that it missed; of a whole model the key holder says next whether
        it is the one."""
        most = self._keeper.model.most_bytes
        parts = [bytes(part) for part in self._session.hear(State, data, part_bytes=most).parts]
        if len(parts) == 2 and parts[0] == b"model":
            self._candidate = _one_copy(parts[1])
            return b""
        for release in parts:
            self._keeper.catch_up(release, self._session)
        return b""

    def _under_its_key(self, message: Train) -> tuple[Session, bytes]:
        session = self._session.at(message.round, message.attempt)
        message.expect(train=b"")
        if len(message.content) != 2:
            raise MessageRefused("a Train message without a key and a model's digest")
        key, announced = session.read_announced(bytes(message.content[0]))
        if self.name not in announced.cohort:
            raise MessageRefused(f"{self.name} is not in the cohort that the key holder drew")
        if self._memory.cohorts not in (b"", announced.cohorts):
            raise MessageRefused("the key holder draws cohorts from another seed than it said")
        if bytes(message.content[1]) != announced.model:
            raise MessageRefused("another model than the key holder's")
        session = session.under(key).after(message.digest)
        message.expect(key_id=session.key_id)
        self._keeper.settle(announced.model, message.round - 1, self._candidate)
        self._candidate = b""
        self._cohorts = announced.cohorts
        return session, key

    def _read_model(self, message: Train) -> tuple[NDArray[np.float32], Grid]:
        model = self._keeper.model
        return model.weights, model.grid

    def _answer(self, session: Session, update: bytes) -> bytes:
        """Keep the Update until the roster is closed, and promise it."""
        self._here = session
        with session.monitor.measure(Stage.VERIFY):
            self._committed = digest(update)
            self._spool.put((session.round, session.attempt), self.name, update)
            return session.write(Commitment, (self._committed,))

    def _upload(self, data: bytes) -> bytes:
        here = self._here
        with self._session.monitor.measure(Stage.VERIFY):
            self._check_roster(here, data)
        self._here = None
        return self._spool.take(self.name)

    def _check_roster(self, here: Session | None, data: bytes) -> None:
        """MessageRefused unless it is this attempt's, with this client's Update as it is."""
        if here is None:
            raise MessageRefused(f"{self.name} has committed to nothing, or sent it already")
        entries = Roster.entries(b"".join(here.read(Roster, data).parts))
        if entries.get(self.name) != self._committed:
            raise MessageRefused(f"{self.name} is on the roster with another update, or not at all")
        if len(entries) < self._min_clients:
            raise MessageRefused(f"a roster of {len(entries)} clients")

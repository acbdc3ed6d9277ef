"""The server: adds ciphertexts that it cannot read."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np

from hyperlock.encryption.scheme import Accumulator
from hyperlock.errors import CiphertextRefused, MessageRefused, RoundFailed
from hyperlock.metrics import Stage
from hyperlock.parties.messages import Aggregate, Train, Update
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.session import Session

log = logging.getLogger(__name__)


class Server:
    """Holds the public key and, unless the clients do, the global model; sees ciphertexts and
    released sums.

    Updates are folded into one running sum as they arrive, so memory does not grow with the cohort.

    Attributes:
        keeper: of the global model; None where the clients hold it.
        refused: updates of the open round that were refused.

    Args:
        session: its voice in the run.
        min_clients: a round with fewer accepted updates fails.
        keeper: as above.
    """

    def __init__(self, session: Session, *, min_clients: int, keeper: ModelKeeper | None) -> None:
        self.keeper = keeper
        self.refused = 0
        self._session = session
        self._min_clients = min_clients
        self._public = b""
        self._round = 0
        self._waiting: set[str] = set()
        self._accepted = 0
        self._sum: Accumulator | None = None

    def install_key(self, data: bytes) -> None:
        """Take the PublicKey message of this run."""
        self._public = self._session.public_key(data)
        self._session = self._session.under(self._public)

    def open(self, round_number: int, cohort: Collection[str]) -> bytes:
        """Begin a round and return the Train message for its cohort."""
        self._round = round_number
        self._waiting = set(cohort)
        self._accepted = 0
        self.refused = 0
        length = self._session.vector.length
        self._sum = self._session.scheme.accumulator(self._public, length)
        payload: tuple[bytes, ...] = ()
        if self.keeper is not None:
            model = self.keeper.model
            ranges = np.array(model.grid.ranges, "<f4")
            payload = (model.weights.astype("<f4").tobytes(), ranges.tobytes())
        return self._session.write(Train, round_number, payload)

    def receive(self, data: bytes) -> str | None:
        """Fold one Update in; the reason if it was refused, which leaves the sum as it was."""
        if self._sum is None:
            raise RoundFailed("an update arrived while no round was open")
        with self._session.monitor.measure(Stage.AGGREGATE):
            try:
                message = self._session.read(Update, data, self._round)
                self._check_sender(message.sender)
                self._sum.add(message.parts)
            except (MessageRefused, CiphertextRefused) as error:
                self.refused += 1
                log.warning("round %d: an update was refused: %s", self._round, error)
                return str(error)
        self._waiting.remove(message.sender)
        self._accepted += 1
        return None

    def close(self) -> bytes:
        """End the round and return the Aggregate message.

        Raises:
            RoundFailed: fewer updates than `min_clients` were accepted.
        """
        if self._sum is None or self._accepted < self._min_clients:
            raise RoundFailed(
                f"round {self._round}: {self._accepted} updates were accepted and {self.refused} "
                f"refused, but keys.min_clients={self._min_clients}"
            )
        with self._session.monitor.measure(Stage.AGGREGATE):
            total = self._sum.total()
            self._sum = None
            return self._session.write(Aggregate, self._round, total)

    def take(self, release: bytes) -> None:
        """Step the global model by the Release of this round."""
        if self.keeper is None:
            raise MessageRefused("the clients hold the model; the server takes no release")
        with self._session.monitor.measure(Stage.STEP):
            self.keeper.take(release, self._session)

    def _check_sender(self, sender: str) -> None:
        if sender not in self._waiting:
            raise MessageRefused(
                f"sender {sender!r:.80} is not in this round's cohort, or sent before"
            )

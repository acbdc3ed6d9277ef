"""The server: adds ciphertexts that it cannot read."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import chain

import numpy as np

from hyperlock.encryption.scheme import Accumulator
from hyperlock.errors import CiphertextRefused, MessageRefused, RoundFailed
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.messages import Aggregate, Open, PublicKey, Train, Update, train_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.session import Session
from hyperlock.parties.spending import Spending

log = logging.getLogger(__name__)


class Server:
    """Holds the public key and, unless the clients do, the global model; sees ciphertexts and
    released sums.

    Updates are folded into one running sum as they arrive, so memory does not grow with the cohort,
    but for their envelopes: the manifest, which proves to the key holder who is in the sum.

    Attributes:
        keeper: of the global model; None where the clients hold it.
        cohort: who is asked in the open attempt.
        refused: updates of the open round that were refused.
        kept: the last round after which the model was kept where a restart finds it.
        spending: under privacy, of whom it has asked sums to be released, where the key holder
            keeps its own elsewhere; None where it need not know.

    Args:
        session: its voice in the run.
        min_clients: a round with fewer accepted updates fails.
        keeper: as above.
        outbox: where an Aggregate is written down before it is sent.
    """

    def __init__(
        self, session: Session, *, min_clients: int, keeper: ModelKeeper | None, outbox: Outbox
    ) -> None:
        self.keeper = keeper
        self.refused = 0
        self.kept = 0 if keeper is None else keeper.round
        self.spending: Spending | None = None
        self._session = session
        self._min_clients = min_clients
        self._outbox = outbox
        self.cohort: tuple[str, ...] = ()
        self._played = (0, 0)  # the last round and attempt that was opened
        self._waiting: set[str] = set()
        self._envelopes: list[bytes] = []
        self._digests: set[bytes] = set()  # of the payloads in the sum
        self._sum: Accumulator | None = None

    @property
    def monitor(self) -> Monitor:
        """Where its seconds go."""
        return self._session.monitor

    @property
    def round(self) -> int:
        """The round under way; 0 before the first."""
        return self._session.round

    def begin(self, round_number: int, attempt: int) -> bytes:
        """Begin an attempt and return the Open message for the key holder."""
        self._played = min(self._played, (round_number, attempt - 1))
        self._session = self._session.at(round_number, attempt)
        return self._session.write(Open, (self.kept.to_bytes(8, "little"),))

    def open(self, public_key: bytes, cohort: Collection[str], evaluates: bool = False) -> bytes:
        """Take the attempt's PublicKey message and return the Train message for its cohort, or one
        that has the model only evaluated. The attempt may be another than was asked for, as after a
        restart or a loss.

        Raises:
            MessageRefused: it is not that.
        """
        session = self._opened(public_key)
        if self.keeper is None:
            key, held = session.read_shared_key(public_key)
            self._begin_sum(session, key, cohort)
            train = self._session.write(Train, _marked((), evaluates))
            self._session = self._session.after(train_of(held, evaluates))
            return train
        key = session.read_public_key(public_key)
        self._begin_sum(session, key, cohort)
        model = self.keeper.model
        ranges = np.array(model.grid.ranges, "<f4")
        content = (public_key, model.weights.astype("<f4").tobytes(), ranges.tobytes())
        return self._train(content, evaluates)

    def _opened(self, public_key: bytes) -> Session:
        """The server in the attempt that the key holder opened, which it numbers; MessageRefused
        for one that was played before."""
        message = self._session.hear(PublicKey, public_key)
        message.expect(round=self._session.round)
        at = (message.round, message.attempt)
        if at <= self._played:
            raise MessageRefused(f"round {at[0]}, attempt {at[1]} was played before")
        return self._session.at(*at)

    def _begin_sum(self, session: Session, key: bytes, cohort: Collection[str]) -> None:
        """In an attempt, under a key, of these clients' updates."""
        total = session.scheme.accumulator(key, session.vector.length)
        self._session = session.under(key)
        self._played = (session.round, session.attempt)
        self.cohort = tuple(cohort)
        self._waiting = set(cohort)
        self._envelopes = []
        self._digests = set()
        self.refused = 0
        self._sum = total

    def _train(self, content: tuple[bytes, ...], evaluates: bool) -> bytes:
        """The Train message, whose digest is this attempt's."""
        train = self._session.write(Train, _marked(content, evaluates))
        self._session = self._session.after(self._session.hear(Train, train).digest)
        return train

    def receive(self, data: bytes) -> str | None:
        """Fold one Update in; the reason if it was refused, which leaves the sum as it was."""
        if self._sum is None:
            raise RoundFailed("an update arrived while no round was open")
        with self._session.monitor.measure(Stage.AGGREGATE):
            try:
                message = self._read(data)
                self._check_sender(message.sender)
                # The key holder would refuse it, and with it the round.
                if self._session.copied(message.digest, self._digests):
                    raise MessageRefused(f"{message.sender} sent what another client sent")
                self._sum.add(message.parts)
            except (MessageRefused, CiphertextRefused) as error:
                self.refused += 1
                log.warning("round %d: an update was refused: %s", self._session.round, error)
                return str(error)
        self._accepted(message)
        return None

    def close(self) -> bytes:
        """End the attempt and return the Aggregate message, which is in the outbox by then.

        Raises:
            RoundFailed: fewer updates than `min_clients` were accepted.
        """
        accepted = len(self._envelopes)
        if self._sum is None or accepted < self._min_clients:
            raise RoundFailed(
                f"round {self._session.round}: {accepted} updates were accepted and "
                f"{self.refused} refused, but keys.min_clients={self._min_clients}"
            )
        with self._session.monitor.measure(Stage.AGGREGATE):
            manifest = Aggregate.manifest(self._envelopes)
            total = self._sum.total()
            self._sum = None
            parts = chain(total, [manifest], self._tallied())
            aggregate = self._session.write(Aggregate, parts)
            self._outbox.keep(self._session.round, aggregate)
        if self.spending is not None:
            self.spending.note(self._session.round, set(self.cohort) - self._waiting)
        return aggregate

    def _tallied(self) -> tuple[bytes, ...]:
        """What else proves the sum."""
        return ()

    def waiting(self, round_number: int) -> bytes:
        """The Aggregate of this round that was sent, or about to be, when the server stopped; empty
        if there is none that this run's key holder would take."""
        aggregate = self._outbox.find(round_number)
        try:
            self._session.hear(Aggregate, aggregate)
        except MessageRefused:
            # None, one of another run, or one from before all parties were given other keys.
            return b""
        return aggregate

    def take(self, release: bytes) -> None:
        """Step the global model by the Release of this round."""
        if self.keeper is None:
            raise MessageRefused("the clients hold the model; the server takes no release")
        with self._session.monitor.measure(Stage.STEP):
            self.keeper.take(release, self._session)

    def _accepted(self, message: Update) -> None:
        """It is in the sum."""
        self._waiting.remove(message.sender)
        self._envelopes.append(message.envelope)
        self._digests.add(message.digest)

    def _read(self, data: bytes) -> Update:
        """An Update of this attempt."""
        return self._session.read(Update, data)

    def _check_sender(self, sender: str) -> None:
        if sender not in self._waiting:
            raise MessageRefused(
                f"sender {sender!r:.80} is not in this round's cohort, or sent before"
            )


def _marked(content: tuple[bytes, ...], evaluates: bool) -> tuple[bytes, ...]:
    """The payload of a Train."""
    return (*content, Train.mark) if evaluates else content

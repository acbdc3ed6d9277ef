"""The server: adds ciphertexts that it cannot read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

import numpy as np

from hyperlock.encryption.scheme import Accumulator, Scheme
from hyperlock.errors import CiphertextRefused, MessageRefused, RoundFailed
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import Aggregate, Message, PublicKey, Train, Update, key_id_of
from hyperlock.parties.model import ModelKeeper

log = logging.getLogger(__name__)


class Server:
    """Holds the public key and, unless the clients do, the global model; sees ciphertexts and
    released sums.

    Updates are folded into one running sum as they arrive, so memory does not grow with the cohort.

    Args:
        identity: its name as a party of the run, its signing key, and who else is enrolled.
        scheme: the encryption.
        length: coordinates of an update's vector.
        min_clients: a round with fewer accepted updates fails.
        monitor: where the seconds of aggregation go.
        keeper: the global model; None under keys=clients.
    """

    def __init__(
        self,
        identity: Identity,
        scheme: Scheme,
        length: int,
        min_clients: int,
        monitor: Monitor,
        keeper: ModelKeeper | None,
    ) -> None:
        self.keeper = keeper
        self.refused = 0
        self._identity, self._scheme, self._length = identity, scheme, length
        self._min_clients, self._monitor = min_clients, monitor
        self._public, self._key = b"", ("", scheme.fingerprint)  # the key's id, and what it is for
        self._round, self._waiting, self._accepted = 0, set[str](), 0
        self._sum: Accumulator | None = None

    def install_key(self, data: bytes) -> None:
        """Take the PublicKey message of this run."""
        self._public = PublicKey.read(data, self._identity, fingerprint=self._scheme.fingerprint)
        self._key = key_id_of(self._public), self._scheme.fingerprint

    def open(self, round_number: int, cohort: Collection[str]) -> bytes:
        """Begin a round and return the Train message for its cohort."""
        self._round, self._waiting = round_number, set(cohort)
        self._accepted, self.refused = 0, 0
        self._sum = self._scheme.accumulator(self._public, self._length)
        payload: tuple[bytes, ...] = ()
        if self.keeper is not None:
            model = self.keeper.model
            payload = (
                model.weights.astype("<f4").tobytes(),
                np.array(model.grid.ranges, "<f4").tobytes(),
            )
        return self._send(Train, 0, payload)

    def receive(self, data: bytes) -> str | None:
        """Fold one Update in; the reason if it was refused, which leaves the sum as it was."""
        if self._sum is None:
            raise RoundFailed("an update arrived while no round was open")
        with self._monitor.measure(Stage.AGGREGATE):
            try:
                message = Update.decode(
                    data,
                    self._identity,
                    max_parts=self._scheme.chunk_count(self._length),
                    max_part_bytes=self._scheme.max_chunk_bytes,
                )
                self._check(message)
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
                "refused, "
                f"but keys.min_clients={self._min_clients}"
            )
        with self._monitor.measure(Stage.AGGREGATE):
            payload, self._sum = self._sum.total(), None
            return self._send(Aggregate, self._length, payload)

    def step(self, release: bytes) -> None:
        """Take the Release of this round and step the global model."""
        if self.keeper is None:
            raise MessageRefused("the clients hold the model; the server takes no release")
        with self._monitor.measure(Stage.STEP):
            self.keeper.step(release, *self._key)

    def _send(self, kind: type[Message], length: int, payload: Iterable[bytes]) -> bytes:
        identity = self._identity
        return kind(identity.run, self._round, identity.name, *self._key, length, payload).encode(
            identity
        )

    def _check(self, message: Update) -> None:
        key_id, fingerprint = self._key
        message.expect(
            round=self._round, key_id=key_id, fingerprint=fingerprint, length=self._length
        )
        if message.sender not in self._waiting:
            raise MessageRefused(
                f"sender {message.sender!r:.80} is not in this round's cohort, or sent before"
            )
        count = self._scheme.chunk_count(self._length)
        if len(message.parts) != count:
            raise MessageRefused(f"{len(message.parts)} ciphertexts instead of {count}")

"""A client: trains on its own data and sends only ciphertexts."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import Grid
from hyperlock.encryption.scheme import Encryptor
from hyperlock.encryption.totals import Totals
from hyperlock.errors import ClientFailure, MessageRefused
from hyperlock.learning.types import LocalData, LocalUpdate, Trainer
from hyperlock.metrics import Stage
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import Aggregate, PublicKey, Train, Update, kind_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.session import Session
from hyperlock.randomness import Streams


class Replica:
    """What the clients share under keys=clients: the secret key and the global model.

    Every client decrypts the same sum and takes the same step, so that all hold the same model in
    every round. A simulation keeps one copy for all of its clients instead of doing the same work
    once a client.

    Attributes:
        keeper: of the model.
        encryptor: symmetric, for half the bytes; None where a setting or the scheme has none.

    Args:
        session: of any of the clients.
        keyholder: what holds the shared key.
        keeper: as above.
        seeded: encrypt symmetrically where the scheme can.
    """

    def __init__(
        self, session: Session, keyholder: KeyHolder, keeper: ModelKeeper, seeded: bool = False
    ) -> None:
        self.keeper = keeper
        self.encryptor = keyholder.symmetric_encryptor() if seeded else None
        self._session = session.under(keyholder.public)
        self._keyholder = keyholder
        self._last = b""
        self._stepping = threading.Lock()

    def take(self, aggregate: bytes) -> None:
        """Decrypt, check and step; the same bytes again change nothing."""
        with self._stepping:
            if aggregate != self._last:
                self.keeper.take(self._keyholder.handle(aggregate), self._session)
                self._last = aggregate


class Client:
    """Holds its data and the public key; sees the global model and nothing of other clients.

    Attributes:
        name: as a party of the run.

    Args:
        session: its voice in the run.
        streams: what decides its batches and its rounding.
        data: its training samples.
        trainer: from weights and data to an update.
        weight_unit: the public sample count that has weight 1.
        encryptor: from the public key to what encrypts.
        replica: under keys=clients, the clients' copy of the model and of the secret key.
    """

    def __init__(
        self,
        session: Session,
        *,
        streams: Streams,
        data: LocalData,
        trainer: Trainer,
        weight_unit: float,
        encryptor: Callable[[bytes], Encryptor],
        replica: Replica | None = None,
    ) -> None:
        self.name = session.name
        self._session = session
        self._streams = streams
        self._data = data
        self._trainer = trainer
        self._weight = np.float32(len(data.y) / weight_unit)
        self._encryptor = encryptor
        self._replica = replica
        self._public: bytes | None = None
        self._round = 0

    def handle(self, data: bytes) -> bytes:
        """Answer a message: PublicKey and Aggregate with nothing, Train with an Update.

        Raises:
            MessageRefused: it is none of these, not signed by who may send it, or of another run or
                an earlier round.
            ClientFailure: training gave NaN or Inf.
            ReleaseRefused: under keys=clients, the Aggregate may not be decrypted.
        """
        match kind_of(data):
            case Train.kind:
                return self._train(data)
            case PublicKey.kind:
                self._install_key(data)
            case Aggregate.kind:
                self._take(data)
            case kind:
                raise MessageRefused(f"{self.name} does not take messages of kind {kind!r:.40}")
        return b""

    def _install_key(self, data: bytes) -> None:
        self._public = self._session.public_key(data)
        self._session = self._session.under(self._public)

    def _take(self, aggregate: bytes) -> None:
        if self._replica is None:
            raise MessageRefused(f"{self.name} holds no key and takes no aggregate")
        self._replica.take(aggregate)

    def _train(self, data: bytes) -> bytes:
        """An Update for a Train message: train, round to the grid, encrypt."""
        if self._public is None:
            raise MessageRefused(f"{self.name} has no public key yet")
        message = self._session.read(Train, data)
        if message.round < max(self._round, 1):
            raise MessageRefused(f"round {message.round} after round {self._round}")
        weights, grid = self._read_model(message)
        self._round = message.round

        vector = self._vector(weights, grid, message.round)
        monitor = self._session.monitor
        with monitor.measure(Stage.ENCRYPT):
            chunks = self._encryptor(self._public).encrypt(vector)
            count = self._session.scheme.chunk_count(vector.size)
            payload = monitor.watch(chunks, count, f"{self.name} encrypts")
            return self._session.write(Update, message.round, payload)

    def _read_model(self, message: Train) -> tuple[NDArray[np.float32], Grid]:
        """Weights and grid of the round, from the message or, under keys=clients, from here."""
        if self._replica is not None:
            message.expect(payload=())
            model = self._replica.keeper.model
            return model.weights, model.grid
        vector = self._session.vector
        due = [4 * vector.parameters, 4 * len(vector.sizes)]
        if [len(part) for part in message.parts] != due:
            raise MessageRefused("the model has another size than this run's")
        weights = np.frombuffer(message.parts[0], "<f4")
        ranges = np.frombuffer(message.parts[1], "<f4")
        if not np.isfinite(weights).all() or not np.isfinite(ranges).all() or ranges.min() <= 0:
            raise MessageRefused("the model's weights or ranges are not finite")
        return weights, Grid(vector.sizes, tuple(map(float, ranges)), vector.value_bits)

    def _vector(
        self, weights: NDArray[np.float32], grid: Grid, round_number: int
    ) -> NDArray[np.integer]:
        """What is encrypted: this client's totals, and its weighted update on the grid.

        The update itself ends here, so that it takes no memory while it is encrypted.
        """
        monitor = self._session.monitor
        with monitor.measure(Stage.TRAIN):
            batches = self._streams.at("batches", round_number)
            update = self._trainer(weights, self._data, round_number, batches)
        with monitor.measure(Stage.QUANTISE):
            return self._on_the_grid(update, grid, round_number)

    def _on_the_grid(
        self, update: LocalUpdate, grid: Grid, round_number: int
    ) -> NDArray[np.integer]:
        rounding = self._streams.at("rounding", round_number)
        try:
            if not np.isfinite(update.loss):
                raise FloatingPointError("the training loss is NaN or Inf")
            values, saturated = grid.quantise(update.vector * self._weight, rounding)
        except FloatingPointError as error:
            raise ClientFailure(
                f"{self.name}, round {round_number}: {error}; training diverged.\n"
                "  try: a smaller federation.learning_rate"
            ) from None
        share = Totals(1, len(self._data.y), update.loss, saturated)
        return self._session.vector.join(share, values)

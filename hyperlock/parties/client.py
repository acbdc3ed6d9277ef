"""A client: trains on its own data and sends only ciphertexts."""

from __future__ import annotations

import threading

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ClientFailure, MessageRefused
from hyperlock.learning.types import LocalData, Trainer
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import Aggregate, PublicKey, Train, Update, key_id_of, kind_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.randomness import generator


class Replica:
    """What the clients share under keys=clients: the secret key and the global model.

    Every client decrypts the same sum and takes the same step, so that all hold the same model in
    every round. A simulation keeps one copy for all of its clients instead of doing the same work
    once a client.

    Args:
        keyholder: what holds the shared key.
        keeper: what holds the model.
        seeded: encrypt symmetrically, in half the bytes, where the platform can.
    """

    def __init__(self, keyholder: KeyHolder, keeper: ModelKeeper, seeded: bool = False) -> None:
        self.keeper = keeper
        self.encryptor = keyholder.symmetric_encryptor() if seeded else None
        self._keyholder, self._last = keyholder, b""
        self._stepping = threading.Lock()

    def step(self, aggregate: bytes) -> None:
        """Decrypt, check and step; the same bytes again change nothing."""
        with self._stepping:
            if aggregate != self._last:
                self.keeper.step(self._keyholder.handle(aggregate), *self._keyholder.key)
                self._last = aggregate


class Client:
    """Holds its data and the public key; sees the global model and nothing of other clients.

    Args:
        index: its number among the clients, from 0; with seed and round it decides batches and
            rounding.
        identity: its name as a party of the run, its signing key, and who else is enrolled.
        seed: the run's seed.
        data: its training samples.
        trainer: from weights and data to an update.
        scheme: the encryption.
        tensor_sizes: coordinates of each tensor of the model.
        weight_unit: the public sample count that has weight 1.
        monitor: where its stages' seconds go.
        replica: under keys=clients, the clients' copy of the model and of the secret key; else
            None.
    """

    def __init__(
        self,
        index: int,
        identity: Identity,
        seed: int,
        data: LocalData,
        trainer: Trainer,
        scheme: Scheme,
        tensor_sizes: tuple[int, ...],
        weight_unit: float,
        monitor: Monitor,
        replica: Replica | None = None,
    ) -> None:
        self.name = identity.name
        self._index, self._identity, self._seed = index, identity, seed
        self._data, self._trainer, self._scheme = data, trainer, scheme
        self._sizes, self._weight, self._monitor = tensor_sizes, len(data.y) / weight_unit, monitor
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
                self._step(data)
            case kind:
                raise MessageRefused(f"{self.name} does not take messages of kind {kind!r:.40}")
        return b""

    def _install_key(self, data: bytes) -> None:
        self._public = PublicKey.read(data, self._identity, fingerprint=self._scheme.fingerprint)

    def _train(self, data: bytes) -> bytes:
        if self._public is None:
            raise MessageRefused(f"{self.name} has no public key yet")
        size = 4 * sum(self._sizes) + 4 * len(self._sizes)
        message = Train.decode(data, self._identity, max_parts=2, max_part_bytes=size)
        message.expect(
            fingerprint=self._scheme.fingerprint, key_id=key_id_of(self._public), length=0
        )
        if message.round < max(self._round, 1):
            raise MessageRefused(f"round {message.round} after round {self._round}")
        self._round = message.round
        weights, grid = self._read_model(message)
        values, share = self._update(message.round, weights, grid)
        with self._monitor.measure(Stage.ENCRYPT):
            vector = np.concatenate(
                [totals.encode(share, grid.value_bits).astype(values.dtype), values]
            )
            del values
            symmetric = self._replica.encryptor if self._replica is not None else None
            chunks = (symmetric or self._scheme.encryptor(self._public)).encrypt(vector)
            count = self._scheme.chunk_count(vector.size)
            payload = self._monitor.watch(chunks, count, f"{self.name} encrypts")
            return Update(
                message.run,
                message.round,
                self.name,
                message.key_id,
                message.fingerprint,
                vector.size,
                payload,
            ).encode(self._identity)

    def _step(self, data: bytes) -> None:
        if self._replica is None:
            raise MessageRefused(f"{self.name} holds no key and takes no aggregate")
        self._replica.step(data)

    def _read_model(self, message: Train) -> tuple[np.ndarray, Grid]:
        if self._replica is not None:
            message.expect(payload=())
            model = self._replica.keeper.model
            return model.weights, model.grid
        size, tensors = sum(self._sizes), len(self._sizes)
        if [len(part) for part in message.parts] != [4 * size, 4 * tensors]:
            raise MessageRefused("the model has another size than this run's")
        weights = np.frombuffer(message.parts[0], "<f4")
        ranges = np.frombuffer(message.parts[1], "<f4")
        if not np.isfinite(weights).all() or not (np.isfinite(ranges).all() and (ranges > 0).all()):
            raise MessageRefused("the model's weights or ranges are not finite")
        return weights, Grid(self._sizes, tuple(map(float, ranges)), self._scheme.value_bits)

    def _update(
        self, round_number: int, weights: np.ndarray, grid: Grid
    ) -> tuple[np.ndarray, totals.Totals]:
        with self._monitor.measure(Stage.TRAIN):
            batches = generator(self._seed, "batches", round_number, self._index)
            update = self._trainer(weights, self._data, round_number, batches)
        with self._monitor.measure(Stage.QUANTISE):
            rounding = generator(self._seed, "rounding", round_number, self._index)
            try:
                if not np.isfinite(update.loss):
                    raise FloatingPointError("the training loss is NaN or Inf")
                values, saturated = grid.quantise(
                    update.vector * np.float32(self._weight), rounding
                )
            except FloatingPointError as error:
                raise ClientFailure(
                    f"{self.name}, round {round_number}: {error}; training diverged.\n"
                    "  try: a smaller federation.learning_rate"
                ) from None
        return values, totals.Totals(1, len(self._data.y), update.loss, saturated)

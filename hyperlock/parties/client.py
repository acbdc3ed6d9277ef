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
from hyperlock.learning.types import Answers, Evaluator, LocalData, LocalUpdate, Trainer
from hyperlock.metrics import Stage
from hyperlock.parties.keyholder import SharedKeyHolder
from hyperlock.parties.memory import Memory
from hyperlock.parties.messages import Aggregate, Release, Train, Update, kind_of, train_of
from hyperlock.parties.model import ModelKeeper, ranges_follow
from hyperlock.parties.session import Session
from hyperlock.randomness import Streams

# From an update, float[parameters], and what draws the rounding, to int[parameters] with noise.
Protect = Callable[[NDArray[np.floating], np.random.Generator], NDArray[np.integer]]


class Replica:
    """What the clients share under keys=clients: the secret key and the global model.

    Every client decrypts the same sum and takes the same step, so that all hold the same model in
    every round. A simulation keeps one copy for all of its clients instead of doing the same work
    once a client.

    Attributes:
        keeper: of the model.
        public: the public half of the shared key, serialised.
        encryptor: symmetric, for half the bytes; None where a setting or the scheme has none.

    Args:
        session: of any of the clients.
        keyholder: what holds the shared key.
        keeper: as above.
        seeded: encrypt symmetrically where the scheme can.
    """

    def __init__(
        self,
        session: Session,
        keyholder: SharedKeyHolder,
        keeper: ModelKeeper,
        seeded: bool = False,
    ) -> None:
        self.keeper = keeper
        self.encryptor = keyholder.symmetric_encryptor() if seeded else None
        self.public = keyholder.public
        self._session = session
        self._keyholder = keyholder
        self._last = b""
        self._release = b""
        self._stepping = threading.Lock()

    def open(self, request: bytes) -> bytes:
        """The PublicKey message that answers an Open, with the digest of the clients' model, which
        the server does not have."""
        return self._keyholder.open(request, self.keeper.model.digest)

    def take(self, aggregate: bytes) -> bytes:
        """Decrypt, check and step, and return the Release; the same bytes again change nothing."""
        with self._stepping:
            if aggregate != self._last:
                self._release = self._keyholder.handle(aggregate)
                self.keeper.take(self._release, self._session)
                self._last = aggregate
            return self._release

    def again(self, aggregate: bytes) -> bytes:
        """The Release of the sum by which the model was stepped last, as after a restart;
        ReleaseRefused if it is another."""
        return self._keyholder.handle(aggregate)

    def forget(self) -> None:
        """Drop the Releases that nobody will ask for again: all but the last."""
        self._keyholder.forget(self.keeper.round - 1)

    def totals_of(self, release: bytes) -> bytes:
        """The totals in a Release, as digits: int[head] in the type of its sums."""
        vector = self._session.vector
        each = vector.sum_type(self._session.scheme.max_clients).itemsize
        sums = self._session.hear(Release, release).parts[0]
        return bytes(sums[: vector.head * each])


class Client:
    """Holds its data; sees public keys, the global model and nothing of other clients.

    Attributes:
        name: as a party of the run.

    Args:
        session: its voice in the run.
        streams: what decides its batches and its rounding.
        data: its training samples.
        trainer: from weights and data to an update.
        encryptor: from a public key to what encrypts.
        replica: under keys=clients, the clients' copy of the model and of the secret key.
        evaluator: where clients evaluate the model, how this one does.
        protect: under privacy, from an update and what draws the rounding to integers with noise.
        memory: what it has answered already; nothing, and nothing that outlives it, if None.
    """

    def __init__(
        self,
        session: Session,
        *,
        streams: Streams,
        data: LocalData,
        trainer: Trainer,
        encryptor: Callable[[bytes], Encryptor],
        replica: Replica | None = None,
        evaluator: Evaluator | None = None,
        protect: Protect | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.name = session.name
        self._session = session
        self._streams = streams
        self._data = data
        self._trainer = trainer
        self._weight = np.float32(len(data.y) / session.terms.weight_unit)
        self._encryptor = encryptor
        self._replica = replica
        self._evaluator = evaluator
        self._protect = protect
        self._memory = memory or Memory()
        self._cohorts = b""  # what the key holder draws cohorts from, if it says so

    def handle(self, data: bytes) -> bytes:
        """Answer a message: Train with an Update, Aggregate with nothing.

        Raises:
            MessageRefused: it is neither, not signed by who may send it, of another run, of an
                attempt that is not later than the last, or with ranges that cannot be.
            ClientFailure: training gave NaN or Inf.
            ReleaseRefused: under keys=clients, the Aggregate may not be decrypted.
        """
        match kind_of(data):
            case Train.kind:
                return self._train(data)
            case Aggregate.kind:
                self._take(data)
                return b""
            case kind:
                raise MessageRefused(f"{self.name} does not take messages of kind {kind!r:.40}")

    def _take(self, aggregate: bytes) -> None:
        if self._replica is None:
            raise MessageRefused(f"{self.name} holds no key and takes no aggregate")
        self._replica.take(aggregate)

    def _train(self, data: bytes) -> bytes:
        """An Update for a Train message: train, round to the grid, encrypt."""
        message = self._session.hear(Train, data)
        at = (message.round, message.attempt)
        seen = self._memory.seen
        if at <= seen or min(at) < 1:
            raise MessageRefused(
                f"round {at[0]}, attempt {at[1]} after round {seen[0]}, attempt {seen[1]}"
            )
        if message.evaluates and self._evaluator is None:
            raise MessageRefused("asked to evaluate the model, which clients of this run do not")
        session, public = self._under_its_key(message)
        weights, grid = self._read_model(message)
        encryptor = self._encryptor(public)  # or it is no key, and nothing was answered
        self._memory.note(at, grid.ranges, self._cohorts)

        makes = self._totals_alone if message.evaluates else self._vector
        vector = makes(weights, grid)
        monitor = session.monitor
        with monitor.measure(Stage.ENCRYPT):
            chunks = encryptor.encrypt(vector)
            count = session.scheme.chunk_count(vector.size)
            watched = monitor.watch(chunks, count, f"{self.name} encrypts")
            return self._answer(session, session.write(Update, watched))

    def _answer(self, session: Session, update: bytes) -> bytes:
        """What Train is answered with."""
        return update

    def _under_its_key(self, message: Train) -> tuple[Session, bytes]:
        """The voice in this attempt, and its public key: from the message or, under keys=clients,
        the one that they share."""
        session = self._session.at(message.round, message.attempt)
        if self._replica is not None:
            public = self._replica.public
            train = train_of(self._replica.keeper.model.digest, message.evaluates)
        else:
            message.expect(train=b"")
            if len(message.content) != 3:
                raise MessageRefused("a Train message without a key and a model")
            public = session.read_public_key(bytes(message.content[0]))
            train = message.digest
        session = session.under(public).after(train)
        message.expect(key_id=session.key_id)
        return session, public

    def _read_model(self, message: Train) -> tuple[NDArray[np.float32], Grid]:
        """Weights and grid of the round, from the message or, under keys=clients, from here."""
        if self._replica is not None:
            if message.content:
                raise MessageRefused("a payload, where the clients hold the model")
            model = self._replica.keeper.model
            return model.weights, model.grid
        vector = self._session.vector
        _, weights_bytes, ranges_bytes = message.content
        due = [4 * vector.parameters, 4 * len(vector.sizes)]
        if [len(weights_bytes), len(ranges_bytes)] != due:
            raise MessageRefused("the model has another size than this run's")
        weights = np.frombuffer(weights_bytes, "<f4")
        ranges = tuple(map(float, np.frombuffer(ranges_bytes, "<f4")))
        if not np.isfinite(weights).all() or not np.isfinite(ranges).all() or min(ranges) <= 0:
            raise MessageRefused("the model's weights or ranges are not finite")
        # Before the first round nothing has moved them.
        rounds = message.round - max(self._memory.seen[0], 1)
        initial = float(np.float32(self._session.terms.initial_range))
        before = self._memory.ranges or (initial,) * len(ranges)
        if not ranges_follow(ranges, before, rounds):
            raise MessageRefused(
                f"ranges that cannot have come about in {rounds} rounds: not the ones that "
                "everybody else was sent"
            )
        return weights, Grid(vector.sizes, ranges, vector.extent.value_bits)

    def _vector(self, weights: NDArray[np.float32], grid: Grid) -> NDArray[np.integer]:
        """What is encrypted: this client's totals, and its weighted update on the grid.

        The update itself ends here, so that it takes no memory while it is encrypted.
        """
        monitor = self._session.monitor
        round_number = self._memory.seen[0]
        evaluator = self._evaluator
        due = evaluator is not None and evaluator.due(round_number)
        tested = self._tested(weights) if due else Answers(0, 0)
        with monitor.measure(Stage.TRAIN):
            batches = self._streams.at("batches", *self._memory.seen)
            update = self._trainer(weights, self._data, round_number, batches)
        with monitor.measure(Stage.QUANTISE):
            return self._on_the_grid(update, grid, tested)

    def _totals_alone(self, weights: NDArray[np.float32], grid: Grid) -> NDArray[np.integer]:
        """The same of one who evaluates, and does not train."""
        tested = self._tested(weights)
        share = Totals(1, 0, 0.0, 0, tested.samples, tested.right)
        return self._session.vector.join(share, grid.nothing())

    def _tested(self, weights: NDArray[np.float32]) -> Answers:
        """How the model does on test samples of this client's."""
        assert self._evaluator is not None, "such a Train is refused"
        with self._session.monitor.measure(Stage.EVALUATE):
            return self._evaluator.test(weights)

    def _on_the_grid(self, update: LocalUpdate, grid: Grid, tested: Answers) -> NDArray[np.integer]:
        rounding = self._streams.at("rounding", *self._memory.seen)
        if self._protect is not None:
            # Nothing that depends on the data is seen beside it: neither a weight nor a failure.
            values = self._protect(update.vector, rounding)
            return self._session.vector.join(Totals(1), values)
        try:
            if not np.isfinite(update.loss):
                raise FloatingPointError("the training loss is NaN or Inf")
            values, saturated = grid.quantise(update.vector * self._weight, rounding)
        except FloatingPointError as error:
            raise ClientFailure(
                f"{self.name}, round {self._memory.seen[0]}: {error}; training diverged.\n"
                "  try: a smaller federation.learning_rate"
            ) from None
        samples = len(self._data.y)
        share = Totals(1, samples, update.loss, saturated, tested.samples, tested.right)
        return self._session.vector.join(share, values)

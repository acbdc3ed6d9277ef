"""A small round without a model: a server, a key holder, and clients whose updates are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid, integer_type, largest_value
from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.encryption.vector import Vector
from hyperlock.experiment.simulation import build_encryptor
from hyperlock.learning.optimizers import Sgd
from hyperlock.learning.types import Evaluator, LocalData, LocalUpdate
from hyperlock.monitor import Monitor
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER, Identity, enrol
from hyperlock.parties.keyholder import KeyHolder, Policy, SharedKeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import Aggregate, Message, Release, Train, Update, key_id_of
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.parties.terms import Terms
from hyperlock.randomness import Streams

M = TypeVar("M", bound=Message)
NAMES = [f"client-{i}" for i in range(6)]
SAMPLES = 10  # of each client
TERMS = Terms(weight_unit=10.0, initial_range=0.5, range_factor=4.0)
SIZES = (12_300, 100)  # two ciphertexts
ROUNDS = 9  # of a run; the key holder decrypts for no later one


@dataclass
class Trainer:
    """Gives the same update in every round, and remembers the weights that it was given."""

    update: np.ndarray
    loss: float = 1.5
    seen: list[np.ndarray] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)

    def __call__(
        self, weights: np.ndarray, data: LocalData, round_number: int, rng: np.random.Generator
    ) -> LocalUpdate:
        """The update that was given."""
        self.seen.append(weights)
        self.drawn.append(rng.random())
        return LocalUpdate(self.update, self.loss)


@dataclass
class Cast:
    """The parties of a round, wired up, and what the clients would send."""

    scheme: Scheme
    min_clients: int = 3
    sizes: tuple[int, ...] = SIZES
    monitor: Monitor = field(default_factory=Monitor)
    parties: dict[str, Identity] = field(
        default_factory=lambda: enrol("run", dict.fromkeys(NAMES, SAMPLES))
    )
    shared: bool = False  # the clients share the key, as under keys=clients
    evaluated: bool = False  # clients evaluate the model

    def __post_init__(self) -> None:
        self.layout = Vector(self.scheme.extent, self.sizes, self.evaluated)
        self.length = self.layout.length
        weights = np.linspace(-1, 1, sum(self.sizes)).astype(np.float32)
        grid = Grid(self.sizes, (0.5,) * len(self.sizes), self.scheme.extent.value_bits)
        self.keeper = ModelKeeper(GlobalModel(weights, grid, Sgd(1.0), 10.0, 4.0))
        self.ledger = Ledger()
        self.keyholder = self.another_keyholder()
        self.server = self.another_server(self.keeper)
        self.open()

    def session(self, name: str) -> Session:
        """A party's, before there is an attempt."""
        return Session(self.parties[name], self.scheme, self.layout, TERMS, self.monitor)

    def here(self, name: str) -> Session:
        """A party's, in the attempt that is open."""
        return self.session(name).at(*self.at).under(self.public).after(self.train)

    def another_keyholder(self, ledger: Ledger | None = None) -> KeyHolder:
        """One with keys of its own, and this ledger or that of the cast."""
        kind = SharedKeyHolder if self.shared else KeyHolder
        return kind(
            self.session(KEYHOLDER),
            policy=Policy(self.min_clients, ROUNDS, attempts=9),
            ledger=self.ledger if ledger is None else ledger,
        )

    def another_server(self, keeper: ModelKeeper | None, outbox: Outbox | None = None) -> Server:
        """One at which no attempt is open."""
        return Server(
            self.session(SERVER),
            min_clients=self.min_clients,
            keeper=keeper,
            outbox=outbox or Outbox(),
        )

    def open(
        self,
        round_number: int = 1,
        attempt: int = 1,
        server: Server | None = None,
        cohort: Sequence[str] = NAMES,
        evaluates: bool = False,
    ) -> bytes:
        """Have the server open an attempt, and return its Train message; keys and Train are that
        attempt's from then on."""
        server = server or self.server
        self.at = (round_number, attempt)
        begun = server.begin(round_number, attempt)
        if isinstance(self.keyholder, SharedKeyHolder):
            held = b"" if server.keeper else self.keeper.model.digest
            self.key_message = self.keyholder.open(begun, held)
        else:
            self.key_message = self.keyholder.handle(begun)
        self.public = self.session(SERVER).at(*self.at).read_shared_key(self.key_message)[0]
        self.key_id = key_id_of(self.public)
        self.request = server.open(self.key_message, cohort, evaluates)
        self.train = self.session(NAMES[0]).hear(Train, self.request).digest
        return self.request

    def client(
        self,
        trainer: Trainer,
        index: int = 3,
        samples: int = SAMPLES,
        seed: int = 0,
        replica: Replica | None = None,
        evaluator: Evaluator | None = None,
    ) -> Client:
        """One of the run."""
        return Client(
            self.session(f"client-{index}"),
            streams=Streams(seed, index),
            data=LocalData(np.zeros((samples, 2)), np.zeros(samples, np.int32)),
            trainer=trainer,
            encryptor=build_encryptor(self.scheme, replica),
            replica=replica,
            evaluator=evaluator,
        )

    def sign(self, message: Message, signer: str = "") -> bytes:
        """Its bytes, signed by `signer` as if it were the sender, whatever run and sender the
        message names."""
        identity = self.parties[signer or message.sender]
        return message.encode(replace(identity, run=message.run, name=message.sender))

    def vector(self, seed: int = 0, samples: int = SAMPLES) -> np.ndarray:
        """One client's plaintext: totals and update."""
        levels = 2 ** (self.scheme.extent.value_bits - 1) - 1
        update = np.random.default_rng(seed).integers(
            -levels, levels, sum(self.sizes), endpoint=True
        )
        update[:50] = levels
        return np.concatenate(
            [totals.encode(Totals(1, samples, 1.5, 2), self.scheme.extent.value_bits), update]
        )

    def message(self, sender: str, vector: np.ndarray, **changes: object) -> Update:
        """What the client would send in the open attempt, or a variation of it."""
        chunks = tuple(self.scheme.encryptor(self.public).encrypt(vector))
        changes = {"length": vector.size, **changes}
        return replace(self.of(Update, sender, chunks), **changes)  # type: ignore[arg-type]

    def update(self, sender: str, vector: np.ndarray, **changes: object) -> bytes:
        """Its bytes."""
        return self.sign(self.message(sender, vector, **changes), sender)

    def aggregate(
        self, vectors: list[np.ndarray], names: Sequence[str] = NAMES, **changes: object
    ) -> bytes:
        """The sum of these vectors, one of each of the first clients or of these, as a server would
        send it, without a server's checks."""
        accumulator = self.scheme.accumulator(self.public, vectors[0].size)
        envelopes = []
        for i, vector in enumerate(vectors):
            message = self.message(names[i % len(names)], vector)
            accumulator.add(message.parts)
            envelopes.append(self.envelope(message))
        payload = (*accumulator.total(), Aggregate.manifest(envelopes))
        message = replace(self.of(Aggregate, SERVER, payload), **changes)  # type: ignore[arg-type]
        return self.sign(message, SERVER)

    def envelope(self, message: Message) -> bytes:
        """Header and signature of a message, without its payload."""
        return envelope_of(self.sign(message))

    def of(self, kind: type[M], sender: str, payload: tuple[bytes, ...]) -> M:
        """A message of the open attempt."""
        return kind(
            run="run",
            round=self.at[0],
            attempt=self.at[1],
            sender=sender,
            key_id=self.key_id,
            fingerprint=self.scheme.fingerprint,
            length=self.length,
            terms=TERMS.digest,
            train=self.train,
            payload=payload,
        )

    def read(self, kind: type[Message], data: bytes, reader: str = SERVER) -> Message:
        """A message as a party of the run decodes it."""
        return kind.decode(data, self.parties[reader], max_parts=9, max_part_bytes=10**7)

    def sums(self, release: bytes) -> np.ndarray:
        """The exact sums in a Release, at the width that the scheme's largest sum takes."""
        largest = self.scheme.max_clients * largest_value(self.scheme.extent.value_bits)
        return np.frombuffer(self.read(Release, release).parts[0], integer_type(largest))


def envelope_of(data: bytes) -> bytes:
    """Of a message's bytes, what stands behind the payload, but for its size."""
    size = int.from_bytes(data[-4:], "little")
    return data[-4 - size : -4]

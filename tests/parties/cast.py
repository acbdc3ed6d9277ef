"""A small round without a model: a server, a key holder, and clients whose updates are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid, integer_type, largest_value
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.encryption.vector import Vector
from hyperlock.experiment.simulation import build_encryptor
from hyperlock.learning.optimizers import Sgd
from hyperlock.learning.types import LocalData, LocalUpdate
from hyperlock.monitor import Monitor
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER, Identity, enrol
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import Aggregate, Message, Release, Update, key_id_of
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.randomness import Streams

NAMES = [f"client-{i}" for i in range(6)]
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
        default_factory=lambda: enrol("run", [SERVER, KEYHOLDER, *NAMES])
    )

    def __post_init__(self) -> None:
        self.layout = Vector(self.scheme.value_bits, self.sizes)
        self.length = self.layout.length
        weights = np.linspace(-1, 1, sum(self.sizes)).astype(np.float32)
        grid = Grid(self.sizes, (0.5,) * len(self.sizes), self.scheme.value_bits)
        self.keeper = ModelKeeper(GlobalModel(weights, grid, Sgd(1.0), 10.0, 4.0))
        self.keyholder = self.another_keyholder()
        self.server = self.another_server(self.keeper)
        self.public = self.keyholder.public
        self.key_id = key_id_of(self.public)

    def session(self, name: str) -> Session:
        """A party's, before it has a key."""
        return Session(self.parties[name], self.scheme, self.layout, self.monitor)

    def another_keyholder(self, keys: KeyPair | None = None) -> KeyHolder:
        """One with keys of its own, or with these, that has decrypted nothing yet."""
        session = self.session(KEYHOLDER)
        return KeyHolder(session, min_clients=self.min_clients, rounds=ROUNDS, keys=keys)

    def another_server(self, keeper: ModelKeeper | None) -> Server:
        """One that has the public key."""
        server = Server(self.session(SERVER), min_clients=self.min_clients, keeper=keeper)
        server.install_key(self.keyholder.public_key())
        return server

    def client(
        self,
        trainer: Trainer,
        index: int = 3,
        samples: int = 10,
        seed: int = 0,
        replica: Replica | None = None,
        keyed: bool = True,
    ) -> Client:
        """One that has the public key, unless it is not `keyed`."""
        made = Client(
            self.session(f"client-{index}"),
            streams=Streams(seed, index),
            data=LocalData(np.zeros((samples, 2)), np.zeros(samples, np.int32)),
            trainer=trainer,
            weight_unit=10.0,
            encryptor=build_encryptor(self.scheme, replica),
            replica=replica,
        )
        if keyed:
            made.handle(self.keyholder.public_key())
        return made

    def sign(self, message: Message, signer: str = "") -> bytes:
        """Its bytes, signed by `signer` as if it were the sender, whatever run and sender the
        message names."""
        identity = self.parties[signer or message.sender]
        return message.encode(replace(identity, run=message.run, name=message.sender))

    def vector(self, seed: int = 0, samples: int = 10) -> np.ndarray:
        """One client's plaintext: totals and update."""
        levels = 2 ** (self.scheme.value_bits - 1) - 1
        update = np.random.default_rng(seed).integers(
            -levels, levels, sum(self.sizes), endpoint=True
        )
        update[:50] = levels
        return np.concatenate(
            [totals.encode(Totals(1, samples, 1.5, 2), self.scheme.value_bits), update]
        )

    def message(
        self, sender: str, vector: np.ndarray, round_number: int = 1, **changes: object
    ) -> Update:
        """What the client would send, or a variation of it."""
        chunks = tuple(self.scheme.encryptor(self.public).encrypt(vector))
        fingerprint = self.scheme.fingerprint
        message = Update("run", round_number, sender, self.key_id, fingerprint, vector.size, chunks)
        return replace(message, **changes)  # type: ignore[arg-type]

    def update(
        self, sender: str, vector: np.ndarray, round_number: int = 1, **changes: object
    ) -> bytes:
        """Its bytes."""
        return self.sign(self.message(sender, vector, round_number, **changes), sender)

    def aggregate(
        self, vectors: list[np.ndarray], round_number: int = 1, **changes: object
    ) -> bytes:
        """The sum of these vectors, as a server would send it, without a server's checks."""
        encryptor = self.scheme.encryptor(self.public)
        accumulator = self.scheme.accumulator(self.public, vectors[0].size)
        for vector in vectors:
            accumulator.add(tuple(encryptor.encrypt(vector)))
        fingerprint = self.scheme.fingerprint
        total = tuple(accumulator.total())
        message = Aggregate(
            "run", round_number, SERVER, self.key_id, fingerprint, self.length, total
        )
        return self.sign(replace(message, **changes), SERVER)  # type: ignore[arg-type]

    def read(self, kind: type[Message], data: bytes, reader: str = SERVER) -> Message:
        """A message as a party of the run decodes it."""
        return kind.decode(data, self.parties[reader], max_parts=9, max_part_bytes=10**6)

    def sums(self, release: bytes) -> np.ndarray:
        """The exact sums in a Release, at the width that the scheme's largest sum takes."""
        largest = self.scheme.max_clients * largest_value(self.scheme.value_bits)
        return np.frombuffer(self.read(Release, release).parts[0], integer_type(largest))

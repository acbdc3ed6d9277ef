"""A small round without a model: a server, a key holder, and clients whose updates are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.learning.optimizers import Sgd
from hyperlock.messages import Aggregate, PublicKey, Release, Update
from hyperlock.roles.global_model import GlobalModel, ModelKeeper
from hyperlock.roles.keyholder import KeyHolder
from hyperlock.roles.server import Server
from hyperlock.timing import Timings

NAMES = [f"client-{i}" for i in range(6)]
SIZES = (6200, 100)  # two ciphertexts


@dataclass
class Cast:
    """The parties of a round, wired up, and what the clients would send."""

    scheme: Scheme
    min_clients: int = 3
    sizes: tuple[int, ...] = SIZES
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        bits = self.scheme.value_bits
        weights = np.linspace(-1, 1, sum(self.sizes)).astype(np.float32)
        grid = Grid(self.sizes, (0.5,) * len(self.sizes), bits)
        self.keeper = ModelKeeper("run", GlobalModel(weights, grid, Sgd(1.0), 10.0, 4.0))
        self.length = totals.width(bits) + sum(self.sizes)
        self.keyholder = self.another_keyholder()
        self.server = Server("run", self.scheme, self.length, self.min_clients, self.timings, self.keeper)
        self.server.install_key(self.keyholder.public_key())
        message = PublicKey.decode(self.keyholder.public_key(), max_parts=1, max_part_bytes=2**24)
        self.public, self.key_id = message.payload[0], message.key_id

    def another_keyholder(self) -> KeyHolder:
        """One with keys of its own."""
        return KeyHolder("run", self.scheme, self.length, self.min_clients, self.timings)

    def vector(self, seed: int = 0, samples: int = 10) -> np.ndarray:
        """One client's plaintext: totals and update."""
        levels = 2 ** (self.scheme.value_bits - 1) - 1
        update = np.random.default_rng(seed).integers(-levels, levels, sum(self.sizes), endpoint=True)
        update[:50] = levels
        return np.concatenate([totals.encode(Totals(1, samples, 1.5, 2), self.scheme.value_bits), update])

    def message(self, sender: str, vector: np.ndarray, round_number: int = 1, **changes: object) -> Update:
        """What the client would send, or a variation of it."""
        chunks = self.scheme.encryptor(self.public).encrypt(vector)
        fingerprint = self.scheme.fingerprint
        message = Update("run", round_number, sender, self.key_id, fingerprint, vector.size, chunks)
        return replace(message, **changes)  # type: ignore[arg-type]

    def update(self, sender: str, vector: np.ndarray, round_number: int = 1, **changes: object) -> bytes:
        """Its bytes."""
        return self.message(sender, vector, round_number, **changes).encode()

    def aggregate(self, vectors: list[np.ndarray], round_number: int = 1, **changes: object) -> bytes:
        """The sum of these vectors, as a server would send it, without a server's checks."""
        encryptor, accumulator = self.scheme.encryptor(self.public), self.scheme.accumulator(self.public)
        for vector in vectors:
            accumulator.add(encryptor.encrypt(vector))
        fingerprint, total = self.scheme.fingerprint, accumulator.total()
        message = Aggregate("run", round_number, "server", self.key_id, fingerprint, self.length, total)
        return replace(message, **changes).encode()  # type: ignore[arg-type]

    def sums(self, release: bytes) -> np.ndarray:
        """The exact sums in a Release."""
        message = Release.decode(release, max_parts=1, max_part_bytes=8 * self.length)
        return np.frombuffer(message.payload[0], "<i8")
